"""Open a split of any data set by its name."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from hodor.config.datasets import SPLITS, STILL_IMAGES
from hodor.config.own_datasets import OWN
from hodor.data.coco import load_coco
from hodor.data.davis import load_davis, load_davis2016
from hodor.data.still_images import INSTANCES, LAYOUTS, load_still_images
from hodor.data.video import Video
from hodor.data.youtube_vos import load_own_videos, load_youtube_vos
from hodor.errors import HodorError


class StillObject(Protocol):
    """One object of an image. Areas in pixels; `bbox` is x, y, width, height; a crowd covers a group of objects."""

    crowd: bool
    area: float
    bbox: tuple[float, float, float, float]

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return bool (H, W); the size is that of the image."""


class StillImage(Protocol):
    """One image with its objects. Height and width in pixels."""

    height: int
    width: int
    path: Path
    objects: Sequence[StillObject]

    def read(self) -> np.ndarray:
        """Return uint8 (H, W, 3) RGB; HodorError if the file is damaged or has another size."""

    def void(self) -> np.ndarray | None:
        """Return the void pixels, bool (H, W), or None where there are none."""


def has_instances(dataset: str) -> bool:
    """Return whether the images of a data set hold several distinguished objects; else an image is one object."""
    of_entry = dataset in STILL_IMAGES and STILL_IMAGES[dataset].instances
    return dataset.startswith("coco") or dataset in INSTANCES or of_entry


def is_video(dataset: str) -> bool:
    """Return whether a data set holds videos; the others hold images or weights."""
    return dataset in OWN or dataset.startswith(("davis", "youtube-vos"))


def load_images(root: Path, dataset: str, split: str) -> Sequence[StillImage]:
    """Open a split of a data set of images in `root`; HodorError if it has no such split, or as its reader."""
    _require_split(dataset, split)
    if dataset.startswith("coco"):
        return load_coco(root, split)
    if dataset in STILL_IMAGES:
        return import_module(STILL_IMAGES[dataset].module).load(root, split)
    if dataset in LAYOUTS:
        return load_still_images(root, dataset, split)
    raise HodorError(f"{root}: {dataset} is no data set of images; name another source in the stage")


def load_videos(data: Path, dataset: str, split: str) -> list[Video]:
    """Open a split of a data set of videos below `data`, the folder of all data sets; errors as in `load_images`."""
    return open_videos(data / dataset, dataset, split)


def open_videos(root: Path, dataset: str, split: str) -> list[Video]:
    """Open a split of a data set of videos in `root`; errors as in `load_images`."""
    _require_split(dataset, split)
    if entry := OWN.get(dataset):
        return load_davis(root, split, entry) if entry.protocol == "davis" else load_own_videos(root, split, entry)
    readers = {"davis": load_davis, "davis2016": load_davis2016}
    return readers.get(dataset, load_youtube_vos)(root, split)


def _require_split(dataset: str, split: str) -> None:
    if split not in (known := SPLITS.get(dataset, (split,))):
        raise HodorError(f"{dataset} has no split {split!r}; there are {', '.join(known)}")
