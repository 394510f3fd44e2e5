"""Masks of whole sequences against their truth, whatever the benchmark: checks, scores, parallel work.

What an official toolkit passes over, or dies of with exit status 0, is an error here: sequences or frames too few or
too many, another size, colours instead of indices, ids that the sequence does not have.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from hodor.data.images import VOID, read_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.provenance import peak_memory_mib
from hodor.scoring.jf import frame_scores

# A process takes more than half a second to start; less work than this (pixels of all frames, roughly 1.5 s) is done
# in place.
_SMALL_WORK = 200_000_000


@dataclass(frozen=True)
class Task:
    """What a benchmark asks of one sequence.

    video: with the true masks of every scored frame, where they are public. demanded: frames that need a predicted
    mask, in order. scored: object id -> frames in which it is scored, in order; an object without any is in no mean.
    category: object id -> "seen" or "unseen", for benchmarks that tell them apart. foreground: whether the truth is
    written in 0 and 255 (DAVIS-2016), so that a prediction may be too.
    """

    video: Video
    demanded: tuple[str, ...]
    scored: dict[int, tuple[str, ...]]
    category: dict[int, str] | None = None
    foreground: bool = False


@dataclass(frozen=True)
class ObjectScores:
    """One object: its scored frames, `j` and `f` float64 (frames,) in 0..1, "seen" or "unseen" where that is told."""

    id: int
    frames: tuple[str, ...]
    j: np.ndarray
    f: np.ndarray
    category: str | None = None


@dataclass(frozen=True)
class SequenceScores:
    """Scores of one sequence, its objects in the order of their ids."""

    name: str
    objects: tuple[ObjectScores, ...]
    peak_memory_mib: float


def check_prediction(tasks: Sequence[Task], pred: Path) -> None:
    """Compares the names in a folder of predicted masks with those demanded; no mask is read yet.

    Frames that the video has and the benchmark does not demand may have a mask.

    Raises:
        HodorError: no such folder; a sequence or a frame missing or too many.
    """
    if not pred.is_dir():
        raise HodorError(f"{pred}: no such folder; give the folder that holds <sequence>/<frame>.png")
    found = {entry.name for entry in pred.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    wanted = {task.video.name for task in tasks}
    if missing := sorted(wanted - found):
        raise HodorError(f"{pred / missing[0]}: sequence missing{_more(missing)}; segment the whole benchmark")
    if extra := sorted(found - wanted):
        raise HodorError(
            f"{pred / extra[0]}: not a sequence of this benchmark{_more(extra)}; remove it, or score on the "
            "benchmark that it belongs to"
        )
    for task in tasks:
        folder = pred / task.video.name
        found = {path.stem for path in folder.glob("*.png") if not path.name.startswith(".")}
        if missing := sorted(set(task.demanded) - found):
            raise HodorError(
                f"{folder / missing[0]}.png: frame missing{_more(missing)}; every frame of the benchmark needs a mask, "
                "the first and the last too: segment this sequence again"
            )
        if extra := sorted(found - set(task.video.frames)):
            raise HodorError(f"{folder / extra[0]}.png: the sequence has no such frame{_more(extra)}; remove it")


def read_prediction(task: Task, pred: Path, frame: str) -> np.ndarray:
    """A predicted mask: uint8 (H, W) labels; HodorError if unreadable, of another size or with an id too many.

    255 is void in a truth alone. In a prediction it is an id like others to the official toolkit and to servers, and as
    background it would cost a mask of 0 and 255 its whole score.
    """
    video, path = task.video, pred / task.video.name / f"{frame}.png"
    try:
        labels = read_labels(path, (video.height, video.width))
    except HodorError as error:
        # The reader's advice is for data; a mask is not in any archive.
        raise HodorError(str(error).replace("take it from its archive again", "segment this sequence again")) from None
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    if task.foreground and set(found) <= {0, VOID}:
        return (labels == VOID).astype(np.uint8)
    unknown = [int(id) for id in found if id != 0 and id not in task.scored]
    if unknown:
        raise HodorError(
            f"{path}: object id {unknown[-1]}, but the truth of this sequence has {_ids(task)}; the ids must be those of "
            "the given masks: segment this sequence again"
        )
    return labels


def score_sequence(task: Task, pred: Path) -> SequenceScores:
    """Scores one sequence frame by frame, so that memory does not grow with its length.

    Args:
        task: its truth public.
        pred: folder that holds <sequence>/<frame>.png.

    Raises:
        HodorError: an unreadable mask, another size, an id that the sequence does not have.
    """
    # Sequences are the unit of parallel work; OpenCV's own threads would only fight with the other processes.
    cv2.setNumThreads(1)
    found: dict[int, list[tuple[float, float]]] = {id: [] for id in task.scored}
    by_frame: dict[str, list[int]] = {frame: [] for frame in task.demanded}
    for id, frames in task.scored.items():
        for frame in frames:
            by_frame[frame].append(id)
    for frame, ids in by_frame.items():
        prediction = read_prediction(task, pred, frame)
        if ids:
            for id, scores in zip(ids, frame_scores(task.video.labels(frame), prediction, ids), strict=True):
                found[id].append(scores)
    objects = tuple(
        ObjectScores(id, frames, *np.array(found[id]).T, (task.category or {}).get(id))
        for id, frames in task.scored.items()
        if frames
    )
    return SequenceScores(task.video.name, objects, peak_memory_mib())


def score_sequences(tasks: Sequence[Task], pred: Path, jobs: int | None = None) -> list[SequenceScores]:
    """Scores all sequences, several at a time, and returns them in the order given.

    Args:
        tasks: the benchmark's sequences.
        pred: folder that holds <sequence>/<frame>.png.
        jobs: number of processes; the cores available to this process if absent.

    Raises:
        HodorError: as `score_sequence`, or a process was killed.
    """
    jobs = min(jobs or _cores(), len(tasks))
    pixels = sum(len(task.demanded) * task.video.height * task.video.width for task in tasks)
    if jobs <= 1 or pixels < _SMALL_WORK:
        return [score_sequence(task, pred) for task in tasks]
    # The longest first, so that no process is left alone with it at the end.
    order = sorted(range(len(tasks)), key=lambda i: -len(tasks[i].demanded))
    # Spawned, not forked: the caller may hold threads (torch, OpenCV), which a fork would copy half-alive.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {i: pool.submit(score_sequence, tasks[i], pred) for i in order}
        try:
            return [futures[i].result() for i in range(len(tasks))]
        except BrokenProcessPool as error:
            raise HodorError("a scoring process was killed (out of memory?); score again with fewer --jobs") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ids(task: Task) -> str:
    ids = list(task.scored)
    return f"{len(ids)} object(s), ids {', '.join(map(str, ids))}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _more(names: list[str]) -> str:
    return f" ({len(names)} in all)" if len(names) > 1 else ""
