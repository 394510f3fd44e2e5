"""Packs: a split of a prepared data set as few files of decoded pixels, for fast training; `hodor.data.packing` writes them.

A pack is a folder of shards, `shard-00000.bin`, ..., which hold records one after the other, and of
`index.npz` with the place of each record, (shard, offset, length, CRC-32):

    images: names (n,) text   sizes (n, 2) of the original   stored (n, 2) of the pixels   pixels (n, 4) uint8 RGB
            void (n, 4) COCO run lengths; length 0 where there are no void pixels
            first (n + 1,): objects first[i] to first[i + 1] belong to image i
            area (m,) bbox (m, 4) crowd (m,) of each object, in pixels of the original   masks (m, 4) run lengths
    videos: frames (n, 4) uint8 RGB   masks (m, 4) zlib; `videos.json` describes the videos

Records are read with one system call each (`pread`), not mapped: a process holds one record at a time, and worker
processes may share the open files.
"""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hodor.config.stages import PackId, Source, StageOptions, size_rule
from hodor.data.readers import StillImage, load_images, load_videos
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.provenance import read_json

INDEX, VIDEOS = "index.npz", "videos.json"

Place = tuple[int, int, int, int]
"""Shard, offset and length in bytes, CRC-32 of a record."""


def training_images(data: Path, source: Source, stage: StageOptions) -> Sequence[StillImage]:
    """Open the images that a stage reads: of its pack where it says `packed`, else of the data set's own files.

    Raises:
        HodorError: as the reader of the data set, or a pack that is missing or incomplete.
    """
    if stage.packed is None:
        return load_images(data / source.dataset, source.dataset, source.split)
    return ImagePack(open_pack(data, PackId(source.dataset, source.split, size_rule(stage)))).images()


def training_videos(data: Path, source: Source, stage: StageOptions) -> Sequence["Video | PackedVideo"]:
    """Open the videos that a stage reads, as `training_images` does."""
    if stage.packed is None:
        return load_videos(data, source.dataset, source.split)
    return VideoPack(open_pack(data, PackId(source.dataset, source.split, size_rule(stage)))).videos()


def open_pack(data: Path, id: PackId) -> Path:
    """Return the folder of a pack below `data`; HodorError if a file is missing or its size differs from the manifest."""
    folder, manifest = data / "packed" / id.name, data / "packed" / f"{id.name}.json"
    for name, entry in read_json(manifest)["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["size"]:
            raise HodorError(
                f"{path}: missing, or its size differs from {manifest}; pack the data set again with: "
                f"snakemake --cores all --force -- {manifest}"
            )
    return folder


def shard_file(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{number:05d}.bin"


class Pack:
    """An open pack: its index in memory, its shards on the disk. Processes that it is pickled to open it anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._open: dict[int, int] = {}

    @cached_property
    def index(self) -> dict[str, np.ndarray]:
        """Return the arrays of the index; HodorError if it is missing or broken."""
        path = self.folder / INDEX
        try:
            with np.load(path, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except FileNotFoundError:
            raise HodorError(f"{path}: no such file; pack the data set again") from None
        except Exception as error:  # a reader answers a damaged file with any exception
            raise HodorError(f"{path}: damaged index ({error}); pack the data set again") from error

    def record(self, place: np.ndarray | Place) -> np.ndarray:
        """Return the bytes of a record, uint8 (length,), owned by the caller.

        Raises:
            HodorError: the shard is missing or shorter, or the record is not what was written.
        """
        shard, offset, length, crc = (int(value) for value in place)
        record, got, path = np.empty(length, np.uint8), 0, shard_file(self.folder, shard)
        view = memoryview(record)
        try:
            if shard not in self._open:
                self._open[shard] = os.open(path, os.O_RDONLY)
            while got < length:
                count = os.preadv(self._open[shard], [view[got:]], offset + got)
                if count == 0:
                    raise HodorError(f"{path}: ends before byte {offset + length}; pack the data set again")
                got += count
        except OSError as error:
            raise HodorError(f"{path}: cannot be read ({error.strerror}); pack the data set again") from error
        if zlib.crc32(record) != crc:
            raise HodorError(f"{path}: damaged at byte {offset} (wrong checksum); pack the data set again")
        return record

    def pixels(self, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB."""
        return self.record(place).reshape(*size, 3)

    def run_lengths(self, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return bool (h, w) of a record of COCO run lengths."""
        from pycocotools import mask as coco_mask

        return coco_mask.decode({"size": list(size), "counts": self.record(place).tobytes()}).astype(bool)

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "_open": {}}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)


class ImagePack(Pack):
    """An open pack of images."""

    def images(self) -> list["PackedImage"]:
        """Return all images, in the order of the data set's reader."""
        return [PackedImage(self, number) for number in range(len(self.index["names"]))]


@dataclass(frozen=True, slots=True)
class PackedObject:
    """One object; `area` and `bbox` (x, y, width, height) in pixels of the original image."""

    pack: ImagePack
    number: int
    size: tuple[int, int]

    @property
    def area(self) -> float:
        return float(self.pack.index["area"][self.number])

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        return tuple(float(value) for value in self.pack.index["bbox"][self.number])

    @property
    def crowd(self) -> bool:
        return bool(self.pack.index["crowd"][self.number])

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return bool (H, W), of the stored size."""
        if (height, width) != self.size:
            raise ValueError(f"a mask of size {self.size} was asked for at {(height, width)}")
        return self.pack.run_lengths(self.pack.index["masks"][self.number], self.size)


@dataclass(frozen=True, slots=True)
class PackedImage:
    """One image. `height` and `width` are those of the original; pixels and masks may be stored smaller."""

    pack: ImagePack
    number: int

    def _pair(self, name: str) -> tuple[int, int]:
        height, width = self.pack.index[name][self.number]
        return int(height), int(width)

    @property
    def path(self) -> Path:
        """The file of the data set that the image was packed from."""
        return Path(str(self.pack.index["names"][self.number]))

    @property
    def height(self) -> int:
        return self._pair("sizes")[0]

    @property
    def width(self) -> int:
        return self._pair("sizes")[1]

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width of what `read` returns."""
        return self._pair("stored")

    @property
    def objects(self) -> tuple[PackedObject, ...]:
        first, last = self.pack.index["first"][self.number : self.number + 2]
        return tuple(PackedObject(self.pack, number, self.stored) for number in range(first, last))

    def read(self) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB at the stored size; HodorError if the shard is damaged."""
        return self.pack.pixels(self.pack.index["pixels"][self.number], self.stored)

    def void(self) -> np.ndarray | None:
        """Return the void pixels at the stored size, bool (h, w), or None where there are none."""
        place = self.pack.index["void"][self.number]
        return self.pack.run_lengths(place, self.stored) if place[2] else None


class VideoPack(Pack):
    """An open pack of videos."""

    def videos(self) -> list["PackedVideo"]:
        """Return all videos, in the order of the data set's reader."""
        path = self.folder / VIDEOS
        try:
            found = []
            for entry in read_json(path)["videos"]:
                given = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
                seen = {int(id): frame for id, frame in entry["first_seen"].items()}
                found.append(PackedVideo(self, **given | {"first_seen": seen}))
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HodorError(f"{path}: incomplete ({error!r}); pack the data set again") from error


@dataclass(frozen=True)
class PackedVideo:
    """What clips use of a `Video`. `height` and `width` are the original's; frames and masks may be `stored` smaller."""

    pack: VideoPack
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
        return self.pack.pixels(self.pack.index["frames"][self.first_frame + self.frames.index(frame)], self.stored)

    def labels(self, frame: str) -> np.ndarray:
        """Return uint8 (h, w) object ids at the stored size, 0 background, 255 void."""
        place = self.pack.index["masks"][self.first_mask + self.labelled.index(frame)]
        plain = zlib.decompress(self.pack.record(place).tobytes())
        return np.frombuffer(bytearray(plain), np.uint8).reshape(self.stored)
