"""Checks of predicted masks, and scores of each object against the ground truth, for any benchmark.

Faults that the official toolkits ignore are errors here: missing sequences, missing or extra frames, masks of another
size, colours instead of indices, unknown object ids.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from hodor import paths
from hodor.data.extract import extract_all
from hodor.data.images import AGAIN, VOID, read_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.scoring.jf import frame_scores, histogram, statistics

# No mask is larger, but special files such as /proc/kcore claim to be.
_MAX_BYTES = 1 << 28
_DEPTH = 3  # maximum number of folders above the sequences; archives often have one
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
_AGAIN = "make the masks of this sequence again"


@dataclass(frozen=True)
class Task:
    """The frames and objects that a benchmark scores in one sequence.

    Attributes:
        video: with the ground truth of every scored frame, if it is public.
        demanded: frames whose predicted masks are read, in order: those that a server requires, or those that exist.
        scored: object id -> its scored frames, in order; an object without any is in no mean.
        category: object id -> "seen" or "unseen", for benchmarks that distinguish them.
    """

    video: Video
    demanded: tuple[str, ...]
    scored: dict[int, tuple[str, ...]]
    category: dict[int, str] | None = None


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


@contextmanager
def open_masks(
    source: Path, tasks: list[Task], extracted: Path, *, complete: bool = False
) -> Iterator[tuple[Path, list[Task]]]:
    """Find and check masks of any origin; report ignored files in one line.

    Args:
        source: folder of <sequence>/<frame>.png, a folder above it, or an archive of either. Other files are ignored.
        tasks: sequences of the benchmark.
        extracted: folder for the members of an archive, which exists until the context ends.
        complete: whether every demanded frame needs a mask. False: only those in which an object is scored.

    Yields:
        Folder of <sequence>/<frame>.png, and tasks that demand the masks that exist.

    Raises:
        HodorError: no such folder or archive, an error of `check_prediction`, or one raised inside the context; errors
            about a member of an archive name the archive.
    """
    require_masks(source)
    folder = source if source.is_dir() else extracted
    try:
        if folder is extracted:
            extract_all([source], extracted)
        pred = _sequences(folder, tasks)
        tasks = check_prediction(tasks, pred, complete=complete)
        files = {Path(above, name) for above, _, names in os.walk(folder) for name in names}
        used = {pred / task.video.name / f"{frame}.png" for task in tasks for frame in task.demanded}
        used.add(pred / paths.SNAKEMAKE_TIMESTAMP)
        if ignored := sorted(path.relative_to(folder).as_posix() for path in files - used):
            text = f"{source}: ignored {len(ignored)} file(s) that the benchmark does not use, {ignored[0]} first"
            print(text, file=sys.stderr)
        yield pred, tasks
    except HodorError as error:
        raise HodorError(str(error).replace(str(folder), str(source))) from None
    finally:
        if folder is extracted:
            shutil.rmtree(extracted, ignore_errors=True)


def require_masks(source: Path) -> None:
    """Raise HodorError for masks that are neither a folder nor an archive."""
    if not source.is_dir() and not (source.is_file() and source.name.endswith(_ARCHIVES)):
        fault = f"not an archive that is read ({', '.join(_ARCHIVES)})" if source.is_file() else "no such folder"
        raise HodorError(f"{source}: {fault}; give the folder that holds <sequence>/<frame>.png, or an archive of it")


def check_prediction(tasks: list[Task], pred: Path, *, complete: bool = False) -> list[Task]:
    """Compare the files in a folder of predicted masks with the required ones, without reading any.

    Further sequences are allowed, and masks of further frames that the video has.

    Returns:
        Tasks that demand the masks that exist: all of them if `complete`, else at least those of scored frames.

    Raises:
        HodorError: a sequence or frame is missing, a frame is unknown, or a mask is no regular file.
    """
    if missing := sorted(task.video.name for task in tasks if not (pred / task.video.name).is_dir()):
        raise HodorError(
            f"{pred / missing[0]}: sequence missing{_more(missing)}; make the masks of the whole benchmark"
        )
    checked = []
    for task in tasks:
        folder = pred / task.video.name
        found = {path.stem for path in folder.glob("*.png") if not path.name.startswith(".")}
        required = task.demanded if complete else {frame for frames in task.scored.values() for frame in frames}
        if missing := sorted(set(required) - found):
            why = "the server requires every frame" if complete else "the protocol scores this frame"
            raise HodorError(f"{folder / missing[0]}.png: frame missing{_more(missing)}; {why}: {_AGAIN}")
        if extra := sorted(found - set(task.video.frames)):
            # Ignoring it would hide frame numbers that are off by one.
            fault = f"the sequence has no such frame{_more(extra)}; remove it, or complete {task.video.frame_folder}"
            raise HodorError(f"{folder / extra[0]}.png: {fault}")
        task = replace(task, demanded=tuple(frame for frame in task.demanded if frame in found))
        for frame in task.demanded:
            _check_file(folder / f"{frame}.png")
        checked.append(task)
    return checked


def read_prediction(task: Task, pred: Path, frame: str) -> np.ndarray:
    """Read a predicted mask as labels, uint8 (H, W).

    Levels are object ids; 255 too, as for the official toolkit and the servers, because void exists in ground truth only.
    A mask of two levels, 0 and 255 or a grey PNG of 1 bit, shows the object of a sequence that has one.

    Raises:
        HodorError: a broken file, another size, an unknown id, or two levels for several objects.
    """
    video, path, ids = task.video, pred / task.video.name / f"{frame}.png", list(task.scored)
    try:
        labels = read_labels(path, (video.height, video.width))
    except HodorError as error:
        # The reader's advice is for files of a data set.
        raise HodorError(str(error).replace(AGAIN, _AGAIN)) from None
    found = set((np.flatnonzero(histogram(labels)[1:]) + 1).tolist())
    two_levels = found == {VOID} or (found == {1} and _is_one_bit_grey(path))
    if two_levels and len(ids) == 1:
        return np.where(labels, np.uint8(ids[0]), np.uint8(0))
    known = f"the ground truth of this sequence has {len(ids)} object(s), ids {', '.join(map(str, ids))}"
    if two_levels:
        raise HodorError(
            f"{path}: a mask of two levels does not distinguish objects, but {known}; write each object's id instead"
        )
    if unknown := found.difference(ids):
        fix = f"the ids must be those of the given masks: {_AGAIN}"
        raise HodorError(f"{path}: object id {max(unknown)}, but {known}; {fix}")
    return labels


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


def _sequences(folder: Path, tasks: list[Task]) -> Path:
    """Return the folder that holds the sequences: `folder`, or one below it."""
    names = {task.video.name for task in tasks}
    for depth in range(_DEPTH + 1):
        below = (path for path in folder.glob("*/" * (depth + 1)) if "__MACOSX" not in path.parts)
        found = sorted({path.parent for path in below if path.name in names})
        if len(found) > 1:
            raise HodorError(f"{found[0]} and {found[1]} both hold sequences; name one of them")
        if found:
            return found[0]
    return folder


def _is_one_bit_grey(path: Path) -> bool:
    """Return whether a PNG has 1 bit per pixel and no palette, in which case its upper level means white."""
    with open(path, "rb") as file:
        return file.read(26)[24:] == b"\1\0"


def _check_file(path: Path) -> None:
    """Raise HodorError for a file that cannot be a mask; reading a pipe or a device would not end."""
    if not path.is_file():  # for example a link to a file that is absent
        raise HodorError(f"{path}: not a regular file; {_AGAIN}")
    if not 0 < (size := path.stat().st_size) <= _MAX_BYTES:
        what = f"{size} bytes, too large for a mask" if size else "an empty file"
        raise HodorError(f"{path}: {what}; {_AGAIN}")


def _more(names: list[str]) -> str:
    return f" ({len(names)} in all)" if len(names) > 1 else ""
