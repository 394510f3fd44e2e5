"""Segment the videos of a benchmark with a trained row, one video after another."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hodor.data.images import write_labels
from hodor.data.video import Video
from hodor.data.videos import load_videos
from hodor.device import mixed, prepare_device
from hodor.errors import HodorError
from hodor.inference.options import InferenceOptions
from hodor.models.base import Frame, Method, check_masks, load_model
from hodor.provenance import commit, machine, peak_memory_mib, sha256_file, versions, write_json_atomic


def segment(stamp: dict[str, Any], weights: Path, data: Path, out: Path) -> None:
    """Write palette masks of every frame of a benchmark, their checksums and what it cost.

    Args:
        stamp: the step's settings (`read_stamp`): benchmark, inference, device, threads, precision.
        weights: model.safetensors of a run.
        data: folder of the prepared data sets of the scale.
        out: gets masks/<video>/<frame>.png, masks.json and segment.json.
    """
    settings = stamp["settings"]
    benchmark = settings["benchmark"]
    device = prepare_device(settings["device"], settings["threads"], settings["precision"])
    _, method = load_model(weights, InferenceOptions(**settings["inference"]))
    method.to(device)
    videos = load_videos(data, benchmark["dataset"], benchmark["split"])
    masks = out / "masks"
    shutil.rmtree(masks, ignore_errors=True)  # a killed run's
    checksums: dict[str, str] = {}
    frames, seconds = 0, 0.0
    for number, video in enumerate(videos, 1):
        folder = masks / video.name
        folder.mkdir(parents=True)
        started = time.monotonic()
        writing = 0.0
        with mixed(device, settings["precision"]):
            for frame, labels in segment_video(method, video):
                before = time.monotonic()
                path = folder / f"{frame}.png"
                write_labels(path, labels)
                checksums[f"{video.name}/{frame}.png"] = sha256_file(path)
                writing += time.monotonic() - before
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
            # Reading frames is in it, writing masks is not.
            "time_s": round(seconds, 3),
            "fps": round(frames / seconds, 3),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        },
    )


def segment_video(method: Method, video: Video) -> Iterator[tuple[str, np.ndarray]]:
    """Segment one video: yields (frame, labels) in order, labels uint8 (H, W) with the video's object ids.

    Frames before the first object are all background; on the frame where an object is first given its mask is taken as
    given. An object that is too small for the network is on that frame alone. Only `feature_batch` frames and their features are held at a time.

    Raises:
        HodorError: a video without any object.
    """
    given: dict[str, dict[int, np.ndarray]] = {}
    for object_id, frame in video.first_seen.items():
        truth = video.labels(frame)
        given.setdefault(frame, {})[object_id] = truth == object_id
    if not given:
        raise HodorError(f"{video.label_folder}: no mask holds an object, nothing to follow in video {video.name!r}")
    state = None
    batch = method.inference.feature_batch
    for first in range(0, len(video.frames), batch):
        names = video.frames[first : first + batch]
        images = [video.frame(name) for name in names]
        features = method.features(images)
        for name, image, feature in zip(names, images, features, strict=True):
            new = given.get(name)
            if state is None:
                labels = np.zeros(image.shape[:2], np.uint8)
                if new is not None:
                    state = _start(method, video, name, image, new)
            else:
                probabilities = method.step(state, image, new, feature)
                ids = np.array([0, *state.ids], np.uint8)
                labels = ids[probabilities.argmax(0).cpu().numpy()]
            for object_id, mask in (new or {}).items():
                labels[mask] = object_id
            yield name, labels


def _start(method: Method, video: Video, frame: str, image: Frame, masks: dict[int, np.ndarray]) -> Any:
    """State of a video, or None where none of its first objects is large enough to be followed.

    One such object among hundreds of videos (those of YouTube-VOS begin with a few pixels now and then) must not cost the
    benchmark its other masks: its own score says what became of it.
    """
    check_masks(image, masks)  # so that nothing but their extent can be refused below
    try:
        return method.start(image, masks)
    except HodorError as error:
        print(f"{video.label_path(frame)}: {error}; it is lost from here on", file=sys.stderr, flush=True)
        return None
