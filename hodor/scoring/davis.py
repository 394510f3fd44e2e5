"""The semi-supervised protocol of DAVIS-2017: which frames and objects of which sequences are scored.

Objects are counted on the first frame of the truth (its largest id); the first and the last frame are not
scored; void (255) is background, in the truth and in the prediction; a prediction with fewer objects has the
others empty.

What the official toolkit passes over or dies of with exit status 0 is an error here: sequences or frames too
few or too many (the first and last frame included), another size, colours instead of indices, ids above the
object count.
"""

import os
from concurrent.futures import ProcessPoolExecutor
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

PROTOCOL = {
    "task": "semi-supervised",
    "objects": "ids 1..n, n the largest id on frame 0 of the truth",
    "frames": "all but the first and the last",
    "void": "255 is background",
    "boundary_tolerance": "ceil(0.008 x image diagonal)",
    "mean": "over objects",
}


@dataclass(frozen=True)
class SequenceScores:
    """Scores of one sequence: `j` and `f` are float64 (objects, scored frames), 0..1; the object ids are 1..n."""

    name: str
    frames: tuple[str, ...]
    j: np.ndarray
    f: np.ndarray
    peak_memory_mib: float


def check_prediction(videos: list[Video], pred: Path) -> None:
    """Compares the names in a folder of predicted masks with the frames of the truth; no mask is read yet.

    Raises:
        HodorError: no such folder; a sequence or a frame missing or too many.
    """
    if not pred.is_dir():
        raise HodorError(f"{pred}: no such folder; give the folder that holds <sequence>/<frame>.png")
    found = {entry.name for entry in pred.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    wanted = {video.name for video in videos}
    if missing := sorted(wanted - found):
        raise HodorError(f"{pred / missing[0]}: sequence missing{_more(missing)}; segment the whole benchmark")
    if extra := sorted(found - wanted):
        raise HodorError(
            f"{pred / extra[0]}: not a sequence of this benchmark{_more(extra)}; remove it, or score on the "
            "benchmark that it belongs to"
        )
    for video in videos:
        folder = pred / video.name
        found = {path.stem for path in folder.glob("*.png") if not path.name.startswith(".")}
        if missing := sorted(set(video.frames) - found):
            raise HodorError(
                f"{folder / missing[0]}.png: frame missing{_more(missing)}; every frame needs a mask, the "
                "first and the last too: segment this sequence again"
            )
        if extra := sorted(found - set(video.frames)):
            raise HodorError(f"{folder / extra[0]}.png: the sequence has no such frame{_more(extra)}; remove it")


def check_truth(videos: list[Video]) -> None:
    """Makes sure that every frame has a true mask and that there is a frame to score.

    Raises:
        HodorError: masks not public (a server scores the benchmark), or a sequence too short.
    """
    for video in videos:
        # The reader lets only test-dev come without all masks; generated data have them there too.
        if len(video.labelled) < len(video.frames):
            raise HodorError(
                f"{video.label_folder}: {len(video.labelled)} of {len(video.frames)} frames have a true mask: the "
                "labels of this benchmark are secret and its server scores it; nothing can be scored here"
            )
        if len(video.frames) < 3:
            raise HodorError(
                f"{video.label_folder}: {len(video.frames)} frames; the protocol leaves out the first and the "
                "last, so that a sequence needs at least 3"
            )


def score_sequence(video: Video, pred: Path) -> SequenceScores:
    """Scores one sequence frame by frame, so that memory does not grow with its length.

    Args:
        video: a sequence whose frames all have true masks.
        pred: folder that holds <sequence>/<frame>.png.

    Raises:
        HodorError: an unreadable mask, another size, an id above the object count.
    """
    # Sequences are the unit of parallel work; OpenCV's own threads would only fight with the other processes.
    cv2.setNumThreads(1)
    size = (video.height, video.width)
    objects = max(video.first_seen)
    scored = video.frames[1:-1]
    scores = np.empty((2, objects, len(scored)))
    for frame in (video.frames[0], video.frames[-1]):
        _read_prediction(pred / video.name / f"{frame}.png", size, objects)
    for t, frame in enumerate(scored):
        prediction = _read_prediction(pred / video.name / f"{frame}.png", size, objects)
        scores[:, :, t] = np.transpose(frame_scores(video.labels(frame), prediction, objects))
    return SequenceScores(video.name, tuple(scored), scores[0], scores[1], peak_memory_mib())


def score_sequences(videos: list[Video], pred: Path, jobs: int | None = None) -> list[SequenceScores]:
    """Scores all sequences, several at a time, and returns them in the order given.

    Args:
        videos: the benchmark's sequences.
        pred: folder that holds <sequence>/<frame>.png.
        jobs: number of processes; the cores available to this process if absent.

    Raises:
        HodorError: as `score_sequence`.
    """
    jobs = min(jobs or _cores(), len(videos))
    pixels = sum(len(video.frames) * video.height * video.width for video in videos)
    if jobs <= 1 or pixels < _SMALL_WORK:
        return [score_sequence(video, pred) for video in videos]
    # The longest first, so that no process is left alone with it at the end.
    order = sorted(range(len(videos)), key=lambda i: -len(videos[i].frames))
    # Spawned, not forked: the caller may hold threads (torch, OpenCV), which a fork would copy half-alive.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {i: pool.submit(score_sequence, videos[i], pred) for i in order}
        try:
            return [futures[i].result() for i in range(len(videos))]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_prediction(path: Path, size: tuple[int, int], objects: int) -> np.ndarray:
    try:
        labels = read_labels(path, size)
    except HodorError as error:
        # The reader's advice is for data; a mask is not in any archive.
        raise HodorError(str(error).replace("take it from its archive again", "segment this sequence again")) from None
    highest = int(labels.max())
    if highest == VOID:
        highest = int(labels[labels != VOID].max(initial=0))
    if highest > objects:
        raise HodorError(
            f"{path}: object id {highest}, but the first frame of the truth has {objects} object(s); the ids "
            "must be those of the first frame: segment this sequence again"
        )
    return labels


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _more(names: list[str]) -> str:
    return f" ({len(names)} in all)" if len(names) > 1 else ""
