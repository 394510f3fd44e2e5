"""What the figures show of many sequences and objects, chosen by rule and never by eye.

All are of DAVIS-2017 val, the first seed of a row where masks are shown, the mean over seeds where scores are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np

from hodor.data.video import Video
from hodor.reporting.readable import Line
from hodor.reporting.report import STRIPS, Report
from hodor.reporting.runs import Run


@dataclass(frozen=True)
class Failure:
    """An object that one system follows and another loses.

    better, worse: rows. scores: row -> J&F in points on the object. frame: where their J differs most, by `gap` (0..1).
    """

    video: Video
    object_id: int
    better: str
    worse: str
    scores: dict[str, float]
    masks: dict[str, Path]
    frame: str
    gap: float


def trained_alike(report: Report, lines: Sequence[Line]) -> dict[str, list[tuple[str, str | None, list[Run]]]]:
    """Training data -> (row, attention or None, its runs), for the rows of a table that were scored."""
    groups: dict[str, list[tuple[str, str | None, list[Run]]]] = {}
    for line in report.once(lines):
        runs = [run for run in report.runs_of(line) if STRIPS in run.predictions]
        if runs:
            groups.setdefault(line["training_data"], []).append((line["row"], line["attention"] or None, runs))
    return groups


def object_scores(runs: Sequence[Run]) -> dict[str, float]:
    """ "<sequence>_<object>" -> J&F in points, the mean over the runs."""
    tables = [run.predictions[STRIPS].objects for run in runs]
    return {name: fmean(50 * (table[name]["J-Mean"] + table[name]["F-Mean"]) for table in tables) for name in tables[0]}


def soft_against(report: Report) -> list[tuple[str, str, str, dict[str, float], dict[str, float]]]:
    """(training data, row without soft masking, row with it, scores of the one, of the other), none before hard."""
    panels = []
    for title, systems in trained_alike(report, report.ablation).items():
        by_attention = {attention: (row, object_scores(runs)) for row, attention, runs in systems}
        for other in ("none", "hard"):
            if other in by_attention and "soft" in by_attention:
                (row, scores), (soft, soft_scores) = by_attention[other], by_attention["soft"]
                panels.append((title, row, soft, scores, soft_scores))
    return panels


def failures(report: Report, lines: Sequence[Line], count: int = 3) -> list[Failure]:
    """The objects on which two rows of the same training data differ most, each of another sequence, widest first."""
    found: list[tuple[float, str, str, str]] = []
    runs: dict[str, Run] = {}
    for systems in trained_alike(report, lines).values():
        runs |= {row: of[0] for row, _, of in systems}
        for first, second in combinations([row for row, _, _ in systems], 2):
            ours, theirs = object_scores([runs[first]]), object_scores([runs[second]])
            for name, score in ours.items():
                better, worse = (first, second) if score >= theirs[name] else (second, first)
                found.append((abs(score - theirs[name]), name, better, worse))
    chosen: dict[str, Failure] = {}
    for difference, name, better, worse in sorted(found, key=lambda entry: (-entry[0], *entry[1:])):
        sequence, _, object_id = name.rpartition("_")
        if difference > 0 and sequence not in chosen:
            chosen[sequence] = _failure(report.videos[sequence], int(object_id), runs[better], runs[worse])
        if len(chosen) == count:
            break
    return list(chosen.values())


def _failure(video: Video, object_id: int, better: Run, worse: Run) -> Failure:
    j = [region(run, video.name) for run in (better, worse)]
    frame = max(
        (name for k, name in j[0] if k == object_id), key=lambda name: j[0][object_id, name] - j[1][object_id, name]
    )
    name = f"{video.name}_{object_id}"
    return Failure(
        video,
        object_id,
        better.row,
        worse.row,
        {run.row: object_scores([run])[name] for run in (better, worse)},
        {run.row: run.predictions[STRIPS].folder / "masks" / video.name for run in (better, worse)},
        frame,
        j[0][object_id, frame] - j[1][object_id, frame],
    )


def region(run: Run, sequence: str) -> dict[tuple[int, str], float]:
    """(object, frame) -> J in 0..1 of a sequence; the first and the last frame are not scored."""
    frames = run.predictions[STRIPS].frames()
    return {(score.object, score.frame): score.j for score in frames if score.sequence == sequence}


def presence(video: Video) -> dict[int, list[bool]]:
    """Object -> whether the truth shows it, for each frame; the objects that the first frame shows."""
    found: dict[int, list[bool]] = {k: [] for k, first in video.first_seen.items() if first == video.frames[0]}
    for frame in video.frames:
        shown = np.bincount(video.labels(frame).ravel(), minlength=256) > 0
        for k, seen in found.items():
            seen.append(bool(shown[k]))
    return found


def most_absent(videos: Mapping[str, Video]) -> tuple[Video, dict[int, list[bool]]] | None:
    """The sequence whose objects are out of sight in most frames, and their presence; the first of equals."""
    seen = {name: presence(video) for name, video in videos.items()}
    if not seen:
        return None
    name = min(seen, key=lambda name: (-sum(shown.count(False) for shown in seen[name].values()), name))
    return videos[name], seen[name]
