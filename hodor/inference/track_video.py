"""The command `hodor track`: objects of a user's own video, given by masks, followed to its end.

    hodor track VIDEO --mask FIRST.png [--mask FRAME=LATER.png ...] --weights RUN_OR_FILE --out DIR

DIR gets masks/<frame>.png (palette PNG of the video's size), overlay.mp4 and track.json (what was done with what). It
must be empty: nothing that is there is ever written over. What was done when something breaks is kept.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hodor.data.images import VOID, read_labels, write_labels
from hodor.data.progress import Progress
from hodor.data.video import object_ids
from hodor.errors import HodorError, system_error
from hodor.inference.overlay import overlay
from hodor.inference.track import Tracker
from hodor.inference.video_files import FrameSource, VideoWriter, open_frames
from hodor.inference.weights import describe
from hodor.provenance import commit, machine, peak_memory_mib, sha256_file, versions, write_json_atomic


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
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Segments a video and writes masks, overlay and record; returns the record.

    Args:
        video: a video file, or a folder of images.
        masks: `FILE` (of the first frame) or `FRAME=FILE`, a frame's name or its number from 0.
        weights, device, threads, precision, settings: as `Tracker` takes them.
        out: folder that is absent or empty.
        rate: frames a second of the overlay; the video's own where absent.

    Raises:
        HodorError: anything that a user can mend; before the first frame nothing is written.
    """
    out = Path(out)
    if rate is not None and not 0.01 <= rate <= 1000:  # NaN is refused too
        raise HodorError(f"--fps {rate:g}: must be from 0.01 to 1000")
    if threads is not None and threads < 1:
        raise HodorError(f"--threads {threads}: must be 1 or more")
    _require_empty(out)
    source = open_frames(video, Fraction(rate).limit_denominator(1001) if rate else None)
    given = read_masks(masks, source)
    tracker = Tracker(weights, device=device, threads=threads, precision=precision, **(settings or {}))
    print(f"{describe(tracker.loaded)}, on {tracker.device}", file=sys.stderr, flush=True)
    return _Tracking(source, given, tracker, out).run()


class _Tracking:
    """One call under way."""

    def __init__(self, source: FrameSource, given: dict[int, np.ndarray], tracker: Tracker, out: Path) -> None:
        self.source, self.given, self.tracker, self.out = source, given, tracker, out
        self.done, self.objects, self.lost = 0, {}, []
        self.began = time.monotonic()

    def run(self) -> dict[str, Any]:
        self.out.mkdir(parents=True, exist_ok=True)
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
            raise HodorError(f"{_told(error)}; {self._keep()}") from error
        bar.close()
        late = sorted(index for index in self.given if index >= self.done)
        record = self._record(complete=not late)
        if late:
            raise HodorError(
                f"{self.source.path}: has {self.done} frames, so the mask of frame {late[0]} was never used; all frames "
                f"are done without it, in {self.out}"
            )
        return record

    def _keep(self) -> str:
        """Records what was done when something broke; says it."""
        if not self.done:
            # Only an empty folder is taken the next time.
            shutil.rmtree(self.out / "masks", ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.out / "overlay.mp4").unlink(missing_ok=True)
                self.out.rmdir()
            return "no frame was done"
        with contextlib.suppress(OSError):  # a full disk takes no record either
            self._record(complete=False)
        return f"the {self.done} frames before it are done, in {self.out}"

    def _segment(self, name: str, frame: np.ndarray) -> np.ndarray:
        new = self.given.get(self.done)
        if new is not None:
            self.objects |= {id: name for id in object_ids(new) if id not in self.objects}
        if self.tracker.ids:
            labels = self.tracker.step(frame, new)
        elif new is not None:
            labels = self.tracker.start(frame, new).labels
        else:  # nothing has appeared yet
            return np.zeros(frame.shape[:2], np.uint8)
        for id in sorted(set(self.tracker.lost) - set(self.lost)):
            self.lost.append(id)
            print(f"object {id} is too small on frame {name} to be followed", file=sys.stderr, flush=True)
        return labels

    def _record(self, *, complete: bool) -> dict[str, Any]:
        """Writes track.json."""
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
            "time_s": round(seconds, 3),
            "fps": round(self.done / seconds, 3),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        }
        write_json_atomic(self.out / "track.json", record)
        return record


def _told(error: Exception) -> str:
    """What an error says; the system's, such as a full disk, with their file and the mend."""
    if isinstance(error, HodorError):
        return str(error)
    return system_error(error, "free space or mend the folder, and start with another one")


class Bar(Progress):
    """A progress bar that redraws its line on a terminal; elsewhere plain lines, as every other step prints."""

    WIDTH = 24

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.terminal = sys.stderr.isatty()
        super().__init__(label, total, unit, every=0.1 if self.terminal else 5.0)

    def add(self, amount: int) -> None:
        if not self.terminal:
            super().add(amount)
            return
        self.count += amount
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            self._draw("")

    def close(self) -> None:
        if self.terminal:
            self._draw("\n")
        else:
            super().close()

    def _amount(self, amount: float) -> str:
        slow = isinstance(amount, float) and amount < 10
        return f"{amount:.2g} {self.unit}" if slow else super()._amount(amount)

    def _draw(self, end: str) -> None:
        filled = round(self.WIDTH * min(self.count / self.total, 1)) if self.total else 0
        bar = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] " if self.total else ""
        print(f"\r\033[K{bar}{self.line()}", end=end, file=sys.stderr, flush=True)


def read_masks(masks: Sequence[str], source: FrameSource) -> dict[int, np.ndarray]:
    """Frame number -> labels, uint8 (H, W), of `FILE` or `FRAME=FILE` each; objects that are there already are 0.

    A mask that holds 255 and no id, as many tools write, is one object, number 1.

    Raises:
        HodorError: no mask, one that is missing, damaged, coloured or of another size, or without a new object.
    """
    files: dict[int, Path] = {}
    for entry in masks:
        key, equals, rest = entry.partition("=")
        whole = Path(entry)
        index, file = (source.index(key), Path(rest)) if equals and not whole.is_file() else (0, whole)
        if index in files:
            raise HodorError(
                f"--mask {entry}: {files[index]} is a mask of the same frame; put all its objects into one"
            )
        files[index] = file
    if not files:
        raise HodorError("no mask: give the objects of the first frame with --mask FIRST.png")
    out: dict[int, np.ndarray] = {}
    known: set[int] = set()
    for index, file in sorted(files.items()):
        labels = _read_mask(file, source.size)
        if set(np.unique(labels)) == {0, VOID}:
            if known:
                raise HodorError(f"{file}: holds 255 alone; give the new object a number that no other object has")
            labels[labels == VOID] = 1
        labels[labels == VOID] = 0
        new = set(object_ids(labels)) - known
        if not new:
            what = f"no new object, {', '.join(map(str, sorted(known)))} are followed already" if known else "no object"
            raise HodorError(
                f"{file}: holds {what}; give each object a number of its own from 1 to 254 (0: background)"
            )
        labels[~np.isin(labels, list(new))] = 0
        known |= new
        out[index] = labels
    return out


def _read_mask(file: Path, size: tuple[int, int]) -> np.ndarray:
    if not file.is_file():
        raise HodorError(f"{file}: no such mask; give a PNG whose pixels are object numbers (0: background)")
    try:
        with Image.open(file) as image:
            form, mode, found = image.format, image.mode, (image.height, image.width)
    except OSError as error:
        raise HodorError(f"{file}: no image, or a damaged one; save the mask again as a palette PNG") from error
    if form != "PNG" or mode not in ("P", "L"):
        raise HodorError(
            f"{file}: a {mode} {form} where a palette or grey PNG of 8 bits is needed, whose pixels are object numbers "
            "(0: background); save it with a palette"
        )
    if found != size:
        raise HodorError(
            f"{file}: {found[1]}x{found[0]} pixels (width x height), the video {size[1]}x{size[0]}; make the mask on a "
            "frame of the video at its own size"
        )
    try:
        return read_labels(file, size)
    except HodorError as error:
        # The reader's advice is for data; a mask is not in any archive.
        raise HodorError(str(error).replace("take it from its archive again", "save the mask again")) from None


def _require_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise HodorError(f"{out}: a file; give a folder that is absent or empty")
    if out.is_dir() and any(out.iterdir()):
        raise HodorError(f"{out}: not empty; give another folder, or delete it: nothing is written over")
