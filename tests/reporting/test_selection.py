"""Sequences, objects and runs of a report: chosen by the rules that the captions state."""

import shutil

import numpy as np
import pandas as pd
import pytest

from hodor.data.images import write_labels
from hodor.reporting import gallery
from hodor.reporting.selection import Report
from hodor.reporting.selection import median as lower_median
from hodor.reporting.site import bibtex, sentence
from tests.refused import refused
from tests.reporting.conftest import OUT, VAL

ROWS = ["hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic"]


@pytest.fixture
def report(tabulated) -> Report:
    return Report(OUT, tabulated.runs, tabulated.data)


def groups(report: Report, table: str) -> dict[str, list[tuple]]:
    return {data: [(of.row, of.attention) for of in systems] for data, systems in report.groups(table).items()}


def test_strips_follow_the_rule(report):
    (first, *rest), videos = report.strips("ablation"), list(report.videos)
    scores = {of.row: of.shown.sequence_scores() for of in report.all_systems() if of.row in ROWS}
    means = {name: sum(scores[row][name] for row in ROWS) for name in videos}
    median = sorted(means, key=lambda name: (means[name], name))[1]
    assert (first.video.name, first.why) == (median, "the sequence of median score")
    assert [of.row for of in first.systems] == ROWS
    assert first.scores == {row: scores[row][median] for row in ROWS}
    assert all((of.masks(first.video) / "00000.png").is_file() for of in first.systems)
    differing = max(videos, key=lambda n: max(scores[r][n] for r in ROWS) - min(scores[r][n] for r in ROWS))
    assert [strip.video.name for strip in rest] == [differing] * (differing != median)
    assert lower_median(pd.Series({"a": 4.0, "b": 2.0, "c": 3.0, "d": 1.0})) == "b"


def test_rows_are_grouped_by_training_data(report):
    images, video = [("hodor-none-coco", "none"), ("hodor-soft-coco", "soft")], [("hodor-soft-cyclic", "soft")]
    assert groups(report, "ablation") == {"COCO": images, "video": video}
    assert groups(report, "comparison") == {"COCO": images[1:], "static images": [("dmn-aoa", None)]}
    assert list(report.soft_runs()) == ["hodor-soft-coco", "hodor-soft-cyclic"]
    assert report.notes("comparison") == "dmn-aoa: re-interpretation from the abstract; 67.9 not reproduced"
    assert report.notes("ablation") == ""


def test_where_no_row_of_a_table_was_run_the_strips_show_the_extended_rows(report):
    lines = report.tables["ablation"]
    lines["seeds"] = ""
    (strip, *_) = Report(report.results, report.runs, report.data).strips("ablation")
    assert [of.row for of in strip.systems] == ROWS
    lines.to_csv("results/tiny/ablation_table.csv", index=False)
    (strip, *_) = Report(report.results, report.runs, report.data).strips("ablation")
    assert [of.row for of in strip.systems] == ["dmn-aoa", "copy-first-mask"]


def test_all_runs_and_their_provenance(project):
    project.add("stm", method="stm", tables=["comparison"])  # a row of the comparison alone
    project.tabulate(OUT)
    report = Report(OUT, project.runs, project.data)
    assert [of.row for of in report.all_systems()] == [*ROWS, "dmn-aoa", "stm", "copy-first-mask"]
    facts, run = report.provenance(), report.all_systems()[0].runs[0]
    assert facts["seeds"] == "0" and run.predictions[VAL].score["truth"][:12] in facts["data"]
    assert "Abacus 9" in facts["machine"] and "static images" in facts["trained on"]
    assert "static images" not in report.provenance(ROWS)["trained on"]


def test_failures_are_the_widest_differences_each_of_another_sequence(report):
    # Hard masking was not run, and the second stage has no other row.
    ((data, other, soft),) = report.soft_against()
    assert (data, other.row, soft.row) == ("COCO", "hodor-none-coco", "hodor-soft-coco")
    differences = (other.objects() - soft.objects()).abs()
    assert set(differences.index) == {"walk_1", "walk_2", "run_1", "swim_1"}
    means = soft.shown.objects.loc["run_1"]
    assert soft.objects()["run_1"] == pytest.approx(50 * (means["J-Mean"] + means["F-Mean"]))
    cases = report.failures()
    apart = [case.scores[case.better.row] - case.scores[case.worse.row] for case in cases]
    assert apart[0] == pytest.approx(differences.max()) and apart == sorted(apart, reverse=True) and min(apart) > 0
    assert len({case.video.name for case in cases}) == len(cases) == 3
    for case in cases:
        better, worse = (of.region(case.video.name) for of in (case.better, case.worse))
        gaps = {f: better[case.object_id, f] - worse[case.object_id, f] for f in case.video.frames[1:-1]}
        assert case.gap == pytest.approx(max(gaps.values())) and gaps[case.frame] == pytest.approx(case.gap)
    (OUT / "costs.csv").unlink()
    refused("results/tiny/costs.csv.*tabulate", report.table, "costs")


def test_objects_are_compared_on_each_benchmark_that_both_rows_were_scored_on(report):
    folders = [report.runs / row / "seed0" for row in ("hodor-none-coco", "hodor-soft-coco")]
    shutil.copytree(folders[0] / VAL, folders[0] / "davis2016-val")
    names = [f"objects_soft_against_{benchmark}" for benchmark in ("davis2016-val", VAL)]
    assert [figure.name for figure in gallery.objects(report)] == names[1:]  # the other row has no scores there
    shutil.copytree(folders[1] / VAL, folders[1] / "davis2016-val")
    figures = list(gallery.objects(Report(report.results, report.runs, report.data)))
    assert [figure.name for figure in figures] == names
    assert "DAVIS-2016 val" in figures[0].title and "DAVIS-2016 val" in figures[0].caption


def test_the_sequence_whose_object_is_out_of_sight_longest(report):
    video, present = report.most_absent()
    assert video.name == "run" and present == {1: [True] * 5}  # none ever vanishes: the first by name
    for name, frames in (("walk", (2, 3)), ("swim", (1,))):
        for frame in (f"{frame:05d}" for frame in frames):
            labels = report.videos[name].labels(frame)
            write_labels(report.videos[name].label_path(frame), np.where(labels == 1, 0, labels).astype(np.uint8))
    video, present = report.most_absent()
    assert video.name == "walk"
    assert present == {1: [True, True, False, False, True, True], 2: [True] * 6}


def test_a_work_as_a_sentence_and_as_bibtex():
    authors = [{"family-names": "Doe", "given-names": "Jane"}, {"name": "The others"}]
    work = {"type": "article", "title": "On masks", "authors": authors, "year": 2022, "journal": "J. of Masks"}
    assert sentence(work) == "Jane Doe, The others. On masks. J. of Masks. 2022."
    assert bibtex(work).startswith(
        "@article{doe2022on,\n  title = {{On masks}},\n  author = {Doe, Jane and The others}"
    )
