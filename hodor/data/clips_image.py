"""Pseudo-video clips of single images with instances (of COCO), warped (hodor specification 5.3)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.config.stages import Source, StageOptions
from hodor.data import augmentations, transforms
from hodor.data.dataset import Plan, Sample, equal_object_counts, plan_batches, pool
from hodor.data.packs import training_data
from hodor.data.readers import StillImage, StillObject
from hodor.data.transforms import Size

BRIGHTNESS = 25
# Draws of the first frame, until it shows its objects large enough.
ATTEMPTS = 5


@dataclass(frozen=True)
class Candidate:
    """An image with the objects that pass the filters. `least`: their least area in frame 0 of a static clip, in pixels."""

    image: StillImage
    objects: tuple[StillObject, ...]
    least: float = 1.0

    @property
    def size(self) -> Size:
        return self.image.height, self.image.width


class StillClips(ABC):
    """Clips of still images: the candidates of all sources of a stage, in the order of the sources."""

    def __init__(self, options: StageOptions, data: Path) -> None:
        self.options = options
        found = [self.usable(training_data(data, source, options), source) for source in options.sources]
        self.counts = [len(candidates) for candidates in found]
        self.candidates: list[Candidate] = sum(found, [])

    @abstractmethod
    def usable(self, images: Sequence[StillImage], source: Source) -> list[Candidate]:
        """Return the images of a source that clips can be made of."""

    def size(self, item: int, objects: int, rng: np.random.Generator) -> Size:
        """Return height and width of the clip that `make` returns for the same arguments."""
        return clip_size(self.candidates[item].size, self.options)


class ImageClips(StillClips):
    """Clips of images with instances, under homographies."""

    def usable(self, images: Sequence[StillImage], source: Source) -> list[Candidate]:
        return usable(images, self.options)

    def plan(self, seed: int) -> Plan:
        """Plan the batches of all steps: object counts 4, 3, 2, 1 in equal shares, images cycled."""
        options = self.options
        members = pool(self.counts, options.sources, seed)
        numbers = [len(self.candidates[i].objects) for i in members]
        places, objects = equal_object_counts(numbers, options.steps * options.batch, options.max_objects)
        items = members[places]
        aspects = np.array([np.divide(*self.candidates[i].size) for i in items])
        return plan_batches(items, objects, aspects, steps=options.steps, batch=options.batch, seed=seed)

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """Make one clip of image `item` with `objects` of its objects, drawn at random."""
        candidate, options = self.candidates[item], self.options
        chosen = np.sort(rng.choice(len(candidate.objects), objects, replace=False))
        image = candidate.image.read()
        if options.overlap == "smaller-on-top":
            chosen = chosen[np.argsort([-candidate.objects[index].area for index in chosen], kind="stable")]
        labels = transforms.draw_labels((candidate.objects[i].mask(*image.shape[:2]) for i in chosen), image.shape[:2])
        if options.colour:
            image = augmentations.colour(image, rng, brightness=BRIGHTNESS)
        # A packed image may be stored smaller; sizes and areas of the filters are those of its original.
        source, target = labels.shape, clip_size(candidate.size, options)
        least = scaled_area(options.min_area, candidate.size, options, source)
        flipped = transforms.flip(source) if rng.random() < 0.5 else np.eye(3)
        small, small_labels = transforms.shrink(image, target), transforms.shrink(labels, target)
        outer = transforms.scaling(source, target) @ flipped
        inner = transforms.scaling(small.shape[:2], source)
        for _ in range(ATTEMPTS):
            homographies = augmentations.image_warps(labels, objects, options.frames, least, rng)
            first = clip_labels(small_labels, outer @ homographies[0] @ inner, target, options)
            if visible_at_stride_8(first[0], objects):
                break
        sample = Sample.empty(target, (True,) * options.frames)
        for i, h in enumerate(homographies):
            matrix = outer @ h @ inner
            sample.labels[i], sample.valid[i] = clip_labels(small_labels, matrix, target, options) if i else first
            clip_image(small, matrix, sample.valid[i], options, out=sample.frames[i])
        return sample


def usable(images: Sequence[StillImage], options: StageOptions) -> list[Candidate]:
    """Return the images with the objects that pass the filters: area and both sides of the box, no crowd."""
    out = []
    for image in images:
        size = (image.height, image.width)
        area = scaled_area(options.min_area, size, options)
        side = options.min_side * np.sqrt(scaled_area(1.0, size, options))
        kept = tuple(
            o
            for o in image.objects
            if (options.crowds == "keep" or not o.crowd) and o.area > area and min(o.bbox[2:]) > side
        )
        if kept:
            out.append(Candidate(image, kept))
    return out


def scaled_area(area: float, size: Size, options: StageOptions, shown: Size | None = None) -> float:
    """Return an area filter for an image of `size`, in proportion to `options.filter_pixels` if set.

    `shown`: the size at which the image is read, if another; the area is then in pixels of this size.
    """
    least = area if options.filter_pixels is None else area * size[0] * size[1] / options.filter_pixels
    if shown is None or tuple(shown) == tuple(size):
        return least
    return least * (shown[0] * shown[1]) / (size[0] * size[1])


def clip_size(size: Size, options: StageOptions) -> Size:
    """Return height and width of a clip from an image or video of `size`, by the stage's size rule."""
    if options.crop is not None:
        return options.crop, options.crop
    if options.pixels is not None:
        scale = np.sqrt(options.pixels / (size[0] * size[1]))
    else:
        scale = options.short_side / min(size)
        if options.long_side is not None:
            scale = min(scale, options.long_side / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def clip_labels(labels: np.ndarray, homography: np.ndarray, size: Size, options: StageOptions) -> tuple:
    """Warp the labels of one frame of a clip by the stage's settings (`transforms.apply_labels`)."""
    return transforms.apply_labels(labels, homography, size, keep_edge=options.exposed == "edge")


def clip_image(
    image: np.ndarray, homography: np.ndarray, valid: np.ndarray, options: StageOptions, out: np.ndarray
) -> None:
    """Warp one frame of a clip into `out` with the stage's resampling (`transforms.apply_image`)."""
    transforms.apply_image(image, homography, valid, cubic=options.resampling == "cubic", out=out)


def visible_at_stride_8(labels: np.ndarray, objects: int) -> bool:
    """Return whether each object of `labels` (H, W) survives nearest downsampling by 8 (hodor specification 5.1)."""
    return len(np.setdiff1d(labels[4::8, 4::8], 0)) == objects
