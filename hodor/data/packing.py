"""The verb `pack`: write a split of a prepared data set as a pack (`hodor.data.packs` describes and reads it).

Decoding a JPEG takes longer than reading its pixels, and a hundred thousand small files are slow on many file systems.
Images are stored at the size that training needs (`hodor.config.stages`): reduced by area averaging, their masks to the
nearest pixel.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from hodor.config.stages import PackId, Rule, stored_size
from hodor.data.packs import INDEX, VIDEOS, Place, shard_file
from hodor.data.progress import Progress, in_processes, put_in_place, require_room
from hodor.data.readers import StillImage, is_video, load_images, load_videos
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

SHARD_BYTES = 1 << 30
"""Greatest size of a shard, unless a single record is larger."""

_CHUNK = 8  # frames that one task of a process decodes
_NO_RECORD: Place = (0, 0, 0, 0)


def pack(stamp: dict, data: Path, out: Path, manifest: Path, jobs: int = 1, shard_bytes: int = SHARD_BYTES) -> None:
    """Pack one split of a prepared data set and write the manifest of the pack.

    Args:
        stamp: `settings` holds `dataset`, `split` and `rule` (`hodor.config.stages.Rule`).
        data: folder of the data sets.
        out: folder of the pack, replaced when the new one is complete.
        manifest: JSON file, written last: `stamp`, `dataset`, `split`, `rule`, `counts`, and `files`, the size and
            sha256 of each file. The same data give the same bytes for any number of `jobs` (processes).
        shard_bytes: greatest size of a shard.

    Raises:
        HodorError: a file of the data set is missing or damaged, or the disk has no room.
    """
    out, manifest = Path(out), Path(manifest)
    id = PackId(*(stamp["settings"][key] for key in ("dataset", "split", "rule")))
    manifest.unlink(missing_ok=True)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    writer = ShardWriter(part, shard_bytes)
    try:
        counts = (_pack_videos if is_video(id.dataset) else _pack_images)(Path(data), id, writer, jobs)
        writer.close()
    except OSError as error:
        raise HodorError(f"{part}: cannot be written ({error.strerror}); make room or repair the disk") from error
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(part.iterdir())}
    put_in_place(part, out)
    content = {"stamp": stamp["sha256"], "dataset": id.dataset, "split": id.split, "rule": id.rule}
    write_json_atomic(manifest, content | {"counts": counts, "files": files})


class ShardWriter:
    """Appends records to the shards of a folder, which must hold none yet."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self._number, self._offset = -1, 0
        self._file: BinaryIO | None = None

    def add(self, record: bytes | np.ndarray) -> Place:
        """Write one record; return its place. OSError where the disk is full."""
        view = memoryview(record).cast("B")
        if self._file is None or (self._offset and self._offset + len(view) > self.limit):
            self.close()
            self._number, self._offset = self._number + 1, 0
            self._file = open(shard_file(self.folder, self._number), "xb")
        place = (self._number, self._offset, len(view), zlib.crc32(view))
        self._file.write(view)
        self._offset += len(view)
        return place

    def close(self) -> None:
        """Write what is buffered to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _pack_images(data: Path, id: PackId, writer: ShardWriter, jobs: int) -> dict[str, int]:
    root = data / id.dataset
    images = load_images(root, id.dataset, id.split)
    sizes = [(image.height, image.width) for image in images]
    chunks = [(images[i : i + _CHUNK], id.rule) for i in range(0, len(images), _CHUNK)]
    index: dict[str, list] = {key: [] for key in ("stored", "pixels", "void", "masks", "area", "bbox", "crowd")}
    first = [0]
    for pixels, void, masks, area, bbox, crowd in _encoded(encode_images, chunks, sizes, id, writer.folder, jobs):
        index["stored"].append(pixels.shape[:2])
        index["pixels"].append(writer.add(pixels))
        index["void"].append(writer.add(void) if void else _NO_RECORD)
        index["masks"] += [writer.add(mask) for mask in masks]
        for key, values in (("area", area), ("bbox", bbox), ("crowd", crowd)):
            index[key] += values
        first.append(len(index["masks"]))
    np.savez(
        writer.folder / INDEX,
        names=np.array([image.path.relative_to(root).as_posix() for image in images], str),
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


def _pack_videos(data: Path, id: PackId, writer: ShardWriter, jobs: int) -> dict[str, int]:
    videos = load_videos(data, id.dataset, id.split)
    sizes = [(video.height, video.width) for video in videos for _ in video.frames]
    chunks = [
        (video, video.frames[i : i + _CHUNK], id.rule) for video in videos for i in range(0, len(video.frames), _CHUNK)
    ]
    frames, masks, entries = [], [], []
    for pixels, mask in _encoded(encode_frames, chunks, sizes, id, writer.folder, jobs):
        frames.append(writer.add(pixels))
        if mask is not None:
            masks.append(writer.add(mask))
    counts = {"videos": len(videos), "frames": 0, "masks": 0}
    for video in videos:
        entry = {key: getattr(video, key) for key in ("name", "height", "width")}
        entry |= {"stored": stored_size((video.height, video.width), id.rule)}
        entry |= {"first_frame": counts["frames"], "first_mask": counts["masks"]}
        entry |= {"first_seen": {str(key): frame for key, frame in video.first_seen.items()}}
        entries.append(entry | {"frames": video.frames, "labelled": video.labelled})
        counts["frames"] += len(video.frames)
        counts["masks"] += len(video.labelled)
    (writer.folder / VIDEOS).write_text(json.dumps({"videos": entries}) + "\n", encoding="utf-8")
    np.savez(writer.folder / INDEX, frames=_places(frames), masks=_places(masks))
    return counts


def encode_images(images: Iterable[StillImage], rule: Rule) -> list[tuple]:
    """Decode images at the stored size: pixels, run lengths of void and of all masks, areas, boxes, crowd flags of each."""
    out = []
    for image in images:
        size = (image.height, image.width)
        target = stored_size(size, rule)
        objects, void = list(image.objects), image.void()
        masks = [_run_lengths(item.mask(*size), target) for item in objects]
        kinds = [item.area for item in objects], [item.bbox for item in objects], [item.crowd for item in objects]
        out.append((shrunk(image.read(), target), b"" if void is None else _run_lengths(void, target), masks, *kinds))
    return out


def encode_frames(video: Video, frames: Iterable[str], rule: Rule) -> list[tuple[np.ndarray, bytes | None]]:
    """Decode frames of a video at the stored size; with the mask of each that has one, compressed."""
    target, labelled = stored_size((video.height, video.width), rule), set(video.labelled)
    out = []
    for frame in frames:
        mask = zlib.compress(_nearest(video.labels(frame), target).tobytes(), 1) if frame in labelled else None
        out.append((shrunk(video.frame(frame), target), mask))
    return out


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return uint8 (h, w, 3) of the size given, by area averaging."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # Exact: centres fall on centres, where plain nearest takes the upper left of the pixels in question.
    return cv2.resize(labels.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def _run_lengths(mask: np.ndarray, size: tuple[int, int]) -> bytes:
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(_nearest(mask, size)))["counts"]


def _places(places: list[Place]) -> np.ndarray:
    return np.array(places, np.int64).reshape(-1, 4)


def _encoded(
    encode: Callable[..., list[tuple]],
    chunks: list[tuple],
    sizes: list[tuple[int, int]],
    id: PackId,
    part: Path,
    jobs: int,
) -> Iterator[tuple[Any, ...]]:
    """Yield what `encode` returns for the chunks, item by item, with progress; HodorError where the disk has no room."""
    needed = sum(3 * height * width for height, width in (stored_size(size, id.rule) for size in sizes))
    # Masks add a few percent to the pixels.
    fix = "make room, or train without it (`packed: null` in the stage)"
    require_room(part, 1.05 * needed, f"pack {id.name}", fix)
    progress = Progress(f"{id.name}: packed", needed)
    for items in in_processes(encode, chunks, jobs):
        for item in items:
            yield item
            progress.add(item[0].nbytes)
    progress.close()
