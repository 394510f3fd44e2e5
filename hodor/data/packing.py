"""The verb `pack`: write a split of a prepared data set as a pack (`hodor.data.packs` describes and reads it).

Decoding a JPEG takes longer than reading its pixels, and a hundred thousand small files are slow on many file systems.
Images are stored at the size that training needs (`hodor.config.stages`), reduced by area averaging, masks by nearest.
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
from hodor.data.transforms import Size
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

SHARD_BYTES = 1 << 30  # greatest size of a shard, unless one record is larger
_CHUNK = 8  # images or frames per task of a process


def pack(stamp: dict, data: Path, out: Path, manifest: Path, jobs: int = 1) -> None:
    """Pack one split of a prepared data set and write the manifest of the pack.

    Args:
        stamp: `settings` holds `dataset`, `split` and `rule` (`hodor.config.stages.Rule`).
        data: folder of the data sets.
        out: folder of the pack, replaced when the new one is complete.
        manifest: JSON file, written last: `stamp`, `dataset`, `split`, `rule`, `counts`, and `files`, the size and
            sha256 of each file. The same data give the same bytes for any number of `jobs` (processes).

    Raises:
        HodorError: a file of the data set is missing or damaged, or the disk has no room.
    """
    out, manifest = Path(out), Path(manifest)
    id = PackId(*(stamp["settings"][key] for key in ("dataset", "split", "rule")))
    manifest.unlink(missing_ok=True)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    writer = ShardWriter(part)
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
    """Writer of records to the shards of a folder without shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number, self._offset = -1, 0
        self._file: BinaryIO | None = None

    def add(self, record: bytes | np.ndarray) -> Place:
        """Write one record; return its place. OSError if the disk is full."""
        view = memoryview(record).cast("B")
        if self._file is None or (self._offset and self._offset + len(view) > SHARD_BYTES):
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
    stored, shown, hidden, objects, first = [], [], [], [], [0]
    for pixels, void, items in _encoded(encode_images, chunks, sizes, id, writer.folder, jobs):
        stored.append(pixels.shape[:2])
        shown.append(writer.add(pixels))
        hidden.append(writer.add(void) if void else (0, 0, 0, 0))
        objects += [(writer.add(run_lengths), *values) for run_lengths, *values in items]
        first.append(len(objects))
    np.savez(
        writer.folder / INDEX,
        names=np.array([image.path.relative_to(root).as_posix() for image in images], str),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        stored=np.array(stored, np.int32).reshape(-1, 2),
        pixels=_places(shown),
        void=_places(hidden),
        first=np.array(first, np.int64),
        area=np.array([area for _, area, _, _ in objects], np.float64),
        bbox=np.array([box for _, _, box, _ in objects], np.float64).reshape(-1, 4),
        crowd=np.array([crowd for _, _, _, crowd in objects], bool),
        masks=_places([place for place, _, _, _ in objects]),
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


def encode_images(images: Iterable[StillImage], rule: Rule) -> list[tuple[np.ndarray, bytes, list[tuple]]]:
    """Decode images at the stored size; return pixels, run lengths of void and the objects of each.

    An object: run lengths of its mask, and area, box and crowd flag as in `StillObject`.
    """
    out = []
    for image in images:
        size, void = (image.height, image.width), image.void()
        target = stored_size(size, rule)
        items = [(_run_lengths(o.mask(*size), target), o.area, o.bbox, o.crowd) for o in image.objects]
        out.append((shrunk(image.read(), target), b"" if void is None else _run_lengths(void, target), items))
    return out


def encode_frames(video: Video, frames: Iterable[str], rule: Rule) -> list[tuple[np.ndarray, bytes | None]]:
    """Decode frames of a video at the stored size; return the pixels and the compressed mask, if any, of each."""
    target, labelled = stored_size((video.height, video.width), rule), set(video.labelled)
    out = []
    for frame in frames:
        mask = zlib.compress(_nearest(video.labels(frame), target).tobytes(), 1) if frame in labelled else None
        out.append((shrunk(video.frame(frame), target), mask))
    return out


def shrunk(image: np.ndarray, size: Size) -> np.ndarray:
    """Return uint8 (h, w, 3) of the size given, by area averaging."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _nearest(labels: np.ndarray, size: Size) -> np.ndarray:
    # Exact: from centre to centre, where plain nearest selects the upper left one of equally near pixels.
    return cv2.resize(labels.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def _run_lengths(mask: np.ndarray, size: Size) -> bytes:
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(_nearest(mask, size)))["counts"]


def _places(places: list[Place]) -> np.ndarray:
    return np.array(places, np.int64).reshape(-1, 4)


def _encoded(
    encode: Callable[..., list[tuple]], chunks: list[tuple], sizes: list[Size], id: PackId, part: Path, jobs: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the results of `encode` item by item, with progress; HodorError if the disk has no room."""
    needed = sum(3 * height * width for height, width in (stored_size(size, id.rule) for size in sizes))
    fix = "make room, or train without it (`packed: null` in the stage)"
    require_room(part, 1.05 * needed, f"pack {id.name}", fix)  # masks add a few percent to the pixels
    progress = Progress(f"{id.name}: packed", needed)
    for items in in_processes(encode, chunks, jobs):
        for item in items:
            yield item
            progress.add(item[0].nbytes)
    progress.close()
