"""What a report picks from tables and runs."""

from pathlib import Path

import pytest

from hodor.errors import HodorError
from hodor.reporting.report import Report, sequence_scores
from hodor.reporting.runs import read_run

VAL = "davis2017-val"


@pytest.fixture
def report(project) -> Report:
    project.tabulate(Path("results/tiny"))
    return Report(Path("results/tiny"), project.runs, project.data)


def test_sequence_scores_are_means_over_the_objects_of_a_sequence(project):
    run = read_run(project.run("hodor-soft-coco"))
    objects, scores = run.predictions[VAL].objects, sequence_scores(run, VAL)
    assert set(scores) == {"walk", "run", "swim"}
    two = [objects[f"walk_{k}"][name] for k in (1, 2) for name in ("J-Mean", "F-Mean")]
    assert scores["walk"] == pytest.approx(100 * sum(two) / 4)


def test_strips_follow_the_rule(report):
    strips = report.strips(report.ablation)
    rows = ["hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic"]
    scores = {row: sequence_scores(read_run(report.runs / row / "seed0"), VAL) for row in rows}
    means = {name: sum(scores[row][name] for row in rows) for name in ("walk", "run", "swim")}
    spreads = {n: max(scores[r][n] for r in rows) - min(scores[r][n] for r in rows) for n in means}
    median = sorted(means, key=lambda name: (means[name], name))[1]
    (why, video, systems, shown), *rest = strips
    assert (video.name, why) == (median, "the sequence of median score")
    assert list(systems) == rows and shown == {row: scores[row][median] for row in rows}
    assert all((folder / "00000.png").is_file() for folder in systems.values())
    differing = max(spreads, key=spreads.get)
    assert [strip[1].name for strip in rest] == [differing] * (differing != median)


def test_curves_are_grouped_by_training_data(report):
    groups = report.curves(report.ablation)
    assert {title: [(row, kind) for row, kind, _ in entries] for title, entries in groups.items()} == {
        "COCO": [("hodor-none-coco", "none"), ("hodor-soft-coco", "soft")],
        "video": [("hodor-soft-cyclic", "soft")],
    }
    assert [row for row, _ in report.soft_runs()] == ["hodor-soft-coco", "hodor-soft-cyclic"]


def test_the_comparison_has_curves_strips_costs_and_notes_of_its_own_rows(report):
    rows = ["hodor-soft-coco", "dmn-aoa"]
    groups = report.curves(report.comparison)
    assert {title: [(row, kind) for row, kind, _ in entries] for title, entries in groups.items()} == {
        "COCO": [("hodor-soft-coco", "soft")],
        "static images": [("dmn-aoa", None)],
    }
    for _, _, systems, scores in report.strips(report.comparison):
        assert list(systems) == list(scores) == rows
    assert [line["row"] for line in report.costs(report.comparison)] == rows
    assert report.notes(report.comparison) == "dmn-aoa: re-interpretation from the abstract; 67.9 not reproduced"
    assert report.notes(report.ablation) == ""


def test_where_no_row_of_a_table_was_run_the_strips_show_the_extended_rows(report):
    nothing = [line | {"seeds": ""} for line in report.ablation]
    assert {tuple(systems) for _, _, systems, _ in report.strips(nothing)} == {("dmn-aoa", "copy-first-mask")}


def test_all_runs_and_their_provenance(report):
    rows = ["hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic", "dmn-aoa", "copy-first-mask"]
    assert [run.row for run in report.all_runs()] == rows
    facts = dict(report.provenance())
    truth = report.all_runs()[0].predictions[VAL].score["truth"]
    assert facts["seeds"] == "0" and truth[:12] in facts["data"] and "Abacus 9" in facts["machine"]


def test_a_run_of_the_comparison_alone_is_one_of_the_runs(project):
    project.add("stm", method="stm", tables=["comparison"])
    project.tabulate(Path("results/tiny"))
    report = Report(Path("results/tiny"), project.runs, project.data)
    assert [run.row for run in report.all_runs()][-3:] == ["dmn-aoa", "stm", "copy-first-mask"]


def test_tables_that_are_not_there_are_named(report):
    (Path("results/tiny") / "costs.csv").unlink()
    with pytest.raises(HodorError, match="results/tiny/costs.csv.*tabulate"):
        report.table("costs")
