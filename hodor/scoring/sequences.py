"""Checks of predicted masks, and scores of each object against the ground truth, for any benchmark.

Faults that the official toolkits ignore are errors here: missing or extra sequences and frames, masks of another size,
colours instead of indices, unknown object ids.
"""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hodor.data.images import VOID, encode_labels, read_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.scoring.jf import frame_scores, histogram, statistics

# No mask is larger, but special files such as /proc/kcore claim to be.
_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Task:
    """The frames and objects that a benchmark scores in one sequence.

    Attributes:
        video: with the ground truth of every scored frame, if it is public.
        demanded: frames that need a predicted mask, in order.
        scored: object id -> its scored frames, in order; an object without any is in no mean.
        category: object id -> "seen" or "unseen", for benchmarks that distinguish them.
        foreground: whether predictions may use 0 and 255, as the ground truth of DAVIS-2016 does.
    """

    video: Video
    demanded: tuple[str, ...]
    scored: dict[int, tuple[str, ...]]
    category: dict[int, str] | None = None
    foreground: bool = False


@dataclass(frozen=True)
class ObjectScores:
    """Scores of one object: `j` and `f`, float64 (frames,) in 0..1, and its category if the benchmark has any."""

    sequence: str
    id: int
    frames: tuple[str, ...]
    j: np.ndarray
    f: np.ndarray
    category: str | None = None

    @property
    def name(self) -> str:
        """Name in tables: `<sequence>_<id>`."""
        return f"{self.sequence}_{self.id}"

    def statistics(self) -> tuple[float, ...]:
        """Return mean, recall and decay of J, then of F."""
        return *statistics(self.j), *statistics(self.f)


def check_prediction(tasks: list[Task], pred: Path, *, others: bool = False) -> None:
    """Compare the files in a folder of predicted masks with the required ones, without reading any.

    Masks of further frames of a video are allowed, and with `others` further sequences.

    Raises:
        HodorError: a sequence or frame is missing or unknown, or a mask is no regular file.
    """
    if not pred.is_dir():
        raise HodorError(f"{pred}: no such folder; give the folder that holds <sequence>/<frame>.png")
    found = {entry.name for entry in pred.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    wanted = {task.video.name for task in tasks}
    if missing := sorted(wanted - found):
        raise HodorError(f"{pred / missing[0]}: sequence missing{_more(missing)}; segment the whole benchmark")
    if not others and (extra := sorted(found - wanted)):
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
                "even the first and the last: segment this sequence again"
            )
        if extra := sorted(found - set(task.video.frames)):
            raise HodorError(f"{folder / extra[0]}.png: the sequence has no such frame{_more(extra)}; remove it")
        for frame in task.demanded:
            _check_file(folder / f"{frame}.png")


def read_prediction(task: Task, pred: Path, frame: str) -> np.ndarray:
    """Read a predicted mask as labels, uint8 (H, W); HodorError for a broken file, another size or an unknown id.

    255 is void in ground truth only: in a prediction it is an object id, as for the official toolkit and the servers.
    Ignoring it would score a mask of 0 and 255 as empty.
    """
    video, path = task.video, pred / task.video.name / f"{frame}.png"
    try:
        labels = read_labels(path, (video.height, video.width))
    except HodorError as error:
        # The reader's advice is for files of a data set.
        raise HodorError(str(error).replace("take it from its archive again", "segment this sequence again")) from None
    found = np.flatnonzero(histogram(labels)).tolist()
    if task.foreground and set(found) <= {0, VOID}:
        return (labels == VOID).astype(np.uint8)
    if unknown := [id for id in found if id != 0 and id not in task.scored]:
        ids = ", ".join(map(str, task.scored))
        fix = "the ids must be those of the given masks: segment this sequence again"
        if set(found) <= {0, VOID}:
            fix = "a mask of 0 and 255 is for DAVIS-2016 only: write the object's id instead of 255"
        raise HodorError(
            f"{path}: object id {unknown[-1]}, but the ground truth of this sequence has {len(task.scored)} object(s), "
            f"ids {ids}; {fix}"
        )
    return labels


def portable_bytes(path: Path) -> bytes:
    """Return a mask's PNG with 8 bits per pixel, encoded again if it has fewer, whose greys Pillow would scale."""
    content = path.read_bytes()
    bit_depth = content[24]
    return content if bit_depth == 8 else encode_labels(read_labels(path))


def score_sequence(task: Task, pred: Path) -> list[ObjectScores]:
    """Score the objects of one sequence frame by frame, so that memory does not grow with its length."""
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
    objects = []
    for id, frames in task.scored.items():
        if frames:
            j, f = np.array(found[id]).T
            objects.append(ObjectScores(task.video.name, id, frames, j, f, (task.category or {}).get(id)))
    return objects


def score_sequences(tasks: list[Task], pred: Path, jobs: int | None = None) -> list[ObjectScores]:
    """Score all sequences with `jobs` threads (None: one per core); return their objects in the given order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Decoders, OpenCV and NumPy release the GIL; OpenCV's own threads would only compete.
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(jobs or cores) as pool:
        # The longest first, so that no thread works alone at the end.
        order = sorted(range(len(tasks)), key=lambda i: -len(tasks[i].demanded))
        futures = {i: pool.submit(score_sequence, tasks[i], pred) for i in order}
        try:
            return [scores for i in range(len(tasks)) for scores in futures[i].result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_file(path: Path) -> None:
    """Raise HodorError for a file that cannot be a mask; reading a pipe or a device would not end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise HodorError(f"{path}: not a regular file; segment this sequence again")
    if not 0 < status.st_size <= _MAX_BYTES:
        what = f"{status.st_size} bytes, too large for a mask" if status.st_size else "an empty file"
        raise HodorError(f"{path}: {what}; segment this sequence again")


def _more(names: list[str]) -> str:
    return f" ({len(names)} in all)" if len(names) > 1 else ""
