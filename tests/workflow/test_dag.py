"""The whole DAG at scale tiny, and what a second look at it does."""

import html
import json
import re
import sys
from pathlib import Path

import pytest

from hodor.config.benchmarks import get_benchmark
from hodor.config.schema import TABLES
from tests.checkouts import ROWS, Checkout


def test_everything_is_made(finished):
    config, runs = finished.config(), []
    for table, metric in (("ablation", "J&F"), ("comparison", "davis2017-val_J&F"), ("extended", "J&F")):
        lines = finished.table(f"results/{table}_table.csv")
        assert [line["row"] for line in lines] == [id for id, row in config.rows.items() if table in row.tables]
        for line in lines:
            if line["row"] in config.selected:
                assert 0 <= float(line[metric]) <= 100
                runs.append(line)
            else:
                assert line[metric] == "not run"
    assert {line["row"] for line in runs} == set(config.selected) >= {"hodor-soft-cyclic", "copy-first-mask"}
    assert {line["row"] for line in finished.table("results/costs.csv")} == set(config.selected)
    pages = [f"{page}.{kind}" for page in ("ablation", "comparison", "qualitative") for kind in ("html", "ipynb")]
    rows = [f"runs/{row}-seed{seed}.html" for row in config.selected for seed in config.seeds]
    figures = [
        f"figures/{name}.{kind}" for name in ("strip_ablation_median", "attention_rows") for kind in ("pdf", "png")
    ]
    for name in ("index.html", *pages, *rows, *figures):
        for folder in ("reports", "reports/tiny"):
            assert (finished.path / folder / name).stat().st_size > 1000
    for line in runs:
        manifest = json.loads((finished.path / line["manifest"]).read_text())
        assert manifest["row"] == line["row"] and manifest["config"]["train"]["settings"]["row"] == line["row"]


def test_every_claim_has_a_verdict_and_few_sequences_decide_nothing(finished):
    made = json.loads((finished.path / "results" / "claims.json").read_text())
    config = finished.config()
    assert [claim["id"] for claim in made["claims"]] == [entry["id"] for entry in config.claims.entries()]
    assert "generated data" in made["statement"]
    for claim in made["claims"]:
        run = claim["benchmark"] in (None, *config.scale.benchmarks) and {*claim["rows"]} <= {*config.selected}
        assert claim["verdict"] == ("undecided" if run else "not run"), claim
        assert (claim["effect"] is None) == (not run) and claim["reason"]
        assert (claim["interval"] is None) == (not run or claim["metric"] == "alpha")
    assert {claim["metric"] for claim in made["claims"]} == {"J&F", "G", "alpha"}
    assert (finished.path / "results" / "claims.md").read_text().count("**undecided**") >= 8


def test_seeds_give_intervals_over_seeds(checkout):
    chosen = ["--config", "rows=hodor-soft-coco", "seeds=0,1"]
    trained = {seed: checkout.path / f"runs/tiny/hodor-soft-coco/seed{seed}/model.safetensors" for seed in range(2)}
    before = trained[0].stat().st_mtime_ns
    checkout.snakemake(*chosen, "--", "results/ablation_table.csv", "results/claims.json")
    assert trained[0].stat().st_mtime_ns == before and trained[0].read_bytes() != trained[1].read_bytes()
    lines = {line["row"]: line for line in checkout.table("results/ablation_table.csv")}
    line = lines.pop("hodor-soft-coco")
    assert (line["seeds"], line["n"], len(line["manifest"].split())) == ("0 1", "2", 2)
    # After three steps of training, seeds may still score the same.
    assert float(line["J&F_std"]) >= 0 and float(line["J&F_low"]) <= float(line["J&F"]) <= float(line["J&F_high"])
    page = (checkout.path / "results" / "ablation_table.md").read_text()
    assert re.search(r"\| +\d+\.\d ± \d+\.\d \[\d+\.\d, \d+\.\d\] \| +2 \|", page) and "n = 1" not in page
    assert {line["J&F"] for line in lines.values()} == {"not run"}, "rows that are left out"
    made = json.loads((checkout.path / "results" / "claims.json").read_text())
    claims = {claim["id"]: claim for claim in made["claims"]}
    low, high = claims["alphas-move-coco"]["interval"]
    assert low <= claims["alphas-move-coco"]["effect"] <= high
    assert made["seeds"] == [0, 1] and claims["alphas-move-coco"]["seeds"] == 2
    assert claims["soft-over-hard-coco-davis2017-val"]["verdict"] == "not run"


@pytest.mark.long
def test_two_checkouts_make_the_same_bytes(finished, fresh):
    """All rows; with other cores, so that the jobs come in another order. (Two rows by default: tests/faults.)"""
    other = fresh()
    rows = finished.config().selected
    other.run("snakemake", "--cores", "1", "--config", f"rows={','.join(ROWS)}", "--", "tables")
    made, expected = other.results(*rows), finished.results(*rows)
    assert made.keys() == expected.keys() and sum(path.endswith("model.safetensors") for path in made) == len(rows)
    assert [path for path in made if made[path] != expected[path]] == []


@pytest.mark.long
def test_extended_rows_train_and_score(fresh):
    """Dense video, detached masks, another alpha or recipe, and a row that reads another's weights in another way."""
    checkout = fresh()
    checkout.snakemake("--config", "rows=extended", "--", "results/extended_table.csv")
    lines = {line["row"]: line for line in checkout.table("results/extended_table.csv")}
    absent = {row for row, entry in checkout.config().rows.items() if entry.weights}
    assert all(0 <= float(line["J&F"]) <= 100 for row, line in lines.items() if row not in absent)
    assert {"hodor-soft-dense", "hodor-soft-cyclic-detached", "stm-stcn-recipe", "stcn-orthogonal"} <= lines.keys()
    assert lines["hodor-soft-coco-alpha-scaled"]["J&F"] != "not run"
    manifest = json.loads((checkout.path / lines["stcn-orthogonal"]["manifest"]).read_text())
    assert manifest["config"]["train"]["settings"]["init"] == {"row": "stcn"}


def test_nothing_is_done_twice(finished):
    assert finished.due() == {}


def test_every_job_has_a_log(finished):
    runs = finished.path / "runs" / "tiny"
    logs = {path.stem for path in (runs / "logs").iterdir()}
    steps = len(re.findall(r"^    log: ", (finished.path / "output.txt").read_text(), re.MULTILINE))
    config = finished.config()
    made = (*TABLES, "costs", "claims")  # each tabulated and published; then the pages
    # Rows that only others start from are trained, not scored.
    datasets = {benchmark.dataset for benchmark in map(get_benchmark, config.scale.benchmarks)}
    datasets |= {dataset for row in config.needed() for dataset in config.datasets(row)}
    per_row = len(config.needed()) + len(config.selected) * (1 + 2 * len(config.scale.benchmarks))
    assert len(logs) == steps == 2 * len(datasets) + per_row + 2 * len(made) + 2


def test_training_shows_its_progress_on_the_terminal_and_in_the_log(finished):
    line = r"hodor-soft-coco seed 0: step 3 of 3, loss [\d.]+, [\d.]+ examples/s, [\d.]+ s left"
    assert re.search(line, (finished.path / "output.txt").read_text())
    assert re.search(line, (finished.path / "runs/tiny/logs/train-hodor-soft-coco-seed0.log").read_text())


def test_gpus_threads_and_memory_are_asked_for_by_what_uses_them(finished, checkout):
    output = (finished.path / "output.txt").read_text()
    assert "gpu=0" in output and not re.search(r"^    resources: .*gpu=[1-9]", output, re.MULTILINE)
    assert 'gpu=Resource("gpu", 1)' in output
    settings = ('overrides={"device": "cuda", "threads": 2}', 'execution={"processes": 2}')
    dry = checkout.dry_run("--cores", "4", "--resources", "gpu=2", "--config", *settings)
    config = checkout.config()

    def asked(rule: str, line: str) -> int:
        return len(re.findall(rf"^rule {rule}:\n(?:    .*\n)*?    {line}", dry, re.MULTILINE))

    trainings, predictions = len(config.needed()), len(config.selected) * len(config.scale.benchmarks)
    assert asked("train", "resources: .*gpu=2") == asked("train", "threads: 4") == trainings
    assert asked("train", "priority: 1") == trainings, "other rows wait for them"
    assert asked("segment", "resources: .*gpu=1") == asked("segment", "threads: 2") == predictions
    assert asked("score", "resources: .*mem_mb=3500") == asked("score", "threads: 2") == predictions


def test_how_a_training_is_executed_reaches_its_command_and_makes_nothing_due(checkout):
    settings, target = 'execution={"processes": 2, "micro_batch": 1}', "runs/tiny/hodor-soft-coco/seed0/train.json"
    assert checkout.due("--config", settings) == {}
    (checkout.path / target).unlink()
    output = checkout.dry_run("--printshellcmds", "--config", settings, "--", target)
    assert "--processes 2 --micro-batch 1 2>&1" in output
    done = checkout.run("snakemake", "-n", "--config", 'execution={"processes": 0}', check=False)
    assert done.returncode == 1 and "execution.processes" in done.stdout and "Traceback" not in done.stdout


def test_no_rule_holds_a_path_of_this_machine(finished):
    commands = finished.dry_run("--forceall", "--printshellcmds")
    shells = re.findall(r"^Shell command: (.*)$", commands, re.MULTILINE)
    assert len(shells) > 40
    for path in (str(finished.path), str(Path(sys.executable).parent)):
        assert not [shell for shell in shells if path in shell]


def test_the_workflow_runs_in_another_folder(finished, tmp_path):
    elsewhere = ("--snakefile", str(finished.path / "Snakefile"), "--directory", str(tmp_path / "elsewhere"))
    done = finished.run("snakemake", *elsewhere, "--cores", "1", "--", "data/tiny/davis.json", cwd=tmp_path)
    assert "2 of 2 steps (100%) done" in done.stdout
    made = json.loads((tmp_path / "elsewhere" / "data" / "tiny" / "davis.json").read_text())
    assert made == json.loads((finished.path / "data" / "tiny" / "davis.json").read_text())


def test_another_workflow_uses_it_as_a_module(root, tmp_path):
    """The Snakefile is that of config/README.md."""
    text = (root / "config" / "README.md").read_text()
    (tmp_path / "Snakefile").write_text(re.search(r"```snakefile\n(.*?)```", text, re.DOTALL)[1])
    (tmp_path / "hodor-repro").symlink_to(root)
    (tmp_path / "profiles").symlink_to(root / "profiles")
    given = 'hodor={"scale": "tiny", "rows": ["hodor-soft-coco"]}'
    due = Checkout(tmp_path).due("--config", given)
    assert due.pop("best") == 1 and all(rule.startswith("hodor_") for rule in due)
    assert due["hodor_train"] == due["hodor_segment"] == due["hodor_publish_ablation"] == 1


@pytest.mark.long
def test_snakemakes_report_is_one_page_with_captions(finished, tmp_path):
    output = finished.run("snakemake", "--report", str(tmp_path / "report.html")).stdout
    page = (tmp_path / "report.html").read_text()
    for shown in ("ablation_table.csv", "costs.csv", "claims.md", "qualitative.html", "strip_ablation_median.png"):
        assert f"Adding {shown} (" in output
    for caption in (finished.path / "workflow" / "report").glob("*.rst"):
        assert html.escape(re.split("\n|``", caption.read_text())[0]) in page, caption
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=.?.?https?:", page), "loads something"


def test_lint_finds_nothing(finished):
    assert "your workflow is in a good condition" in finished.run("snakemake", "--lint").stdout


def test_other_triggers_are_refused_before_anything_runs(checkout):
    weights = checkout.path / "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
    before = weights.stat()
    done = checkout.run("snakemake", "--cores", "1", "--workflow-profile", "none", check=False)
    assert done.returncode == 1 and "rerun-triggers: [mtime]" in done.stdout
    assert weights.stat() == before
