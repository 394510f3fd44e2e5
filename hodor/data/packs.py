"""Packs: a split of a prepared data set as few files of decoded pixels, written by `hodor.data.packing`.

A pack is a folder of shards, `shard-00000.bin`, ..., which hold records one after the other, and of
`index.npz` with the place of each record, (shard, offset, length, CRC-32):

    images: names (n,) text   sizes (n, 2) of the original   stored (n, 2) of the pixels   pixels (n, 4) uint8 RGB
            void (n, 4) COCO run lengths; length 0 where there are no void pixels
            first (n + 1,): objects first[i] to first[i + 1] belong to image i
            area (m,) bbox (m, 4) crowd (m,) of each object, in pixels of the original   masks (m, 4) run lengths
    videos: frames (n, 4) uint8 RGB   masks (m, 4) zlib; `videos.json` describes the videos

Records are read with one system call each (`pread`), not mapped: a process holds one record at a time, and worker
processes may share the open files. Random reads are slow on the shared disk of a cluster: if HODOR_SCRATCH (the setting
`scratch`) names a folder, packs are copied to this local disk first.
"""

import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hodor.config.stages import PackId, Source, StageOptions, size_rule
from hodor.data.progress import Progress, file_blocks, format_bytes, locked, write_blocks
from hodor.data.readers import StillImage, is_video, load_images, load_videos
from hodor.data.video import Video
from hodor.errors import PLACE_ERRORS, HodorError
from hodor.provenance import read_json, sha256_file

INDEX, VIDEOS = "index.npz", "videos.json"
SCRATCH = "hodor-packs"  # folder of copied packs on a local disk

Place = tuple[int, int, int, int]  # shard, offset and length in bytes, CRC-32 of a record


def training_data(data: Path, source: Source, stage: StageOptions) -> "Sequence[StillImage | Video | PackedVideo]":
    """Open the images or videos that a stage reads, of the pack if `packed` is set; HodorError as their reader."""
    videos = is_video(source.dataset)
    if stage.packed is not None:
        pack = open_pack(data, PackId(source.dataset, source.split, size_rule(stage)))
        return pack.videos() if videos else pack.images()
    load, folder = (load_videos, data) if videos else (load_images, data / source.dataset)
    return load(folder, source.dataset, source.split)


def open_pack(data: Path, id: PackId) -> "Pack":
    """Open a pack below `data`, or its copy on the disk that HODOR_SCRATCH names; HodorError if a file is missing."""
    folder, manifest = data / "packed" / id.name, data / "packed" / f"{id.name}.json"
    for name, entry in read_json(manifest)["files"].items():
        if not _has_size(folder / name, entry["size"]):
            raise HodorError(f"{folder / name}: missing, or its size differs from {manifest}; {_again(manifest)}")
    scratch = os.environ.get("HODOR_SCRATCH")
    return Pack(copied(folder, manifest, scratch) if scratch else folder)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _again(manifest: Path) -> str:
    return f"pack the data set again with: snakemake --cores all --force -- {manifest}"


def shard_file(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{number:05d}.bin"


class Pack:
    """An open pack: its index in memory, its shards on the disk; unpickled in another process, it opens them again."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._open: dict[int, BinaryIO] = {}

    @cached_property
    def index(self) -> dict[str, np.ndarray]:
        """Arrays of the index; HodorError if it is missing or broken."""
        path = self.folder / INDEX
        try:
            with np.load(path, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except FileNotFoundError:
            raise HodorError(f"{path}: no such file; pack the data set again") from None
        except Exception as error:  # the type depends on the damage
            raise HodorError(f"{path}: damaged index ({error}); pack the data set again") from error

    def record(self, place: np.ndarray | Place) -> np.ndarray:
        """Return the bytes of a record, uint8 (length,), owned by the caller; HodorError if missing or damaged."""
        shard, offset, length, crc = (int(value) for value in place)
        record, path = np.empty(length, np.uint8), shard_file(self.folder, shard)
        try:
            if shard not in self._open:
                self._open[shard] = open(path, "rb", buffering=0)
            if os.preadv(self._open[shard].fileno(), [record], offset) < length:
                raise HodorError(f"{path}: ends before byte {offset + length}; pack the data set again")
        except OSError as error:
            raise HodorError(f"{path}: cannot be read ({error.strerror}); pack the data set again") from error
        if zlib.crc32(record) != crc:
            raise HodorError(f"{path}: damaged at byte {offset} (wrong checksum); pack the data set again")
        return record

    def run_lengths(self, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the mask, bool (h, w), of a record of COCO run lengths."""
        from pycocotools import mask as coco_mask

        return coco_mask.decode({"size": list(size), "counts": self.record(place).tobytes()}).astype(bool)

    def images(self) -> list["PackedImage"]:
        """Return all images, in the order of the data set's reader."""
        pairs = zip(self.index["sizes"].tolist(), self.index["stored"].tolist(), strict=True)
        return [PackedImage(self, number, *size, tuple(stored)) for number, (size, stored) in enumerate(pairs)]

    def videos(self) -> list["PackedVideo"]:
        """Return all videos, in the order of the data set's reader."""
        path = self.folder / VIDEOS
        try:
            found = []
            for entry in read_json(path)["videos"]:
                values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
                values["first_seen"] = {int(id): frame for id, frame in entry["first_seen"].items()}
                found.append(PackedVideo(self, **values))
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HodorError(f"{path}: incomplete ({error!r}); pack the data set again") from error

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "_open": {}}


@dataclass(frozen=True, slots=True)
class PackedObject:
    """One object; `area` and `bbox` (x, y, width, height) in pixels of the original image."""

    pack: Pack
    number: int
    size: tuple[int, int]

    @property
    def area(self) -> float:
        return float(self.pack.index["area"][self.number])

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        return tuple(self.pack.index["bbox"][self.number].tolist())

    @property
    def crowd(self) -> bool:
        return bool(self.pack.index["crowd"][self.number])

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return bool (H, W); the size must be the stored one."""
        return self.pack.run_lengths(self.pack.index["masks"][self.number], self.size)


@dataclass(frozen=True, slots=True)
class PackedImage:
    """One image of `height` x `width` pixels, whose pixels and masks may be `stored` smaller."""

    pack: Pack
    number: int
    height: int
    width: int
    stored: tuple[int, int]

    @property
    def path(self) -> Path:
        """The image's file in the data set."""
        return Path(str(self.pack.index["names"][self.number]))

    @property
    def objects(self) -> tuple[PackedObject, ...]:
        first, last = self.pack.index["first"][self.number : self.number + 2]
        return tuple(PackedObject(self.pack, number, self.stored) for number in range(first, last))

    def read(self) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB at the stored size; HodorError if the shard is damaged."""
        return self.pack.record(self.pack.index["pixels"][self.number]).reshape(*self.stored, 3)

    def void(self) -> np.ndarray | None:
        """Return the void pixels at the stored size, bool (h, w), or None where there are none."""
        place = self.pack.index["void"][self.number]
        return self.pack.run_lengths(place, self.stored) if place[2] else None


@dataclass(frozen=True)
class PackedVideo:
    """The part of a `Video` that clips use; frames and masks may be `stored` smaller than `height` x `width`."""

    pack: Pack
    name: str
    height: int
    width: int
    stored: tuple[int, int]
    first_frame: int
    first_mask: int
    first_seen: dict[int, str]
    frames: tuple[str, ...]
    labelled: tuple[str, ...]

    def frame(self, frame: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB at the stored size; HodorError if the shard is damaged."""
        place = self.pack.index["frames"][self.first_frame + self.frames.index(frame)]
        return self.pack.record(place).reshape(*self.stored, 3)

    def labels(self, frame: str) -> np.ndarray:
        """Return uint8 (h, w) object ids at the stored size, 0 background, 255 void."""
        place = self.pack.index["masks"][self.first_mask + self.labelled.index(frame)]
        plain = zlib.decompress(self.pack.record(place).tobytes())
        return np.frombuffer(bytearray(plain), np.uint8).reshape(self.stored)  # writable


def copied(pack: Path, manifest: Path, scratch: str) -> Path:
    """Copy a pack to a local disk and return the copy, which jobs on one machine share; without room the pack itself.

    `scratch`: folder, made where absent; environment variables in it (`$SLURM_TMPDIR`) are expanded. HodorError if it
    cannot be used, or if the pack differs from its manifest.
    """
    folder = Path(os.path.expandvars(scratch))
    if "$" in str(folder):
        raise HodorError(f"scratch: '{scratch}' holds a variable that is not set on this machine; set it")
    target = folder.absolute() / SCRATCH / sha256_file(manifest)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / ".lock"):
            fault = _copy(pack, manifest, target)
    except OSError as error:
        where = error.filename or folder
        raise HodorError(f"scratch: {where}: {error.strerror}; name another folder, or none (scratch=null)") from error
    if fault:
        print(f"scratch: {folder}: {fault}; it is read from {pack}", file=sys.stderr, flush=True)
    return pack if fault else target


def _copy(pack: Path, manifest: Path, target: Path) -> str | None:
    """Copy a pack unless a complete copy exists; if the disk has no room, leave nothing and return what is wrong."""
    files = read_json(manifest)["files"]
    if all(_has_size(target / name, entry["size"]) for name, entry in files.items()):
        return None
    total, free = sum(entry["size"] for entry in files.values()), shutil.disk_usage(target.parent).free
    if total > free:
        return f"{format_bytes(free)} are free, {pack.name} takes {format_bytes(total)}"
    part = target.with_name(target.name + ".part")
    for left in (part, target):
        shutil.rmtree(left, ignore_errors=True)
    progress = Progress(f"scratch/{pack.name}", total)
    try:
        for name, entry in files.items():
            if write_blocks(file_blocks(pack / name), part / name, progress) != entry["sha256"]:
                raise HodorError(f"{pack / name}: differs from {manifest}; {_again(manifest)}")
        part.rename(target)
    except OSError as error:
        if error.errno not in PLACE_ERRORS[:2]:
            raise
        return str(error.strerror)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    progress.close()
    return None
