"""The command `hodor track`: track objects, given by masks or boxes, through a video of the user's own.

    hodor track VIDEO --mask FIRST.png [--mask FRAME=LATER.png ...] --weights RUN_OR_FILE --out DIR
    hodor track VIDEO --box X,Y,W,H [--box FRAME=X,Y,W,H ...] --weights RUN_OR_FILE --out DIR

DIR receives masks/<frame>.png (palette PNGs of the video's size), overlay.mp4 and track.json (settings and provenance).
It must be empty: no file is overwritten. After an error, the frames before it are kept.
"""

import contextlib
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hodor.data.images import AGAIN, VOID, read_labels, write_labels
from hodor.data.video import object_ids
from hodor.device import has_fast_bfloat16
from hodor.errors import HodorError, system_error
from hodor.inference.pretrained import find_pretrained
from hodor.inference.tracker import Tracker
from hodor.inference.video_io import FrameSource, VideoWriter, open_frames, overlay
from hodor.inference.weights import describe
from hodor.provenance import cost, sha256_file, write_json_atomic

GRABCUT_PIXELS = 1 << 18
"""Largest image that GrabCut segments, in two seconds on a CPU; larger surroundings of a box are reduced to it."""


def track_video(
    video: str | Path,
    masks: Sequence[str],
    weights: str | Path | None,
    out: str | Path,
    *,
    boxes: Sequence[str] = (),
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    rate: float | None = None,
    ignore_tracked: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Segment a video and write masks, overlay and record; return the record.

    Args:
        video: a video file, or a folder of images.
        masks: `FILE` (of the first frame) or `FRAME=FILE`, with a frame's name or its number from 0.
        weights: see `find_pretrained`; device, threads, settings: see `Tracker`.
        out: folder that is absent or empty.
        precision: see `Tracker`; None: `bfloat16` for HODOR on a CPU that is faster in it, else that of the run.
        boxes: `X,Y,W,H` (of the first frame) or `FRAME=X,Y,W,H` in pixels; the nth box is object n (`box_mask`).
        rate: frames per second of the overlay; None: those of the video.
        ignore_tracked: whether to ignore objects of later masks that are tracked already, instead of raising an error.

    Raises:
        HodorError: bad input; nothing is written before the first frame.
    """
    out = Path(out)
    if rate is not None and not 0.01 <= rate <= 1000:  # NaN is refused too
        raise HodorError(f"--fps {rate:g}: must be from 0.01 to 1000")
    if threads is not None and not 1 <= threads <= 1024:  # more would end the process without a message of ours
        raise HodorError(f"--threads {threads}: must be 1 to 1024")
    if out.exists() and not out.is_dir():
        raise HodorError(f"{out}: is a file; use a folder that is absent or empty")
    if out.is_dir() and any(out.iterdir()):
        raise HodorError(f"{out}: not empty; use another folder, or delete it")
    weights = find_pretrained(weights)
    source = open_frames(video, Fraction(rate).limit_denominator(1001) if rate else None)
    given = read_masks(masks, source, boxes, ignore_tracked=ignore_tracked)
    tracker = Tracker(weights, device=device, threads=threads, precision=precision, **(settings or {}))
    if precision is None and tracker.loaded.name == "hodor" and has_fast_bfloat16(tracker.device):
        tracker.precision = "bfloat16"
    print(f"{describe(tracker.loaded)}, on {tracker.device} in {tracker.precision}", file=sys.stderr, flush=True)
    return _Tracking(source, given, tracker, out).run()


class _Tracking:
    """The state of one call of `track_video`."""

    def __init__(self, source: FrameSource, given: dict[int, np.ndarray], tracker: Tracker, out: Path) -> None:
        self.source, self.given, self.tracker, self.out = source, given, tracker, out
        self.done, self.objects, self.lost = 0, {}, []
        self.began = time.monotonic()

    def run(self) -> dict[str, Any]:
        source = self.source
        seconds = 0.1 if sys.stderr.isatty() else 10  # between two updates; a log has a line for each
        bar = tqdm(desc=source.path.name, total=source.count, unit="frame", mininterval=seconds)
        try:
            with bar, VideoWriter(self.out / "overlay.mp4", source.size, source.rate) as writer:
                for name, frame in source.frames():
                    labels = self._segment(name, frame)
                    write_labels(self.out / "masks" / f"{name}.png", labels)
                    writer.write(overlay(frame, labels))
                    self.done += 1
                    bar.update()
        except (HodorError, OSError) as error:
            kept = "no frame was done"
            if self.done:
                kept = f"the {self.done} frames before it are done, in {self.out}"
                with contextlib.suppress(OSError):  # a full disk has no room for a record either
                    self._record(complete=False)
            fix = "free space or make the folder writable, and start with another one"
            message = system_error(error, fix) if isinstance(error, OSError) else error
            raise HodorError(f"{message}; {kept}") from error
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
            labels = self.tracker.step(frame, new, ignore_tracked=True)
        else:
            labels = self.tracker.start(frame, new).labels
        for id in sorted(set(self.tracker.lost) - set(self.lost)):
            self.lost.append(id)
            print(f"object {id} is too small on frame {name} to be tracked", file=sys.stderr, flush=True)
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


def read_masks(
    masks: Sequence[str], source: FrameSource, boxes: Sequence[str] = (), *, ignore_tracked: bool = False
) -> dict[int, np.ndarray]:
    """Read masks, `FILE` or `FRAME=FILE`, and segment boxes, `X,Y,W,H` or `FRAME=X,Y,W,H`.

    A mask that contains 255 and no id, as many tools write, is one object, number 1. The nth box is object n. Where objects
    of one frame overlap, the mask counts, then the last box.

    Returns:
        Frame number -> labels, uint8 (H, W), 0 background.

    Raises:
        HodorError: no mask or box; a mask that is missing, damaged, coloured, anti-aliased, of another size, among the
            frames or without an object; a box outside the frame, or whose object is covered by others; or a second mask of
            an object without `ignore_tracked`.
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
    if not files and not boxes:
        raise HodorError("no mask; give the objects of the first frame with --mask FIRST.png or --box X,Y,W,H")
    out = _read_boxes(boxes, source)
    first = {id: index for index, labels in out.items() for id in object_ids(labels)}  # frame of each object
    for index, file in sorted(files.items()):
        labels = _read_mask(file, source)
        if set(np.unique(labels)) == {0, VOID}:
            if first:
                raise HodorError(f"{file}: contains 255 only; use a number for the new object that no other object has")
            labels[labels == VOID] = 1
        ids = set(object_ids(labels))
        if not ids:
            raise HodorError(f"{file}: contains no object; use a number from 1 to 254 for each object (0: background)")
        if void := int((labels == VOID).sum()):
            print(f"{file}: 255 is no object; its {void} pixels are ignored", file=sys.stderr, flush=True)
            labels[labels == VOID] = 0
        tracked = {id for id in ids if first.get(id, index) < index}
        if again := sorted(ids & first.keys() - (tracked if ignore_tracked else set())):
            raise HodorError(
                f"{file}: a second mask of object {again[0]}, which is tracked already; use another number for a new "
                "object, or ignore tracked objects with --ignore-tracked"
            )
        first |= dict.fromkeys(ids - tracked, index)
        if (boxed := out.get(index)) is not None:
            labels = np.where(np.isin(labels, sorted(ids - tracked)) | (boxed == 0), labels, boxed)
            if covered := sorted(set(object_ids(boxed)) - set(object_ids(labels))):
                raise HodorError(f"{file}: covers the whole object of box {covered[0]}; give each object once")
        out[index] = labels
    return out


def _read_boxes(boxes: Sequence[str], source: FrameSource) -> dict[int, np.ndarray]:
    """Return frame number -> labels of the objects in boxes, after reading the frames up to the last box."""
    wanted: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for id, entry in enumerate(boxes, 1):
        key, equals, box = entry.rpartition("=")
        if not re.fullmatch(r"-?\d+(,-?\d+){3}", box, re.ASCII) or id > 254:
            raise HodorError(f"--box {entry}: must be X,Y,W,H or FRAME=X,Y,W,H in whole pixels, at most 254 boxes")
        wanted[source.index(key) if equals else 0][id] = [int(number) for number in box.split(",")]
    out: dict[int, np.ndarray] = {}
    frames = enumerate(source.frames()) if wanted else iter(())
    while len(out) < len(wanted):
        index, (_, frame) = next(frames, (None, ("", None)))
        if frame is None:
            raise HodorError(f"{source.path}: has no frame {max(wanted)}; give the box in an earlier frame")
        if index not in wanted:
            continue
        out[index] = np.zeros(source.size, np.uint8)
        for id, box in wanted[index].items():
            out[index][box_mask(frame, box)] = id
        if covered := sorted(wanted[index].keys() - set(object_ids(out[index]))):
            raise HodorError(f"--box {boxes[covered[0] - 1]}: later boxes cover its whole object; give it after them")
    return out


def box_mask(frame: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Segment the object in a box with GrabCut (Rother et al., SIGGRAPH 2004, in OpenCV).

    If GrabCut finds no object, the whole box is the mask, and a line reports it.

    Args:
        frame: uint8 RGB (H, W, 3).
        box: left, top, width and height in pixels.

    Returns:
        bool (H, W).

    Raises:
        HodorError: a box that is empty or not in the frame.
    """
    (left, top, width, height), (rows, columns) = box, frame.shape[:2]
    text = f"box {left},{top},{width},{height}"
    if not (0 <= left < left + width <= columns and 0 <= top < top + height <= rows):
        raise HodorError(f"{text}: not in the frame of {columns}x{rows} pixels; give left, top, width and height")
    # The background is learned from as much again on each side: the time depends on the box, not on the frame.
    near = slice(max(0, top - height), top + 2 * height), slice(max(0, left - width), left + 2 * width)
    labels = np.full((rows, columns), cv2.GC_BGD, np.uint8)
    labels[top : top + height, left : left + width] = cv2.GC_PR_FGD
    mask = labels == cv2.GC_PR_FGD
    shape = labels[near].shape
    scale = min(1, (GRABCUT_PIXELS / (shape[0] * shape[1])) ** 0.5)
    small = cv2.resize(frame[near], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = cv2.resize(labels[near], small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(small, found, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # no background around the box, or too few pixels
        found[:] = cv2.GC_BGD
    kept = mask[near] & (cv2.resize(found, shape[::-1], interpolation=cv2.INTER_NEAREST) == cv2.GC_PR_FGD)
    if kept.any():
        mask[near] = kept
    else:
        print(f"{text}: GrabCut finds no object; the whole box is used", file=sys.stderr, flush=True)
    return mask


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
        raise HodorError(str(error).replace(AGAIN, advice)) from None
