"""The verb `pack`: a split of a prepared data set becomes few files of decoded pixels, for fast training.

Decoding a JPEG takes longer than reading its pixels, and a hundred thousand small files are slow on many file systems.
A pack stores pictures as training needs them (`hodor.config.packs`), masks without loss, in shards of a bounded
size; `hodor.data.packs` opens it. Pictures that are stored smaller are reduced by area averaging, their masks to the
nearest pixel.
"""

import json
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from hodor.config.packs import PackId, Rule, stored_size
from hodor.data.image_sets import StillImage, load_images
from hodor.data.packed_images import INDEX
from hodor.data.packed_videos import VIDEOS
from hodor.data.progress import Progress, format_bytes
from hodor.data.shards import SHARD_BYTES, ShardWriter
from hodor.data.video import Video
from hodor.data.videos import is_video, load_videos
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

# Pictures that one task of a process decodes, and tasks that wait for each process: what bounds the memory.
_CHUNK, _WAITING = 8, 2
_NONE = (0, 0, 0, 0)


class PackedPicture(NamedTuple):
    """A picture as it is stored: pixels uint8 (h, w, 3), run lengths of its objects and of its void pixels."""

    pixels: np.ndarray
    masks: list[bytes]
    void: bytes
    area: list[float]
    bbox: list[tuple[float, float, float, float]]
    crowd: list[bool]


def pack(stamp: dict, data: Path, out: Path, manifest: Path, jobs: int = 1, shard_bytes: int = SHARD_BYTES) -> None:
    """Packs one split of a prepared data set to `out` and writes its manifest.

    Args:
        stamp: `settings` holds `dataset`, `split` and `rule` (`hodor.config.packs.Rule`).
        data: folder of the data sets.
        out: folder of the pack, replaced when the new one is whole.
        manifest: JSON file, written last: `stamp`, `dataset`, `split`, `rule`, `counts`, and `files`, the size and
            sha256 of each file. The same data give the same bytes for any number of `jobs` (processes).
        shard_bytes: largest size of a shard.

    Raises:
        HodorError: a file of the data set is missing or damaged, or the disk has no room.
    """
    settings, out, manifest = stamp["settings"], Path(out), Path(manifest)
    id = PackId(settings["dataset"], settings["split"], settings["rule"])
    manifest.unlink(missing_ok=True)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    writer = ShardWriter(part, shard_bytes)
    try:
        if is_video(id.dataset):
            counts = _pack_videos(load_videos(Path(data), id.dataset, id.split), id, part, writer, jobs)
        else:
            images = load_images(Path(data) / id.dataset, id.dataset, id.split)
            counts = _pack_images(images, id, Path(data) / id.dataset, part, writer, jobs)
        writer.close()
    except OSError as error:
        raise HodorError(f"{part}: cannot be written ({error.strerror}); make room or mend the disk") from error
    except BrokenProcessPool as error:
        raise HodorError("a packing process was killed (out of memory?); give it fewer --jobs") from error
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(part.iterdir())}
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    content = {"stamp": stamp["sha256"], "dataset": id.dataset, "split": id.split, "rule": id.rule}
    write_json_atomic(manifest, content | {"counts": counts, "files": files})


def _pack_images(
    images: list[StillImage], id: PackId, root: Path, part: Path, writer: ShardWriter, jobs: int
) -> dict[str, int]:
    sizes = [(image.height, image.width) for image in images]
    needed = _require_room(sizes, id.rule, part)
    progress = Progress(f"{id.name}: packed", needed)
    chunks = [images[first : first + _CHUNK] for first in range(0, len(images), _CHUNK)]
    tasks = (partial(encode_images, chunk, id.rule) for chunk in chunks)
    index: dict[str, list] = {key: [] for key in ("stored", "pixels", "void", "area", "bbox", "crowd", "masks")}
    first = [0]
    for packed in _in_order(tasks, jobs):
        for picture in packed:
            index["stored"].append(picture.pixels.shape[:2])
            index["pixels"].append(writer.add(picture.pixels))
            index["void"].append(writer.add(picture.void) if picture.void else _NONE)
            index["masks"] += [writer.add(mask) for mask in picture.masks]
            for key in ("area", "bbox", "crowd"):
                index[key] += getattr(picture, key)
            first.append(len(index["masks"]))
            progress.add(picture.pixels.nbytes)
    progress.close()
    names = [image.path.relative_to(root).as_posix() for image in images]
    np.savez(
        part / INDEX,
        names=np.array(names, str),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        stored=np.array(index["stored"], np.int32).reshape(-1, 2),
        pixels=_places(index["pixels"]),
        void=_places(index["void"]),
        first=np.array(first, np.int64),
        area=np.array(index["area"], np.float64),
        bbox=np.array(index["bbox"], np.float64).reshape(-1, 4),
        crowd=np.array(index["crowd"], bool),
        masks=_places(index["masks"]),
    )
    return {"images": len(images), "objects": first[-1]}


def _pack_videos(videos: list[Video], id: PackId, part: Path, writer: ShardWriter, jobs: int) -> dict[str, int]:
    sizes = [(video.height, video.width) for video in videos for _ in video.frames]
    progress = Progress(f"{id.name}: packed", _require_room(sizes, id.rule, part))
    tasks = (
        partial(encode_frames, video, video.frames[first : first + _CHUNK], id.rule)
        for video in videos
        for first in range(0, len(video.frames), _CHUNK)
    )
    frames, masks = [], []
    for chunk in _in_order(tasks, jobs):
        for pixels, mask in chunk:
            frames.append(writer.add(pixels))
            if mask is not None:
                masks.append(writer.add(mask))
            progress.add(pixels.nbytes)
    progress.close()
    entries, first_frame, first_mask = [], 0, 0
    for video in videos:
        entries.append(
            {
                "name": video.name,
                "height": video.height,
                "width": video.width,
                "stored": stored_size((video.height, video.width), id.rule),
                "first_frame": first_frame,
                "first_mask": first_mask,
                "first_seen": {str(key): frame for key, frame in video.first_seen.items()},
                "frames": video.frames,
                "labelled": video.labelled,
            }
        )
        first_frame, first_mask = first_frame + len(video.frames), first_mask + len(video.labelled)
    (part / VIDEOS).write_text(json.dumps({"videos": entries}) + "\n", encoding="utf-8")
    np.savez(part / INDEX, frames=_places(frames), masks=_places(masks))
    return {"videos": len(videos), "frames": first_frame, "masks": first_mask}


def encode_images(images: Iterable[StillImage], rule: Rule) -> list[PackedPicture]:
    """Decodes images and their masks, at the stored size."""
    out = []
    for image in images:
        size = (image.height, image.width)
        target = stored_size(size, rule)
        objects, void = list(image.objects), image.void()
        masks = [_run_lengths(_nearest(item.mask(*size), target)) for item in objects]
        pixels = shrunk(image.read(), target)
        left_open = b"" if void is None else _run_lengths(_nearest(void, target))
        kinds = [item.area for item in objects], [item.bbox for item in objects], [item.crowd for item in objects]
        out.append(PackedPicture(pixels, masks, left_open, *kinds))
    return out


def encode_frames(video: Video, frames: Iterable[str], rule: Rule) -> list[tuple[np.ndarray, bytes | None]]:
    """Decodes frames of a video at the stored size; with the mask of each that has one, compressed."""
    target, labelled, out = stored_size((video.height, video.width), rule), set(video.labelled), []
    for frame in frames:
        mask = None
        if frame in labelled:
            mask = zlib.compress(_nearest(video.labels(frame), target).tobytes(), 1)
        out.append((shrunk(video.frame(frame), target), mask))
    return out


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (h, w, 3) of the size given, by area averaging; the image itself where it has that size."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if labels.shape == tuple(size):
        return labels.astype(np.uint8)
    # Exact: centres fall on centres, where plain nearest takes the upper left of the pixels in question.
    return cv2.resize(labels.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def _run_lengths(mask: np.ndarray) -> bytes:
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(mask))["counts"]


def _places(places: list) -> np.ndarray:
    return np.array(places, np.int64).reshape(-1, 4)


def _require_room(sizes: list[tuple[int, int]], rule: Rule, part: Path) -> int:
    """Bytes of all pictures; HodorError where they do not fit on the disk (masks add a few percent)."""
    needed = sum(3 * height * width for height, width in (stored_size(size, rule) for size in sizes))
    free = shutil.disk_usage(part).free
    if 1.05 * needed > free:
        raise HodorError(
            f"{part.parent}: {format_bytes(free)} are free, {format_bytes(1.05 * needed)} are needed for the pack; make "
            "room, or train without it (`packed: null` in the stage)"
        )
    return needed


def _in_order(tasks: Iterable[Callable[[], Any]], jobs: int) -> Iterator[Any]:
    """Results in the order of the tasks, few of which are under way at a time, so that memory stays bounded."""
    if jobs < 2:
        yield from (task() for task in tasks)
        return
    pool: Executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > jobs * _WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
