"""PASCAL VOC 2012 and SBD: images whose objects are the ids of one label map, 255 void.

    voc2012   VOCdevkit/VOC2012/ImageSets/Segmentation/<split>.txt   JPEGImages/<name>.jpg   SegmentationObject/<name>.png
    sbd       benchmark_RELEASE/dataset/<split>.txt   img/<name>.jpg   inst/<name>.mat (GTinst.Segmentation)

SBD annotates images of VOC; those of VOC's own splits are in both.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hodor.data.images import VOID, read_labels, read_rgb, read_size
from hodor.data.saliency import box_of
from hodor.data.video import object_ids
from hodor.errors import HodorError

VOC_SPLITS = ("train", "val", "trainval")
SBD_SPLITS = ("train", "val")


@dataclass(frozen=True)
class VocObject:
    """One instance: the pixels of `id` in a label map. `area` in pixels."""

    labels: Path
    id: int
    height: int
    width: int
    area: float
    crowd: bool = False

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """x, y, width, height in pixels; decodes the label map."""
        return box_of(self.mask(self.height, self.width))

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool (H, W)."""
        return read_map(self.labels, (height, width)) == self.id


@dataclass(frozen=True)
class VocImage:
    """One image of `height` x `width` pixels with its instances, and the label map that they are in."""

    path: Path
    labels: Path
    height: int
    width: int
    objects: tuple[VocObject, ...]

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB; HodorError if the file is damaged."""
        return read_rgb(self.path, size=(self.height, self.width))

    def void(self) -> np.ndarray:
        """bool (H, W): outlines and difficult places, which the annotation leaves open."""
        return read_map(self.labels, (self.height, self.width)) == VOID


def load_voc(root: Path, split: str) -> list[VocImage]:
    """Opens a split of VOC 2012; decodes every label map, which alone says what objects there are.

    Raises:
        HodorError: no such split, a list, image or label map that is missing or damaged, sizes that differ.
    """
    base = Path(root) / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    return _load("voc2012", split, VOC_SPLITS, lists, base / "JPEGImages", base / "SegmentationObject", ".png")


def load_sbd(root: Path, split: str) -> list[VocImage]:
    """Opens a split of SBD, as `load_voc` does."""
    base = Path(root) / "benchmark_RELEASE" / "dataset"
    return _load("sbd", split, SBD_SPLITS, base, base / "img", base / "inst", ".mat")


@lru_cache(maxsize=4)  # the objects of an image are asked for one after the other
def read_map(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Labels, uint8 (H, W), read-only; HodorError if the file is damaged or of another size."""
    labels = _read_mat(path, size) if path.suffix == ".mat" else read_labels(path, size)
    labels.setflags(write=False)
    return labels


def _load(
    dataset: str, split: str, splits: tuple[str, ...], lists: Path, images: Path, labels: Path, ending: str
) -> list[VocImage]:
    if split not in splits:
        raise HodorError(f"{dataset} has no split {split!r}; there are {', '.join(splits)}")
    return [_image(images / f"{name}.jpg", labels / f"{name}{ending}") for name in _names(lists / f"{split}.txt")]


def _names(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise HodorError(f"{path}: cannot be read ({error}); fetch and prepare the data set again") from error
    if not names or len(set(names)) != len(names) or any(Path(name).name != name for name in names):
        raise HodorError(f"{path}: must list each image once and at least one; prepare the data set again")
    return names


def _image(path: Path, labels: Path) -> VocImage:
    height, width = read_size(path)
    found = read_map(labels, (height, width))
    areas = np.bincount(found.ravel(), minlength=256)
    objects = tuple(VocObject(labels, i, height, width, float(areas[i])) for i in object_ids(found))
    return VocImage(path, labels, height, width, objects)


def _read_mat(path: Path, size: tuple[int, int]) -> np.ndarray:
    import scipy.io

    try:
        with open(path, "rb") as file:
            content = scipy.io.loadmat(file, variable_names=["GTinst"], struct_as_record=False, squeeze_me=True)
        labels = np.asarray(content["GTinst"].Segmentation)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; take it from its archive again") from None
    except MemoryError:
        raise
    except Exception as error:  # a decoder answers damaged input with any exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HodorError(
            f"{path}: truncated or damaged label map ({reason}); take it from its archive again"
        ) from error
    if labels.dtype != np.uint8 or labels.shape != tuple(size):
        raise HodorError(f"{path}: a label map {labels.dtype} {labels.shape} where uint8 {tuple(size)} is expected")
    return np.array(labels)
