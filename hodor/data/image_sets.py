"""The images of a split, whichever data set it belongs to."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from hodor.config.datasets import STILL_IMAGES
from hodor.config.stages import Source
from hodor.data.coco import load_coco
from hodor.data.saliency import LAYOUTS, load_saliency
from hodor.data.voc import load_sbd, load_voc
from hodor.errors import HodorError

_READERS = {
    "coco": lambda root, split: load_coco(root, split).images,
    "coco-persons-small": lambda root, split: load_coco(root, split).images,
    "voc2012": load_voc,
    "sbd": load_sbd,
}

INSTANCES = (*_READERS, *(name for name, entry in STILL_IMAGES.items() if entry.instances))
"""Data sets that tell the instances of an image apart; in the others an image is one object."""


class StillObject(Protocol):
    """One object of an image. Areas in pixels; `bbox` is x, y, width, height; a crowd covers a group of objects."""

    crowd: bool

    @property
    def area(self) -> float: ...

    @property
    def bbox(self) -> tuple[float, float, float, float]: ...

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool (H, W); the size is that of the image."""


class StillImage(Protocol):
    """One image with its objects. Height and width in pixels."""

    height: int
    width: int
    path: Path

    @property
    def objects(self) -> Sequence[StillObject]: ...

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB; HodorError if the file is damaged or has another size."""

    def void(self) -> np.ndarray | None:
        """Pixels without a decision, bool (H, W), or None where there are none."""


def load_images(root: Path, dataset: str, split: str) -> Sequence[StillImage]:
    """Opens a split of a data set of images, which lies in the folder `root`.

    Raises:
        HodorError: the data set holds no images, or as its reader.
    """
    if dataset in _READERS:
        return _READERS[dataset](root, split)
    if dataset in STILL_IMAGES:
        return import_module(STILL_IMAGES[dataset].module).load(root, split)
    if dataset in LAYOUTS:
        return load_saliency(root, dataset, split)
    raise HodorError(f"{root}: {dataset} is no data set of images; name another source in the stage")


def pool(counts: Sequence[int], sources: Sequence[Source], seed: int) -> np.ndarray:
    """Which images stand in the pool of a stage, and how often.

    Args:
        counts: number of images of each source; images are numbered through all sources.
        sources: their `limit` (so many of its images, drawn by the seed) and `repeat`.
        seed: of the run.

    Returns:
        Image numbers, in the sources' order.
    """
    rng = np.random.default_rng([seed, 1313])
    parts, first = [np.zeros(0, int)], 0
    for count, source in zip(counts, sources, strict=True):
        members = np.arange(first, first + count)
        if source.limit is not None and count > source.limit:
            members = np.sort(rng.choice(members, source.limit, replace=False))
        parts += [members] * source.repeat
        first += count
    return np.concatenate(parts)
