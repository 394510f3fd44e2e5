"""dvc.yaml runs the same DAG: it and Snakemake agree on what is done, and checkpoints come back from a remote."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

WEIGHTS = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
MAKE_RESTORE = re.compile(r"^restore:.*\n((?:\t.*\n)+)", re.MULTILINE)


def commit(checkout, message: str) -> None:
    checkout.run("git", "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    checkout.run("git", *identity, "commit", "--quiet", "--message", message)


@pytest.fixture
def repository(checkout):
    """The finished checkout as a git repository, with two rows: a stage for each costs time."""
    rows = yaml.safe_load((checkout.path / "config/rows.yaml").read_text())["systems"]
    kept = {row: rows[row] for row in ("hodor-soft-coco", "copy-first-mask")}
    (checkout.path / "config/rows.yaml").write_text(yaml.safe_dump({"systems": kept}, sort_keys=False))
    released = checkout.path / "config/released.yaml"
    entries = yaml.safe_load(released.read_text())["released"]
    entries = {id: entry for id, entry in entries.items() if entry["row"] in kept}
    released.write_text(yaml.safe_dump({"released": entries}, sort_keys=False))
    scale = checkout.path / "config/scales/tiny.yaml"
    settings = yaml.safe_load(scale.read_text())
    settings.pop("inference_for", None)  # exceptions for the other rows
    scale.write_text(yaml.safe_dump(settings, sort_keys=False))
    for row in rows.keys() - kept.keys():
        shutil.rmtree(checkout.path / "runs/tiny" / row, ignore_errors=True)  # not every row was run
    checkout.run("git", "init", "--quiet", "--initial-branch", "main")
    commit(checkout, "all")
    return checkout


def ran(output: str) -> list[str]:
    """Rules of the jobs that ran, out of the output of Snakemake."""
    return re.findall(r"^Finished jobid: \d+ \(Rule: (\S+)\)$", output, re.MULTILINE)


def restore(checkout) -> str:
    """Runs the commands of `make restore`, without the installation that it depends on."""
    recipe = MAKE_RESTORE.search((checkout.path / "Makefile").read_text()).group(1)
    script = re.sub(r"^\t@?", "", recipe, flags=re.MULTILINE)
    assert script.splitlines()[0] == "dvc pull" and "--touch" in script
    return checkout.run("bash", "-eu", "-o", "pipefail", "-c", script).stdout


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
    repository.set("stages.images.learning_rate", 0.002)
    output = repository.run("dvc", "repro").stdout
    made = [rule for rule in ran(output) if rule not in ("all", "tables", "released", "pages", "hodor-soft-coco")]
    # The row is in two tables, and has its costs.
    expected = [
        "train",
        "segment",
        "score",
        "manifest",
        *2 * ["tabulate", "publish"],
        "tabulate_costs",
        "publish_costs",
    ]
    expected += ["render", "publish_pages"]
    assert sorted(made) == sorted(expected)
    assert (repository.path / WEIGHTS).read_bytes()
    assert repository.due() == {}
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
    clone.edit("config/scales/tiny.yaml", "temporal_window: 3", "temporal_window: 2")
    due = clone.due()
    assert due["segment"] == 2 and due["prepare"] == 1 and not {"train", "fetch"} & due.keys()


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
    repository.edit("config/config.yaml", "\nrows: [main]", "\nrows: [copy-first-mask]")
    repository.snakemake()
    output = repository.run("dvc", "repro").stdout
    assert set(ran(output)) <= {"hodor-soft-coco", "copy-first-mask"}
    assert repository.due() == {}


def test_dvc_leaves_outputs_alone(root: Path):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {"archives", "row", "tables", "reports"}
    for name, stage in stages.items():
        body = stage.get("do", stage)
        assert all(options == {"persist": True} for out in body["outs"] for options in out.values()), name
        assert "--allowed-rules" in body["cmd"]
