"""Images out of a pack: the same interface as those of a data set's own files (`hodor.data.image_sets.StillImage`).

A pack of images is a folder with shards and `index.npz`:

    names (n,) text   sizes (n, 2) height and width of the original   stored (n, 2) of the pixels
    pixels (n, 4)     place of the image, uint8 RGB row by row
    void (n, 4)       place of the pixels without a decision, as run lengths; length 0 where the image has none
    first (n + 1,)    objects first[i] to first[i + 1] belong to image i
    area (m,) bbox (m, 4) crowd (m,)   of each object, in pixels of the original
    masks (m, 4)      place of its mask, as COCO run lengths at the stored size: without loss
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hodor.data.shards import ShardReader
from hodor.errors import HodorError

INDEX = "index.npz"


class Pack:
    """An open pack: its index in memory, its shards on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.shards = ShardReader(self.folder)

    @cached_property
    def index(self) -> dict[str, np.ndarray]:
        return read_index(self.folder)

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "shards": self.shards}  # the index is read where it is needed


class ImagePack(Pack):
    """An open pack of images."""

    def images(self) -> list["PackedImage"]:
        """All images, in the order of the data set's reader."""
        return [PackedImage(self, number) for number in range(len(self.index["names"]))]

    def mask(self, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W) out of run lengths."""
        from pycocotools import mask as coco_mask

        counts = self.shards.read(place).tobytes()
        return coco_mask.decode({"size": list(size), "counts": counts}).astype(bool)


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
        """bool (H, W), of the stored size."""
        if (height, width) != self.size:
            raise ValueError(f"a mask of size {self.size} was asked for at {(height, width)}")
        return self.pack.mask(self.pack.index["masks"][self.number], self.size)


@dataclass(frozen=True, slots=True)
class PackedImage:
    """One image. `height` and `width` are those of the original; pictures and masks may be stored smaller."""

    pack: ImagePack
    number: int

    @property
    def path(self) -> Path:
        """The file of the data set that it was packed from."""
        return Path(str(self.pack.index["names"][self.number]))

    @property
    def height(self) -> int:
        return int(self.pack.index["sizes"][self.number, 0])

    @property
    def width(self) -> int:
        return int(self.pack.index["sizes"][self.number, 1])

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width of what `read` gives."""
        height, width = self.pack.index["stored"][self.number]
        return int(height), int(width)

    @property
    def objects(self) -> tuple[PackedObject, ...]:
        first, last = self.pack.index["first"][self.number : self.number + 2]
        return tuple(PackedObject(self.pack, number, self.stored) for number in range(first, last))

    def read(self) -> np.ndarray:
        """uint8 (h, w, 3) RGB at the stored size; HodorError if the shard is damaged."""
        return self.pack.shards.read(self.pack.index["pixels"][self.number]).reshape(*self.stored, 3)

    def void(self) -> np.ndarray | None:
        """Pixels without a decision at the stored size, bool (h, w), or None where there are none."""
        place = self.pack.index["void"][self.number]
        return self.pack.mask(place, self.stored) if place[2] else None


def read_index(folder: Path) -> dict[str, np.ndarray]:
    """Arrays of a pack's index; HodorError if it is missing or broken."""
    path = folder / INDEX
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; pack the data set again") from None
    except Exception as error:  # a reader answers a damaged file with any exception
        raise HodorError(f"{path}: damaged index ({error}); pack the data set again") from error
