"""Segment the videos of a benchmark with a trained row, one video after another."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hodor.config.stages import InferenceOptions
from hodor.data.images import write_labels
from hodor.data.readers import load_videos
from hodor.data.video import Video
from hodor.device import mixed, prepare_device
from hodor.errors import HodorError
from hodor.inference.weights import load_method
from hodor.models.base import Frame, Method, check_masks
from hodor.provenance import cost, sha256_file, write_json_atomic


def segment(stamp: dict[str, Any], weights: Path, data: Path, out: Path) -> None:
    """Write palette masks of every frame of a benchmark, their checksums, and time and memory.

    Args:
        stamp: the step's settings (`read_stamp`): benchmark, inference, device, threads, precision.
        weights: model.safetensors of a run.
        data: folder of the prepared data sets of the scale.
        out: receives masks/<video>/<frame>.png, masks.json and segment.json.
    """
    settings = stamp["settings"]
    benchmark = settings["benchmark"]
    device = prepare_device(settings["device"], settings["threads"], settings["precision"])
    _, method = load_method(weights, InferenceOptions(**settings["inference"]))
    method.to(device)
    videos = load_videos(data, benchmark["dataset"], benchmark["split"])
    masks = out / "masks"
    other = sorted({path.name for path in masks.glob("[!.]*")} - {video.name for video in videos})
    if other and not (out / "masks.json").is_file():
        raise HodorError(
            f"{masks / other[0]}: not of {benchmark['id']}, and would be removed; use another folder (--out)"
        )
    shutil.rmtree(masks, ignore_errors=True)  # of an earlier or a killed run
    checksums: dict[str, str] = {}
    frames, seconds = 0, 0.0
    for number, video in enumerate(videos, 1):
        folder = masks / video.name
        folder.mkdir(parents=True)
        started = time.monotonic()
        with mixed(device, settings["precision"]), MaskWriter(folder) as writer:
            for frame, labels in segment_video(method, video):
                writer.write(frame, labels)
            writing = writer.finish()
        checksums |= {f"{video.name}/{name}": digest for name, digest in writer.checksums.items()}
        taken = time.monotonic() - started - writing
        frames, seconds = frames + len(video.frames), seconds + taken
        print(
            f"{benchmark['id']}: video {number} of {len(videos)}, {video.name}, {len(video.frames)} frames, "
            f"{len(video.frames) / taken:.1f} frames/s",
            file=sys.stderr,
            flush=True,
        )
    write_json_atomic(
        out / "masks.json",
        {
            "stamp": stamp["sha256"],
            "weights": sha256_file(weights),
            "data": sha256_file(data / f"{benchmark['dataset']}.json"),
            "masks": checksums,
        },
    )
    write_json_atomic(
        out / "segment.json",
        {
            "stamp_content": {key: value for key, value in stamp.items() if key != "sha256"},
            "frames": frames,
            # The time includes waiting for frames to be read, not waiting for masks to be written.
            "fps": round(frames / seconds, 3),
            **cost(seconds),
        },
    )


class MaskWriter(ThreadPoolExecutor):
    """Write the masks of a video in a thread while the next frames are segmented.

    Attributes:
        checksums: file name -> sha256 of the masks written so far (all of them after `finish`).
    """

    WAITING = 16  # masks that wait to be written, at most

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self.folder, self.waited = folder, 0.0
        self.checksums: dict[str, str] = {}
        self._under_way: deque[tuple[Path, Future]] = deque()

    def write(self, frame: str, labels: np.ndarray) -> None:
        """Queue `<frame>.png`; the caller must not change `labels` any more. Raises errors of earlier masks."""
        path = self.folder / f"{frame}.png"
        self._under_way.append((path, self.submit(_write, path, labels)))
        self._wait(self.WAITING)

    def finish(self) -> float:
        """Wait for all masks; return the seconds that segmentation waited for masks in total."""
        self._wait(0)
        return self.waited

    def _wait(self, most: int) -> None:
        before = time.monotonic()
        while len(self._under_way) > most:
            path, written = self._under_way.popleft()
            self.checksums[path.name] = written.result()
        self.waited += time.monotonic() - before


def _write(path: Path, labels: np.ndarray) -> str:
    write_labels(path, labels)
    return sha256_file(path)


def segment_video(method: Method, video: Video) -> Iterator[tuple[str, np.ndarray]]:
    """Segment one video; yield (frame, labels) in order, labels uint8 (H, W) with the video's object ids.

    Frames before the first object are background; where an object first appears, its mask is used unchanged. An object
    too small for the network appears on that frame only. At most two batches of `feature_batch` frames are in memory.

    Raises:
        HodorError: a video without any object.
    """
    given: dict[str, dict[int, np.ndarray]] = {}
    for object_id, frame in video.first_seen.items():
        given.setdefault(frame, {})[object_id] = video.labels(frame) == object_id
    if not given:
        raise HodorError(f"{video.label_folder}: no mask holds an object, nothing to track in video {video.name!r}")
    state, last = None, None
    for name, image, feature in _featured(method, video):
        new = given.get(name)
        found = ids = None
        if state is None:
            if new is not None:
                state = _start(method, video, name, image, new)
        else:
            found = _fetch(method.step(state, image, new, feature).max(0).indices.to(torch.uint8))
            ids = np.array([0, *state.ids], np.uint8)
        # A GPU computes this frame while the labels of the last one are used.
        if last is not None:
            yield _labels(*last)
        last = name, image.shape[:2], found, ids, new or {}
    if last is not None:
        yield _labels(*last)


def _fetch(found: torch.Tensor) -> Callable[[], np.ndarray]:
    """Start to copy a tensor to the host; the returned function waits for the copy only, not for later work of the GPU."""
    copied = found.to("cpu", non_blocking=True)
    if not found.is_cuda:
        return copied.numpy
    arrived = torch.cuda.Event()
    arrived.record()

    def take() -> np.ndarray:
        arrived.synchronize()
        return copied.numpy()

    return take


def _labels(
    name: str,
    size: tuple[int, int],
    found: Callable[[], np.ndarray] | None,
    ids: np.ndarray | None,
    new: dict[int, np.ndarray],
) -> tuple[str, np.ndarray]:
    """Return a frame and its labels: `found` indexes `ids`, None before the first object; `new` masks are pasted."""
    labels = np.zeros(size, np.uint8) if found is None or ids is None else ids[found()]
    for object_id, mask in new.items():
        labels[mask] = object_id
    return name, labels


def _featured(method: Method, video: Video) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Yield frames with their features, `feature_batch` at a time, while the next ones are read."""
    batch = method.inference.feature_batch
    batches = [video.frames[first : first + batch] for first in range(0, len(video.frames), batch)]
    with ThreadPoolExecutor(1) as reader:

        def read(names: tuple[str, ...]) -> Future:
            return reader.submit(lambda: [video.frame(name) for name in names])

        ahead = read(batches[0])
        for names, following in zip(batches, [*batches[1:], ()], strict=True):
            images = ahead.result()
            ahead = read(following)
            yield from zip(names, images, method.features(images), strict=True)


def _start(method: Method, video: Video, frame: str, image: Frame, masks: dict[int, np.ndarray]) -> Any:
    """Return the state of a video, or None if none of its first objects is large enough to be tracked.

    One such object among hundreds of videos (some of YouTube-VOS begin with a few pixels) must not stop the benchmark;
    its score shows that it was lost.
    """
    check_masks(image, masks)  # below, only their size can be refused
    try:
        return method.start(image, masks)
    except HodorError as error:
        print(f"{video.label_path(frame)}: {error}; it is lost from here on", file=sys.stderr, flush=True)
        return None
