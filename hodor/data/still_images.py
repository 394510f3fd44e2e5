"""Still images with masks: PASCAL VOC, SBD, salient objects (ECSSD, MSRA10K) and the static images of STCN.

In pairs of a JPEG and a grey PNG an image is one object: where the mask, which may be soft, is above one half. In VOC
and SBD, which list their images, the objects are the ids of one label map, 255 void. SBD has images of VOC's splits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from hodor.data.images import VOID, read_labels, read_rgb, read_size
from hodor.data.video import broken, read_list
from hodor.errors import HodorError


class Pairs(NamedTuple):
    """Folders of images (*.jpg) and grey masks (*.png) below the data set's; `nested`: with one folder per class."""

    images: str
    masks: str
    nested: bool = False


class Listed(NamedTuple):
    """The list of a split, the folders of images (*.jpg) and label maps, and the ending of the latter (.png, .mat)."""

    list: str
    images: str
    maps: str
    ending: str


_VOC, _SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
LAYOUTS: dict[str, dict[str, Pairs | Listed]] = {
    "ecssd": {"all": Pairs("images", "ground_truth_mask")},
    "msra10k": {"all": Pairs("MSRA10K_Imgs_GT/Imgs", "MSRA10K_Imgs_GT/Imgs")},
    "stcn-static": {
        "fss": Pairs("fss", "fss", nested=True),
        **{name: Pairs(name, name) for name in ("DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small")},
    },
    "voc2012": {
        name: Listed(
            f"{_VOC}/ImageSets/Segmentation/{name}.txt", f"{_VOC}/JPEGImages", f"{_VOC}/SegmentationObject", ".png"
        )
        for name in ("train", "val", "trainval")
    },
    "sbd": {name: Listed(f"{_SBD}/{name}.txt", f"{_SBD}/img", f"{_SBD}/inst", ".mat") for name in ("train", "val")},
}
"""Data set -> split -> its files."""

INSTANCES = ("voc2012", "sbd")  # data sets of `LAYOUTS` whose images hold several distinguished objects
LEFT_OUT = "left out"  # handling of an image that the reader skips


class Defect(NamedTuple):
    """A known defect of a published archive: files below the data set's folder, the fault, its handling."""

    dataset: str
    files: str
    fault: str
    handling: str
    is_defective: Callable[[Path], bool]


def _has_alpha(mask: Path) -> bool:
    with Image.open(mask) as image:
        return image.mode == "LA"


def _differs_in_size(image: Path) -> bool:
    return read_size(image, upright=False) != read_size(image.with_suffix(".png"), upright=False)


_ALPHA, _STRAY = "a mask with an alpha channel", "a stray file: the images of this data set end in .jpg"
DEFECTS = (
    # The official archive has it in bear/00077.png.
    Defect("davis2016", "DAVIS/Annotations/480p/bear/*.png", _ALPHA, "its grey channel is read", _has_alpha),
    Defect("stcn-static", "fss/peregine_falcon/8.jpg", "its mask has another size", LEFT_OUT, _differs_in_size),
    Defect("stcn-static", "fss/*/*.jpeg", _STRAY, "ignored", Path.exists),
)


def known_defects(root: Path, dataset: str) -> dict[str, str]:
    """Return the files of a data set with known defects of its published archive -> the fault and how it is handled."""
    return {
        path.relative_to(root).as_posix(): f"{defect.fault}: {defect.handling}"
        for defect in DEFECTS
        if defect.dataset == dataset
        for path in sorted(root.glob(defect.files))
        if defect.is_defective(path)
    }


@dataclass(frozen=True)
class MaskObject:
    """One object of an image: the pixels of `id` in its label map. `area` in pixels; `bbox` is x, y, width, height."""

    image: "MaskImage"
    id: int
    known_area: int | None = None
    crowd = False

    @property
    def area(self) -> float:
        known = self.known_area
        return float(self.mask(self.image.height, self.image.width).sum() if known is None else known)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        x, y, width, height = cv2.boundingRect(self.mask(self.image.height, self.image.width).view(np.uint8))
        return x, y, width, height

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return bool (H, W); HodorError if the file is damaged or has another size than the image."""
        return read_map(self.image.labels, (height, width), self.image.areas is not None) == self.id


@dataclass(frozen=True)
class MaskImage:
    """One image of `height` x `width` pixels and the file of its label map or grey mask.

    `areas`: ids and areas (pixels) of the objects of a label map; None for a grey mask, which is not decoded yet.
    """

    path: Path
    labels: Path
    height: int
    width: int
    areas: tuple[tuple[int, int], ...] | None = None

    @property
    def objects(self) -> tuple[MaskObject, ...]:
        return tuple(MaskObject(self, i, area) for i, area in ([(1, None)] if self.areas is None else self.areas))

    def read(self) -> np.ndarray:
        """Return uint8 (H, W, 3) RGB; HodorError if the file is damaged."""
        return read_rgb(self.path, size=(self.height, self.width), upright=False)

    def void(self) -> np.ndarray | None:
        """Return the void pixels (outlines, difficult places), bool (H, W); None for grey masks."""
        return None if self.areas is None else read_map(self.labels, (self.height, self.width), True) == VOID


def load_still_images(root: Path, dataset: str, split: str) -> list[MaskImage]:
    """Open a split of a data set of `LAYOUTS`; HodorError as in `load_layout`."""
    return load_layout(root, LAYOUTS[dataset][split], {Path(root) / file for file in known_defects(root, dataset)})


def load_layout(root: Path, layout: Pairs | Listed, skipped: set[Path] | None = None) -> list[MaskImage]:
    """Open the images of a layout below `root`: list folders, read headers, decode the label maps of `Listed` ones.

    Raises:
        HodorError: a folder or list is absent, an image has no mask or a mask no image, there is no image, or a label
            map is damaged or has another size than its image.
    """
    root, skipped = Path(root), skipped or set()
    if isinstance(layout, Listed):
        names = " ".join(read_list(root / layout.list)).split()
        if len(set(names)) != len(names) or any(Path(name).name != name for name in names):
            raise broken(root / layout.list, "must list each image once, by its name")
        images, maps = root / layout.images, root / layout.maps
        return [_image(images / f"{name}.jpg", maps / f"{name}{layout.ending}", instances=True) for name in names]
    folders = [(root / layout.images, root / layout.masks)]
    if layout.nested:
        folders = [(path, path) for path in sorted(_entries(root / layout.images)) if path.is_dir()]
    images = [image for pair in folders for image in _pairs(*pair, skipped)]
    if not images:
        raise broken(root / layout.images, "no image")
    return images


def _image(path: Path, labels: Path, instances: bool = False) -> MaskImage:
    size = read_size(path, upright=False)
    if not instances:
        return MaskImage(path, labels, *size)
    areas = np.bincount(read_map(labels, size, True).ravel(), minlength=VOID + 1)
    return MaskImage(path, labels, *size, tuple((i, int(areas[i])) for i in range(1, VOID) if areas[i]))


_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def _pairs(images: Path, masks: Path, skipped: set[Path]) -> list[MaskImage]:
    found = _by_ending(images, skipped)
    of_masks = found if masks == images else _by_ending(masks, skipped)
    for mine, others, folder in ((found[".jpg"], of_masks[".png"], masks), (of_masks[".png"], found[".jpg"], images)):
        if missing := sorted(set(mine) - set(others)):
            raise broken(mine[missing[0]], f"no partner of that name in {folder} ({len(missing)} such)")
    return [_image(path, of_masks[".png"][name]) for name, path in sorted(found[".jpg"].items()) if path not in skipped]


def _by_ending(folder: Path, skipped: set[Path]) -> dict[str, dict[str, Path]]:
    """Return ending -> name -> path of the images in a folder; files that are no images are ignored."""
    out: dict[str, dict[str, Path]] = {".jpg": {}, ".png": {}}
    for path in _entries(folder):
        if path.suffix in out:
            out[path.suffix][path.stem] = path
        elif path.suffix.lower() in _IMAGE_ENDINGS and path not in skipped:
            raise HodorError(f"{path}: neither .jpg nor .png; remove it, or convert it with its partner")
    return out


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise broken(folder, "no such folder")
    return list(folder.iterdir())


@lru_cache(maxsize=4)  # the objects of an image are read one after the other
def read_map(path: Path, size: tuple[int, int], instances: bool) -> np.ndarray:
    """Return labels, uint8 (H, W), read-only; HodorError if the file is damaged, coloured or of another size."""
    if not instances:
        pixels = read_rgb(path, size=size, upright=False)
        if (pixels != pixels[..., :1]).any():
            raise broken(path, "a coloured image where a grey mask is needed")
        labels = (pixels[..., 0] > 127).astype(np.uint8)
    else:
        labels = _read_mat(path, size) if path.suffix == ".mat" else read_labels(path, size)
    labels.setflags(write=False)
    return labels


def _read_mat(path: Path, size: tuple[int, int]) -> np.ndarray:
    import scipy.io

    try:
        with open(path, "rb") as file:
            content = scipy.io.loadmat(file, variable_names=["GTinst"], struct_as_record=False, squeeze_me=True)
        labels = np.asarray(content["GTinst"].Segmentation)
    except FileNotFoundError:
        raise broken(path, "no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise any exception on damaged input
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise broken(path, f"truncated or damaged label map ({reason})") from error
    if labels.dtype != np.uint8 or labels.shape != tuple(size):
        raise broken(path, f"a label map {labels.dtype} {labels.shape} where uint8 {tuple(size)} is expected")
    return np.array(labels)
