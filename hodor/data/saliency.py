"""Data sets of one object an image: a JPEG and a grey PNG mask of the same name and size.

| data set | split | images | masks |
|---|---|---|---|
| ecssd | all | `images/*.jpg` | `ground_truth_mask/*.png` |
| msra10k | all | `MSRA10K_Imgs_GT/Imgs/*.jpg` | beside them, `*.png` |
| stcn-static | fss | `fss/<class>/*.jpg` | beside them |
| stcn-static | DUTS-TR, DUTS-TE, ecssd, BIG_small, HRSOD_small | `<split>/*.jpg` | beside them |

A mask is grey from 0 to 255 and may be soft; the object is where it is above one half. Notes among the files (any
ending that is no image's) are left alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.data.images import read_rgb, read_size
from hodor.errors import HodorError


@dataclass(frozen=True)
class Layout:
    """Folders of images and masks below the data set's; `nested`: images lie in folders of these (classes)."""

    images: str
    masks: str
    nested: bool = False


LAYOUTS = {
    "ecssd": {"all": Layout("images", "ground_truth_mask")},
    "msra10k": {"all": Layout("MSRA10K_Imgs_GT/Imgs", "MSRA10K_Imgs_GT/Imgs")},
    "stcn-static": {
        "fss": Layout("fss", "fss", nested=True),
        **{name: Layout(name, name) for name in ("DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small")},
    },
}
"""Data set -> split -> where its files lie."""

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class SaliencyObject:
    """The object of an image. `area` and `bbox` (x, y, width, height; pixels) decode the mask."""

    path: Path
    height: int
    width: int
    crowd: bool = False

    @property
    def area(self) -> float:
        return float(self.mask(self.height, self.width).sum())

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        return box_of(self.mask(self.height, self.width))

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool (H, W); HodorError if the file is damaged, has another size than the image, or is coloured."""
        pixels = read_rgb(self.path, size=(height, width))
        if (pixels != pixels[..., :1]).any():
            raise HodorError(
                f"{self.path}: a coloured image where a grey mask is needed; take it from its archive again"
            )
        return pixels[..., 0] > 127


@dataclass(frozen=True)
class SaliencyImage:
    """One image of `height` x `width` pixels with its one object."""

    path: Path
    height: int
    width: int
    objects: tuple[SaliencyObject, ...]

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB; HodorError if the file is damaged."""
        return read_rgb(self.path, size=(self.height, self.width))

    def void(self) -> None:
        """Every pixel is decided."""


def load_saliency(root: Path, dataset: str, split: str) -> list[SaliencyImage]:
    """Opens a split: lists its folders and reads the images' headers; decodes nothing.

    Raises:
        HodorError: no such split or folder, an image without mask or a mask without image, or no image at all.
    """
    splits = LAYOUTS[dataset]
    if split not in splits:
        raise HodorError(f"{dataset} has no split {split!r}; there are {', '.join(splits)}")
    return load_layout(root, splits[split])


def load_layout(root: Path, layout: Layout) -> list[SaliencyImage]:
    """The images of a layout below `root`, as `load_saliency` gives them.

    Raises:
        HodorError: no such folder, an image without mask or a mask without image, or no image at all.
    """
    folders = [Path(root) / layout.images]
    if layout.nested:
        folders = sorted(path for path in _entries(folders[0]) if path.is_dir())
    images = []
    for folder in folders:
        masks = folder if layout.nested else Path(root) / layout.masks
        images += _pairs(folder, masks)
    if not images:
        raise HodorError(f"{Path(root) / layout.images}: no image; prepare the data set again")
    return images


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, width, height of the pixels in a mask (H, W); all 0 where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)


def _pairs(images: Path, masks: Path) -> list[SaliencyImage]:
    found = _by_ending(images)
    truth = found if masks == images else _by_ending(masks)
    for here, there, other in ((found[".jpg"], truth[".png"], masks), (truth[".png"], found[".jpg"], images)):
        missing = sorted(set(here) - set(there))
        if missing:
            raise HodorError(
                f"{here[missing[0]]}: no partner of that name in {other} ({len(missing)} such); "
                "prepare the data set again"
            )
    out = []
    for name, path in sorted(found[".jpg"].items()):
        height, width = read_size(path)
        out.append(SaliencyImage(path, height, width, (SaliencyObject(truth[".png"][name], height, width),)))
    return out


def _by_ending(folder: Path) -> dict[str, dict[str, Path]]:
    """Ending -> name -> path of the images in a folder; HodorError for an image of another ending."""
    out: dict[str, dict[str, Path]] = {".jpg": {}, ".png": {}}
    for path in _entries(folder):
        if path.suffix in out:
            out[path.suffix][path.stem] = path
        elif path.suffix.lower() in _IMAGE_ENDINGS:
            raise HodorError(f"{path}: neither .jpg nor .png; the layout of this data set is another one")
    return out


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise HodorError(
            f"{folder}: no such folder; fetch and prepare the data set, or its archive is laid out otherwise"
        )
    return list(folder.iterdir())
