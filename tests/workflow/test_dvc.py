"""dvc.yaml runs the same DAG: it and Snakemake agree on what is done, and checkpoints come back from a remote."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.checkouts import ABSENT, planned
from tests.test_repository import commands

WEIGHTS = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
ARCHIVE = "data/tiny/archives/coco/train2017.zip"
SCORES = "runs/tiny/copy-first-mask/seed0/davis2017-val/per_frame.csv"
MAKE_RESTORE = re.compile(r"^restore:.*\n((?:\t.*\n)+)", re.MULTILINE)


def commit(checkout, message: str) -> None:
    checkout.run("git", "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    checkout.run("git", *identity, "commit", "--quiet", "--message", message)


@pytest.fixture
def repository(checkout):
    """The finished checkout as a git repository, with two rows."""
    return make_repository(checkout)


def make_repository(checkout):
    """Turns a finished checkout into a git repository with two rows: a stage for each costs time."""
    rows = yaml.safe_load((checkout.path / "config/rows.yaml").read_text())["systems"]
    kept = {row: rows[row] for row in ("hodor-soft-coco", "copy-first-mask")}
    checkout.set("rows", "systems", kept)
    stated = yaml.safe_load((checkout.path / "config/claims.yaml").read_text())["claims"]
    stated = {id: claim for id, claim in stated.items() if set(claim["rows"]) <= kept.keys()}
    checkout.set("claims", "claims", stated)
    checkout.set("config", "rows", ["main"])
    checkout.set("scales/tiny", "inference_for", ABSENT)  # exceptions for the other rows
    for notebook in (checkout.path / "workflow/notebooks").glob("*.py"):  # their content matters to other tests
        notebook.write_text('# %% tags=["parameters"]\nscale = ""\n')
    for row in rows.keys() - kept.keys():
        shutil.rmtree(checkout.path / "runs/tiny" / row, ignore_errors=True)  # not every row was run
    checkout.run("git", "init", "--quiet", "--initial-branch", "main")
    commit(checkout, "all")
    return checkout


def ran(output: str) -> list[str]:
    """Rules of the jobs that ran, out of the output of Snakemake."""
    return re.findall(r"^Finished jobid: \d+ \(Rule: (\S+)\)$", output, re.MULTILINE)


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """A repository whose results are recorded and pushed to a folder. Read it only; `clone` gives a copy."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(finished.path, folder / "repository", symlinks=True)
    repository = make_repository(type(finished)(folder / "repository"))
    repository.run("dvc", "remote", "add", "--default", "--quiet", "store", str(folder / "store"))
    repository.run("dvc", "repro")
    commit(repository, "results")
    repository.run("dvc", "push")
    return repository


@pytest.fixture
def clone(published, tmp_path):
    """A fresh clone: what git knows, and nothing of what DVC keeps."""
    published.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = type(published)(tmp_path / "clone")
    assert not (clone.path / "runs").exists() and not (clone.path / "data").exists()
    return clone


def restore(checkout, check: bool = True) -> str:
    """Runs the commands of `make restore`, without the installation that it depends on; its output."""
    recipe = MAKE_RESTORE.search((checkout.path / "Makefile").read_text()).group(1)
    script = re.sub(r"^\t@?", "", recipe, flags=re.MULTILINE).replace("$$", "$")
    assert script.splitlines()[0] == "dvc pull" and "--touch" in script
    done = checkout.run("bash", "-eu", "-o", "pipefail", "-c", script, check=check)
    assert check or done.returncode != 0
    return done.stdout


def seeds_in(checkout) -> dict[str, set[int]]:
    """Row -> seeds whose numbers the table of the extended rows and table 1 show, by the manifests they name."""
    seeds: dict[str, set[int]] = {}
    for table in ("ablation", "extended"):
        for line in checkout.table(f"results/{table}_table.csv"):
            if line["manifest"]:
                manifest = json.loads((checkout.path / line["manifest"]).read_text())
                assert manifest["row"] == line["row"]
                seeds.setdefault(line["row"], set()).add(manifest["config"]["train"]["settings"]["seed"])
    return seeds


def test_dvc_repro_and_snakemake_agree_and_checkpoints_come_back(repository, tmp_path):
    repository.snakemake()
    written = (repository.path / WEIGHTS).stat().st_mtime_ns

    # After Snakemake, dvc repro trains nothing, and records what is there.
    output = repository.run("dvc", "repro").stdout
    assert "Running stage 'row@hodor-soft-coco'" in output and "Running stage 'reports'" in output
    assert ran(output) == []
    assert (repository.path / WEIGHTS).stat().st_mtime_ns == written
    assert repository.due() == {}
    repository.run("dvc", "status", "--quiet")
    commit(repository, "results")
    assert repository.run("git", "status", "--short").stdout == ""

    # What dvc repro has made, Snakemake takes as made.
    repository.set("scales/tiny", "stages.images.learning_rate", 0.002)
    output = repository.run("dvc", "repro").stdout
    made = [rule for rule in ran(output) if rule not in ("all", "tables", "pages", "hodor-soft-coco")]
    tables = repository.config().rows["hodor-soft-coco"].tables
    assert len(tables) == 2
    expected = ["train", "segment", "score", "manifest"]
    expected += [f"{step}_{table}" for step in ("tabulate", "publish") for table in tables]
    expected += ["tabulate_costs", "publish_costs", "claims", "publish_claims", "render", "publish_pages"]
    assert sorted(made) == sorted(expected)
    assert (repository.path / WEIGHTS).read_bytes()
    assert repository.due() == {}

    # DVC's own commands show the change, its effect, and the training curves.
    change = json.loads(repository.run("dvc", "params", "diff", "--json").stdout)["config/scales/tiny.yaml"]
    assert change == {"stages.images.learning_rate": {"old": 0.001, "new": 0.002, "diff": 0.001}}
    effect = json.loads(repository.run("dvc", "metrics", "diff", "--json").stdout)["results/tiny/metrics.json"]
    assert effect.keys() and all(key.startswith("hodor-soft-coco.") for key in effect)
    repository.run("dvc", "plots", "show")
    assert "hodor-soft-coco" in (repository.path / "dvc_plots/index.html").read_text()
    commit(repository, "other results")

    # Archives and checkpoints go to a remote and come back to a clone.
    repository.run("dvc", "remote", "add", "--default", "--quiet", "store", str(tmp_path / "store"))
    commit(repository, "remote")
    repository.run("dvc", "push")
    repository.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = type(repository)(tmp_path / "clone")
    assert not (clone.path / WEIGHTS).exists()
    output = restore(clone)
    assert (clone.path / WEIGHTS).read_bytes() == (repository.path / WEIGHTS).read_bytes()
    assert list((clone.path / "data/tiny/archives/coco").glob("*.zip"))
    assert not list((clone.path / "runs").rglob("masks"))
    assert clone.due() == {}
    clone.run("dvc", "status", "--quiet")

    # A change in the clone trains nothing that it does not touch; the data come back from the archives.
    clone.set("scales/tiny", "inference.temporal_window", 2)
    due = clone.due()
    assert due["segment"] == 2 and due["prepare"] == 1 and not {"train", "fetch"} & due.keys()


@pytest.mark.long
def test_a_restored_clone_runs_nothing(clone):
    """Neither Snakemake nor DVC, nor the one after the other."""
    restore(clone)
    assert clone.due() == {}
    assert ran(clone.run("dvc", "repro").stdout) == []
    assert ran(clone.snakemake()) == []
    clone.run("dvc", "status", "--quiet")
    assert clone.run("git", "status", "--short").stdout == ""


@pytest.mark.long
def test_restore_refuses_settings_that_are_not_the_recorded_ones(clone):
    """`--touch` would declare numbers of other settings to be up to date."""
    clone.set("scales/tiny", "inference.temporal_window", 2)
    assert "not what dvc.lock records" in restore(clone, check=False)
    due = clone.due()
    assert due["segment"] == due["score"] == 2 and "train" not in due, "by their records the weights are up to date"
    clone.run("git", "checkout", "--quiet", "config")
    restore(clone)
    assert clone.due() == {}


@pytest.mark.long
def test_restore_refuses_what_a_damaged_remote_holds(published, clone, tmp_path):
    store, files = tmp_path / "store", [WEIGHTS, SCORES, "results/tiny/ablation_table.csv", ARCHIVE]
    shutil.copytree(published.path.parent / "store", store)
    clone.run("dvc", "remote", "modify", "--local", "store", "url", str(store))
    for file in files:
        content = bytearray((published.path / file).read_bytes())
        digest = hashlib.md5(content).hexdigest()
        (damaged,) = store.glob(f"**/{digest[:2]}/{digest[2:]}")
        content[len(content) // 2] ^= 1
        damaged.chmod(0o644)
        damaged.write_bytes(content)
    (line,) = [line for line in restore(clone, check=False).splitlines() if line.startswith("make restore: ")]
    assert set(files) <= set(line.split()) and "dvc.lock" in line
    assert not (clone.path / "runs/tiny/stamps").exists(), "nothing was declared up to date"


@pytest.mark.long
def test_restore_refuses_a_result_that_was_changed(clone):
    restore(clone)
    score = clone.path / "runs/tiny/copy-first-mask/seed0/davis2017-val/score.json"
    score.chmod(0o644)
    score.write_text(score.read_text().replace("{", "{ ", 1))
    changed = score.read_text()
    restore(clone, check=False)
    # Nothing that a person may have wanted is overwritten, and the table step refuses it as well.
    assert score.read_text() == changed
    score.unlink()
    restore(clone)
    assert clone.due() == {} and score.read_text() != changed


@pytest.mark.long
@pytest.mark.parametrize("value", ["learning rate", "seed"])
def test_a_changed_value_after_a_restore_retrains_what_it_must(clone, value):
    restore(clone)
    before = (clone.path / WEIGHTS).read_bytes()
    if value == "seed":
        clone.set("config", "seeds", [1])
        trained, seed = 2, 1  # the other row has nothing to learn, but is made for each seed
    else:
        clone.set("scales/tiny", "stages.images.learning_rate", 0.01)
        trained, seed = 1, 0
    assert clone.due()["train"] == trained
    made = ran(clone.run("dvc", "repro").stdout)
    assert made.count("train") == trained
    # No stale number: every run in the tables was made with the seed and the rate that are asked for.
    assert seeds_in(clone) == {"hodor-soft-coco": {seed}, "copy-first-mask": {seed}}
    weights = clone.path / WEIGHTS.replace("seed0", f"seed{seed}")
    settings = json.loads(weights.with_name("train.json").read_text())["stamp_content"]["settings"]
    assert settings["stage"]["learning_rate"] == (0.01 if value == "learning rate" else 0.001)
    assert weights.read_bytes() != before
    assert clone.due() == {}
    clone.run("dvc", "status", "--quiet")


@pytest.mark.long
def test_an_experiment_records_numbers_of_its_own_seed(clone, root):
    """`dvc exp run` in a temporary copy, where no stamp of the workspace is: the commands of docs/versioning.md."""
    exp_run, diff, show, apply = (
        [word.replace("mini", "tiny") for word in words] for _, words in commands(root) if words[:2] == ["dvc", "exp"]
    )
    restore(clone)
    before = (clone.path / "results/ablation_table.csv").read_text()
    clone.run("git", "config", "user.name", "test")
    clone.run("git", "config", "user.email", "test@example.org")
    rate = "stages.images.learning_rate"
    output = clone.run(*exp_run, "-S", "config/config.yaml:seeds=[1]").stdout
    assert ran(output).count("train") == 2
    # What was changed, and its effect.
    found = json.loads(clone.run(*diff, "--json").stdout)
    assert found["params"]["config/scales/tiny.yaml"][rate] == {"old": 0.001, "new": 0.002, "diff": 0.001}
    effect = found["metrics"]["results/tiny/metrics.json"]
    assert effect and all(key.startswith("hodor-soft-coco.") and change["diff"] for key, change in effect.items())
    shown = list(csv.DictReader(clone.run(*show, "--csv").stdout.splitlines()))
    assert {line["Experiment"] or line["rev"]: line[rate] for line in shown} == {
        "workspace": "0.001",
        "main": "0.001",
        "faster": "0.002",
    }
    # The workspace is as it was.
    assert clone.due() == {} and (clone.path / "results/ablation_table.csv").read_text() == before
    clone.run(*apply)
    table = "results/tiny/ablation_table.csv"
    lines = {line["row"]: line for line in clone.table(table)}
    assert "seed1" in lines["hodor-soft-coco"]["manifest"] and (clone.path / table).read_text() != before
    manifest = json.loads((clone.path / lines["hodor-soft-coco"]["manifest"]).read_text())
    assert manifest["config"]["train"]["settings"]["seed"] == 1
    # The page's further commands; that of each kind of remote replaces the one before.
    run = set()
    for page, (program, *words) in commands(root, inline=True):
        if (page, program) == ("docs/versioning.md", "dvc") and words[0] not in ("repro", "push", "pull", "exp"):
            clone.run("dvc", *words, *["--force"] * (words[1:2] == ["add"]))
            run.add(words[0])
    assert run == {"remote", "cache", "params", "metrics", "plots", "status"}


@pytest.mark.long
def test_dvc_repro_from_nothing(repository, tmp_path):
    repository.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = type(repository)(tmp_path / "clone")
    output = clone.run("dvc", "repro").stdout
    assert ran(output).count("train") == 2
    assert (clone.path / "reports/index.html").is_file()
    assert clone.due() == {}
    clone.run("dvc", "status", "--quiet")


@pytest.mark.long
def test_a_row_that_is_not_selected_is_no_work_for_dvc(repository):
    repository.set("config", "rows", ["copy-first-mask"])
    repository.snakemake()
    output = repository.run("dvc", "repro").stdout
    assert set(ran(output)) <= {"hodor-soft-coco", "copy-first-mask"}
    assert repository.due() == {}


def test_a_linked_data_folder_is_refused_before_the_first_step(fresh):
    """DVC would refuse to record the archives, after they were made."""
    checkout = fresh()
    checkout.run("git", "init", "--quiet")
    elsewhere = checkout.path.with_name("elsewhere")
    elsewhere.mkdir()
    (checkout.path / "data").symlink_to(elsewhere)
    output = checkout.run("dvc", "repro", check=False).stdout
    assert re.search("^data: .*link.*cache", output, re.MULTILINE) and ran(output) == []
    assert checkout.due("copy-first-mask")["fetch"] > 0, "Snakemake alone needs no folder of its own"


def test_dvc_leaves_outputs_alone(root: Path):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {"archives", "row", "tables", "reports"}
    for name, stage in stages.items():
        body = stage.get("do", stage)
        assert all(options == {"persist": True} for out in body["outs"] for options in out.values()), name
        assert "--allowed-rules" in body["cmd"] and {"config", "hodor/config"} <= set(body["deps"])
    # What the stamp of the pages holds besides the configuration.
    assert {"workflow/notebooks", "CITATION.cff"} <= set(stages["reports"]["deps"])


def test_a_row_with_secret_benchmarks_runs_the_rules_of_its_stage(fresh):
    checkout = fresh()
    command = yaml.safe_load((checkout.path / "dvc.yaml").read_text())["stages"]["row"]["do"]["cmd"]
    command = command.replace("${scale}", "paper").replace("${key}", "hodor-soft-coco")
    command = command.replace("--cores all", "--dry-run --config scale=paper rows=hodor-soft-coco")
    due = planned(checkout.run("bash", "-eu", "-c", command).stdout)
    assert {"fetch", "prepare", "train", "segment", "score", "submit", "manifest"} <= due.keys()
