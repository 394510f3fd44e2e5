"""Sequences and objects are chosen by the rules that the captions state."""

from pathlib import Path

import numpy as np
import pytest

from hodor.data.davis import load_davis
from hodor.data.images import write_labels
from hodor.reporting import choices
from hodor.reporting.report import Report

VAL = "davis2017-val"


@pytest.fixture
def report(project) -> Report:
    project.tabulate(Path("results/tiny"))
    return Report(Path("results/tiny"), project.runs, project.data)


def test_soft_is_set_against_other_masking_of_the_same_training(report):
    (title, other, soft, across, up) = choices.soft_against(report)[0]
    assert len(choices.soft_against(report)) == 1  # hard masking was not run, the second stage has no other row
    assert (title, other, soft) == ("COCO", "hodor-none-coco", "hodor-soft-coco")
    assert set(across) == set(up) == {"walk_1", "walk_2", "run_1", "swim_1"}
    run = report.all_runs()[1]
    means = run.predictions[VAL].objects["run_1"]
    assert run.row == soft and up["run_1"] == pytest.approx(50 * (means["J-Mean"] + means["F-Mean"]))


def test_failures_are_the_widest_differences_each_of_another_sequence(report):
    (_, _, _, none, soft), *_ = choices.soft_against(report)
    cases = choices.failures(report, report.ablation)
    widest = max(none, key=lambda name: (abs(none[name] - soft[name]), name))
    apart = [abs(case.scores[case.better] - case.scores[case.worse]) for case in cases]
    assert apart[0] == pytest.approx(abs(none[widest] - soft[widest])) and apart == sorted(apart, reverse=True)
    assert len({case.video.name for case in cases}) == len(cases) == 3
    for case in cases:
        assert {case.better, case.worse} == {"hodor-none-coco", "hodor-soft-coco"}
        assert case.scores[case.better] > case.scores[case.worse]
        runs = {run.row: run for run in report.all_runs()}
        gaps = {
            frame: choices.region(runs[case.better], case.video.name)[case.object_id, frame]
            - choices.region(runs[case.worse], case.video.name)[case.object_id, frame]
            for frame in case.video.frames[1:-1]
        }
        assert case.gap == pytest.approx(max(gaps.values())) and gaps[case.frame] == pytest.approx(case.gap)
    assert len(choices.failures(report, report.ablation, count=1)) == 1


def test_the_sequence_whose_object_is_out_of_sight_longest(project):
    videos = {video.name: video for video in load_davis(project.data / "davis", "val")}
    video, present = choices.most_absent(videos)
    assert video.name == "run" and present == {1: [True] * 5}  # none ever vanishes: the first by name
    for name, frames in (("walk", (2, 3)), ("swim", (1,))):
        for frame in frames:
            path = videos[name].label_path(f"{frame:05d}")
            labels = videos[name].labels(f"{frame:05d}")
            write_labels(path, np.where(labels == 1, 0, labels).astype(np.uint8))
    video, present = choices.most_absent(videos)
    assert video.name == "walk"
    assert present == {1: [True, True, False, False, True, True], 2: [True] * 6}
    assert choices.most_absent({}) is None
