"""What runs again after a change: exactly what depends on it. Each test counts the jobs of `snakemake -n`."""

import re
import shutil
from collections.abc import Collection

import pytest

from hodor.config.benchmarks import get_benchmark
from hodor.config.schema import TABLES

SHOWN = {"render": 1, "publish_pages": 1}
COSTS = {"tabulate_costs": 1, "publish_costs": 1}
CLAIMS = {"claims": 1, "publish_claims": 1}


def with_tables(checkout, rows: Collection[str]) -> dict[str, int]:
    """The tables that show one of these rows, the costs, the claims about one of them, and the report."""
    config = checkout.config()
    count = len({table for row in rows for table in config.rows[row].tables})
    judged = CLAIMS if config.claims.rows() & set(rows) else {}
    return {"tabulate": count, "publish": count, **COSTS, **judged, **SHOWN}


def from_training(checkout, rows: Collection[str]) -> dict[str, int]:
    jobs = dict.fromkeys(("train", "segment", "score", "manifest"), len(rows))
    return jobs | with_tables(checkout, rows)


def planned(checkout, rule: str, name: str, *arguments: str) -> list[str]:
    """The wildcard of that name of every job of a rule that `snakemake -n ...` would run, sorted."""
    output = checkout.run("snakemake", "--dry-run", *arguments).stdout
    jobs = re.findall(rf"^(?:local)?rule {rule}:\n((?:    .*\n)+)", output, re.MULTILINE)
    return sorted(re.search(rf"^    wildcards: .*\b{name}=([^\s,]+)", job, re.MULTILINE).group(1) for job in jobs)


def selected(checkout, *stages: str) -> list[str]:
    """The selected rows; of those the ones that train in one of these stages or start from such a row."""
    config = checkout.config()

    def trained(row: str | None) -> set[str | None]:
        return {config.rows[row].stage} | trained(config.rows[row].init) if row else set()

    return [row for row in config.selected if not stages or trained(row) & set(stages)]


def test_settings_of_the_image_stage_train_its_rows_and_their_children(checkout):
    checkout.set("stages.images.learning_rate", 0.002)
    rows = selected(checkout, "images")
    assert len(rows) >= 6
    assert checkout.due() == from_training(checkout, rows)


def test_settings_of_the_cyclic_stage_train_the_cyclic_rows(checkout):
    checkout.set("stages.cyclic.learning_rate", 0.0002)
    rows = selected(checkout, "cyclic")
    assert 3 <= len(rows) < len(selected(checkout, "images"))
    assert checkout.due() == from_training(checkout, rows)


def test_what_is_said_of_a_row_makes_its_tables_alone(checkout):
    checkout.edit("config/rows.yaml", "    label: HODOR, no masking\n", "    label: HODOR, no masking\n    note: hm\n")
    # A verdict names no note.
    jobs = with_tables(checkout, ["hodor-none-coco"])
    assert checkout.due() == {rule: count for rule, count in jobs.items() if rule not in CLAIMS}
    assert planned(checkout, "tabulate", "table") == planned(checkout, "publish", "table") == ["ablation"]


def test_the_label_of_a_row_of_table_2_makes_table_2_alone(checkout):
    assert checkout.config().rows["stm"].tables == ["comparison"]
    checkout.edit("config/rows.yaml", "    label: STM\n", "    label: Space-time memory\n")
    # The costs name no label.
    assert checkout.due() == {"tabulate": 1, "publish": 1, **SHOWN}
    assert planned(checkout, "tabulate", "table") == planned(checkout, "publish", "table") == ["comparison"]
    others = ["results/ablation_table.csv", "results/extended_table.csv", "results/costs.csv"]
    assert checkout.due("--", *others) == {}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_waits_for_its_own_rows_alone(fresh, table):
    checkout = fresh()
    target = f"results/{table}_table.csv"
    config = checkout.config()
    shown = [row for row in config.selected if table in config.rows[row].tables]
    trained = {of for row in shown for of in (row, config.rows[row].init) if of}
    datasets = {dataset for row in trained for dataset in config.datasets(row)}
    datasets |= {get_benchmark(benchmark).dataset for benchmark in config.scale.benchmarks}
    assert set(planned(checkout, "train", "row", "--", target)) == trained
    due = checkout.due("--", target)
    assert due == {
        "fetch": len(datasets),
        "prepare": len(datasets),
        "train": len(trained),
        "segment": len(shown),
        "score": len(shown),
        "manifest": len(shown),
        "tabulate": 1,
        "publish": 1,
    }
    others = {
        "ablation": {"stm", "kmn", "stcn", "copy-first-mask"},
        "comparison": {"hodor-none-coco", "hodor-hard-cyclic"},
    }
    # Rows that are read in another way need their beginning: stcn, hodor-soft-coco.
    assert not trained & others.get(table, {"hodor-none-coco", "hodor-soft-cyclic", "stm"})
    assert others.get(table, set()) <= set(config.selected)


def test_settings_of_inference_train_nothing(checkout):
    checkout.edit("config/scales/tiny.yaml", "temporal_window: 3", "temporal_window: 2")
    jobs = from_training(checkout, selected(checkout))
    assert checkout.due() == {key: count for key, count in jobs.items() if key != "train"}


def test_a_changed_value_changed_back_is_no_change(checkout):
    old = checkout.set("stages.images.learning_rate", 0.002)
    assert checkout.due()
    checkout.set("stages.images.learning_rate", old)
    assert checkout.due() == {}


def test_more_seeds_train_only_these(checkout):
    checkout.edit("config/config.yaml", "\nseeds: null", "\nseeds: [0, 1]")
    assert checkout.due() == from_training(checkout, selected(checkout))


def test_a_new_row_trains_alone(checkout):
    checkout.append(
        "config/rows.yaml",
        """
  hodor-soft-also-detached:
    tables: [comparison]
    label: HODOR, masks detached
    method: hodor
    options: {attention: soft, detach_masks: true}
    stage: cyclic
    init: hodor-soft-coco
""",
    )
    assert checkout.due() == from_training(checkout, ["hodor-soft-also-detached"])


@pytest.mark.parametrize("table", ["ablation", "comparison"])
def test_selected_rows_come_with_their_beginning_and_nothing_else(fresh, table):
    due = fresh().due("--config", "rows=hodor-soft-cyclic", "--", f"results/{table}_table.csv")
    expected = {"fetch": 3, "prepare": 3, "train": 2, "segment": 1, "score": 1, "manifest": 1}
    assert due == expected | {"tabulate": 1, "publish": 1}


def test_a_table_without_a_selected_row_trains_nothing(fresh):
    due = fresh().due("--config", "rows=hodor-soft-cyclic", "--", "results/extended_table.csv")
    assert due == {"tabulate": 1, "publish": 1}


def test_rows_left_out_are_not_run_in_the_table(checkout):
    tables = ["results/ablation_table.csv", "results/comparison_table.csv"]
    checkout.snakemake("--config", "rows=hodor-soft-coco", "--", *tables)
    table = (checkout.path / "results" / "ablation_table.csv").read_text().splitlines()
    assert sum("not run" in line for line in table) == len(table) - 2 >= 5
    assert not [line for line in table if line.startswith("hodor-soft-coco") and "not run" in line]
    table = (checkout.path / "results" / "comparison_table.csv").read_text().splitlines()
    # Of the six benchmarks scale tiny runs one.
    assert [line.count("not run") for line in table[1:3]] == [5, 6]


@pytest.mark.parametrize(
    "file",
    ["hodor/reporting/figures/training.py", "workflow/notebooks/ablation.py", "workflow/notebooks/qualitative.py"],
    ids=["figures", "ablation", "qualitative"],
)
def test_a_plot_makes_the_report_alone(checkout, file):
    checkout.append(file, "\nanother_style = 1\n")
    assert checkout.due() == SHOWN


def test_comments_docstrings_and_layout_of_code_are_no_change(checkout):
    for file in ("hodor/training/run.py", "hodor/models/hodor/method.py", "hodor/data/images.py"):
        text = (checkout.path / file).read_text()
        assert text.startswith('"""')
        (checkout.path / file).write_text('"""Another docstring.' + text[3:] + "\n\n# A comment.\n")
    checkout.edit("hodor/__init__.py", '__version__ = "0.1.0"', '__version__ = "0.1.1"')
    assert checkout.due() == {}


def test_code_of_training_trains(checkout):
    checkout.append("hodor/training/run.py", "\nANOTHER = 1\n")
    assert checkout.due() == from_training(checkout, selected(checkout))


def test_code_of_a_method_trains_its_rows_alone(checkout):
    checkout.append("hodor/models/copy/method.py", "\nANOTHER = 1\n")
    assert checkout.due() == from_training(checkout, ["copy-first-mask"])


def test_code_of_scoring_scores(checkout):
    checkout.append("hodor/scoring/jf.py", "\nANOTHER = 1\n")
    due = checkout.due()
    assert due["score"] == len(selected(checkout)) and not {"train", "segment"} & due.keys()


def test_code_of_tables_makes_tables_and_report(checkout):
    checkout.append("hodor/reporting/formats.py", "\nANOTHER = 1\n")
    released = {"tabulate_released": 1, "publish_released": 1}
    assert checkout.due() == with_tables(checkout, selected(checkout)) | released


def test_code_of_downloads_trains_nothing(checkout):
    checkout.append("hodor/data/download.py", "\nANOTHER = 1\n")
    assert not {"train", "segment", "score", "tabulate", "tabulate_costs", "claims"} & checkout.due().keys()


def test_another_claim_or_rule_makes_the_verdicts_alone(checkout):
    checkout.edit("config/claims.yaml", "on_par: 0.5", "on_par: 1")
    assert checkout.due() == CLAIMS | SHOWN
    checkout.edit("config/claims.yaml", "on_par: 1", "on_par: 0.5")
    assert checkout.due() == {}
    checkout.append("hodor/reporting/verdicts.py", "\nANOTHER = 1\n")
    assert checkout.due() == CLAIMS | SHOWN


def test_other_resamples_make_tables_and_verdicts(checkout):
    checkout.edit("config/claims.yaml", "resamples: 10000", "resamples: 1000")
    jobs = with_tables(checkout, selected(checkout))
    assert checkout.due() == {rule: count for rule, count in jobs.items() if rule not in COSTS}


def test_a_claim_waits_for_its_own_rows_alone(fresh):
    checkout = fresh()
    row = "hodor-soft-coco-alpha0"
    assert set(planned(checkout, "segment", "row", "--", "results/claims.json")) == checkout.config().claims.rows()
    due = checkout.due("--config", f"rows={row}", "--", "results/claims.json")
    # The row that it reads is trained, and it reads that.
    assert due == {"fetch": 2, "prepare": 2, "train": 2, "segment": 1, "score": 1, "manifest": 1} | CLAIMS
    assert checkout.due("--config", "rows=copy-first-mask", "--", "results/claims.json") == CLAIMS


def test_a_space_in_a_rule_or_another_mirror_is_no_change(checkout):
    checkout.edit("workflow/rules/train.smk", '" python -m hodor train ', '" python  -m hodor train ')
    checkout.append("environment.yml", "\n# Another environment.\n")
    checkout.edit("config/config.yaml", "\nmirror: null", f"\nmirror: {checkout.path}")
    assert checkout.due() == {}


def test_what_is_done_needs_no_data(checkout):
    assert (checkout.path / "data" / "tiny" / "youtube-vos").is_dir()
    shutil.rmtree(checkout.path / "data" / "tiny")
    assert checkout.due() == {}
    # Data that are gone come back for what needs them, and train nothing else.
    checkout.set("stages.cyclic.learning_rate", 0.0002)
    assert checkout.due() == {"fetch": 2, "prepare": 2} | from_training(checkout, selected(checkout, "cyclic"))


def test_deleted_masks_are_made_again_when_they_are_asked_for(checkout):
    masks = "runs/tiny/hodor-soft-coco/seed0/davis2017-val/masks"
    shutil.rmtree(checkout.path / masks)
    assert checkout.due() == {}
    assert checkout.due("--", masks) == {"segment": 1}
    checkout.append("hodor/reporting/figures/training.py", "\nanother_style = 1\n")
    jobs = from_training(checkout, ["hodor-soft-coco"])
    assert checkout.due() == {key: count for key, count in jobs.items() if key != "train"}


@pytest.mark.parametrize("file", ["model.safetensors", "train.json", "davis2017-val/score.json"])
def test_a_deleted_result_is_made_again(checkout, file):
    (checkout.path / "runs/tiny/hodor-soft-cyclic/seed0" / file).unlink()
    due = checkout.due("--", f"runs/tiny/hodor-soft-cyclic/seed0/{file}")
    assert due == ({"score": 1} if "score" in file else {"train": 1})


def test_the_tables_follow_the_configured_scale(checkout):
    scale = (checkout.path / "config/scales/tiny.yaml").read_text().replace("name: tiny", "name: tiny-two")
    (checkout.path / "config/scales/tiny-two.yaml").write_text(scale)
    table = checkout.path / "results" / "extended_table.csv"
    before = table.read_text()
    two = ["--config", "scale=tiny-two", "rows=copy-first-mask", "--", "results/extended_table.csv"]
    checkout.snakemake(*two)
    assert table.read_text() == (checkout.path / "results/tiny-two/extended_table.csv").read_text() != before
    assert checkout.due(*two) == {}
    # Back again: only copying.
    assert checkout.due() == {"publish": 1}
    checkout.snakemake("--", "results/extended_table.csv")
    assert table.read_text() == before
    assert checkout.due(*two) == {"publish": 1}
