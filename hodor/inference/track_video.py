"""The command `hodor track`: follow objects, given by masks, through a video of the user's own.

    hodor track VIDEO --mask FIRST.png [--mask FRAME=LATER.png ...] --weights RUN_OR_FILE --out DIR

DIR receives masks/<frame>.png (palette PNGs of the video's size), overlay.mp4 and track.json (settings and provenance).
It must be empty: no file is overwritten. After an error, the frames before it are kept.
"""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from hodor.data.images import VOID, read_labels, write_labels
from hodor.data.progress import Progress
from hodor.data.video import object_ids
from hodor.errors import HodorError, system_error
from hodor.inference.tracker import Tracker
from hodor.inference.video_io import FrameSource, VideoWriter, open_frames, overlay
from hodor.inference.weights import describe
from hodor.provenance import cost, sha256_file, write_json_atomic


def track_video(
    video: str | Path,
    masks: Sequence[str],
    weights: str | Path,
    out: str | Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    rate: float | None = None,
    ignore_followed: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Segment a video and write masks, overlay and record; return the record.

    Args:
        video: a video file, or a folder of images.
        masks: `FILE` (of the first frame) or `FRAME=FILE`, with a frame's name or its number from 0.
        weights, device, threads, precision, settings: see `Tracker`.
        out: folder that is absent or empty.
        rate: frames per second of the overlay; None: those of the video.
        ignore_followed: whether to ignore objects of later masks that are followed already, instead of raising an error.

    Raises:
        HodorError: bad input; nothing is written before the first frame.
    """
    out = Path(out)
    if rate is not None and not 0.01 <= rate <= 1000:  # NaN is refused too
        raise HodorError(f"--fps {rate:g}: must be from 0.01 to 1000")
    if threads is not None and threads < 1:
        raise HodorError(f"--threads {threads}: must be 1 or more")
    if out.exists() and not out.is_dir():
        raise HodorError(f"{out}: is a file; use a folder that is absent or empty")
    if out.is_dir() and any(out.iterdir()):
        raise HodorError(f"{out}: not empty; use another folder, or delete it")
    source = open_frames(video, Fraction(rate).limit_denominator(1001) if rate else None)
    given = read_masks(masks, source, ignore_followed=ignore_followed)
    tracker = Tracker(weights, device=device, threads=threads, precision=precision, **(settings or {}))
    print(f"{describe(tracker.loaded)}, on {tracker.device}", file=sys.stderr, flush=True)
    return _Tracking(source, given, tracker, out).run()


class _Tracking:
    """The state of one call of `track_video`."""

    def __init__(self, source: FrameSource, given: dict[int, np.ndarray], tracker: Tracker, out: Path) -> None:
        self.source, self.given, self.tracker, self.out = source, given, tracker, out
        self.done, self.objects, self.lost = 0, {}, []
        self.began = time.monotonic()

    def run(self) -> dict[str, Any]:
        bar = Bar(self.source.path.name, self.source.count, "frames")
        try:
            with VideoWriter(self.out / "overlay.mp4", self.source.size, self.source.rate) as writer:
                for name, frame in self.source.frames():
                    labels = self._segment(name, frame)
                    write_labels(self.out / "masks" / f"{name}.png", labels)
                    writer.write(overlay(frame, labels))
                    self.done += 1
                    bar.add(1)
        except (HodorError, OSError) as error:
            bar.close()
            kept = "no frame was done"
            if self.done:
                kept = f"the {self.done} frames before it are done, in {self.out}"
                with contextlib.suppress(OSError):  # a full disk has no room for a record either
                    self._record(complete=False)
            fix = "free space or make the folder writable, and start with another one"
            message = system_error(error, fix) if isinstance(error, OSError) else error
            raise HodorError(f"{message}; {kept}") from error
        bar.close()
        late = sorted(index for index in self.given if index >= self.done)
        record = self._record(complete=not late)
        if late:
            raise HodorError(
                f"{self.source.path}: has {self.done} frames, so the mask of frame {late[0]} was never used; all frames "
                f"are done without it, in {self.out}"
            )
        return record

    def _segment(self, name: str, frame: np.ndarray) -> np.ndarray:
        new = self.given.get(self.done)
        if new is None and not self.tracker.ids:  # before the first object
            return np.zeros(frame.shape[:2], np.uint8)
        if new is not None:
            self.objects |= {id: name for id in object_ids(new) if id not in self.objects}
        if self.tracker.ids:
            labels = self.tracker.step(frame, new, ignore_followed=True)
        else:
            labels = self.tracker.start(frame, new).labels
        for id in sorted(set(self.tracker.lost) - set(self.lost)):
            self.lost.append(id)
            print(f"object {id} is too small on frame {name} to be followed", file=sys.stderr, flush=True)
        return labels

    def _record(self, *, complete: bool) -> dict[str, Any]:
        """Write track.json and return its content."""
        tracker, seconds = self.tracker, time.monotonic() - self.began
        record = {
            "video": str(self.source.path),
            "frames": self.done,
            "complete": complete,
            "height": self.source.size[0],
            "width": self.source.size[1],
            "objects": {str(id): name for id, name in self.objects.items()},
            "too_small": self.lost,
            "weights": str(tracker.loaded.file),
            "weights_sha256": sha256_file(tracker.loaded.file),
            "method": tracker.loaded.name,
            "inference": tracker.method.inference.model_dump(mode="json"),
            "device": str(tracker.device),
            "precision": tracker.precision,
            "fps": round(self.done / seconds, 3),
            **cost(seconds),
        }
        write_json_atomic(self.out / "track.json", record)
        return record


class Bar(Progress):
    """A progress bar that redraws its line on a terminal, and prints plain lines elsewhere."""

    WIDTH = 24

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.terminal = sys.stderr.isatty()
        super().__init__(label, total, unit, every=0.1 if self.terminal else 5.0)

    def show(self, end: str = "") -> None:
        if not self.terminal:
            return super().show()
        filled = round(self.WIDTH * min(self.count / self.total, 1)) if self.total else 0
        bar = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] " if self.total else ""
        print(f"\r\033[K{bar}{self.line()}", end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.show("\n")

    def _amount(self, amount: float) -> str:
        slow = isinstance(amount, float) and amount < 10
        return f"{amount:.2g} {self.unit}" if slow else super()._amount(amount)


def read_masks(masks: Sequence[str], source: FrameSource, *, ignore_followed: bool = False) -> dict[int, np.ndarray]:
    """Read `FILE` or `FRAME=FILE` each; return frame number -> labels, uint8 (H, W), 0 background.

    A mask that contains 255 and no id, as many tools write, is one object, number 1.

    Raises:
        HodorError: no mask; one that is missing, damaged, coloured, anti-aliased, of another size, among the frames or
            without an object; or a second mask of an object without `ignore_followed`.
    """
    files: dict[int, Path] = {}
    for entry in masks:
        key, equals, rest = entry.partition("=")
        whole = Path(entry)
        index, file = (source.index(key), Path(rest)) if equals and not whole.is_file() else (0, whole)
        if index in files:
            raise HodorError(
                f"--mask {entry}: {files[index]} is a mask of the same frame; put all objects into one mask"
            )
        files[index] = file
    if not files:
        raise HodorError("no mask; give the objects of the first frame with --mask FIRST.png")
    out: dict[int, np.ndarray] = {}
    known: set[int] = set()
    for index, file in sorted(files.items()):
        labels = _read_mask(file, source)
        if set(np.unique(labels)) == {0, VOID}:
            if known:
                raise HodorError(f"{file}: contains 255 only; use a number for the new object that no other object has")
            labels[labels == VOID] = 1
        ids = set(object_ids(labels))
        if not ids:
            raise HodorError(f"{file}: contains no object; use a number from 1 to 254 for each object (0: background)")
        if void := int((labels == VOID).sum()):
            print(f"{file}: 255 is no object; its {void} pixels are ignored", file=sys.stderr, flush=True)
            labels[labels == VOID] = 0
        if (again := sorted(ids & known)) and not ignore_followed:
            raise HodorError(
                f"{file}: a second mask of object {again[0]}, which is followed already; use another number for a new "
                "object, or ignore followed objects with --ignore-followed"
            )
        known |= ids
        out[index] = labels
    return out


def _read_mask(file: Path, source: FrameSource) -> np.ndarray:
    if source.names and file.stem in source.names and file.absolute().parent == source.path.absolute():
        raise HodorError(f"{file}: is among the frames of the video; move the mask to another folder")
    if not file.is_file():
        raise HodorError(f"{file}: no such mask; use a PNG whose pixels are object numbers (0: background)")
    try:
        return read_labels(file, source.size)
    except HodorError as error:
        # The reader's advice is about archives of data sets.
        advice = "save the mask again, at the size of the video"
        raise HodorError(str(error).replace("take it from its archive again", advice)) from None
