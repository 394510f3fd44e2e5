"""Pseudo-video clips of single images with instances (of COCO), warped (hodor specification 5.3)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.config.stages import Source, StageOptions
from hodor.data import augmentations, transforms
from hodor.data.dataset import Plan, Sample, equal_object_counts, plan_batches, pool
from hodor.data.readers import StillImage, StillObject, load_images
from hodor.data.transforms import Size

BRIGHTNESS = 25
# Draws of the first frame, until it shows its objects large enough.
ATTEMPTS = 5


@dataclass(frozen=True)
class Candidate:
    """An image with the objects that pass the filters. `least`: their least area in frame 0 of a static clip."""

    image: StillImage
    objects: tuple[StillObject, ...]
    least: float = 1.0

    @property
    def size(self) -> Size:
        return self.image.height, self.image.width


class Clips(ABC):
    """Clips of a stage: the candidates of all its sources, in the order of the sources, and plans of them."""

    def __init__(self, options: StageOptions, data: Path) -> None:
        self.options = options
        found = [self.usable(source, data) for source in options.sources]
        self.counts = [len(candidates) for candidates in found]
        self.candidates: list = sum(found, [])

    @abstractmethod
    def usable(self, source: Source, data: Path) -> list:
        """Return the candidates of a source: images or videos of which clips can be made, with their `size`."""

    def size(self, item: int, objects: int, rng: np.random.Generator) -> Size:
        """Return height and width of the clip that `make` returns for the same arguments."""
        return clip_size(self.candidates[item].size, self.options)

    def batches(self, items: np.ndarray, objects: np.ndarray, seed: int) -> Plan:
        """Plan batches of candidates with their numbers of objects."""
        options = self.options
        aspects = np.array([1.0 if options.crop else np.divide(*c.size) for c in self.candidates])[items]
        return plan_batches(items, objects, aspects, steps=options.steps, batch=options.batch, seed=seed)


class ImageClips(Clips):
    """Clips of images with instances, under homographies."""

    def usable(self, source: Source, data: Path) -> list[Candidate]:
        return usable(load_images(data / source.dataset, source.dataset, source.split), self.options)

    def plan(self, seed: int) -> Plan:
        """Plan the batches of all steps: object counts 4, 3, 2, 1 in equal shares, images cycled."""
        options = self.options
        members = pool(self.counts, options.sources, seed)
        numbers = [len(self.candidates[i].objects) for i in members]
        places, objects = equal_object_counts(numbers, options.steps * options.batch, options.max_objects)
        return self.batches(members[places], objects, seed)

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

        def draw(attempt: int, least: float) -> list[np.ndarray]:
            return augmentations.image_warps(labels, objects, options.frames, least, rng)

        return warped_clip([image], [labels], draw, objects, options, rng)


def warped_clip(
    images: list[np.ndarray],
    labels: list[np.ndarray | None],
    draw: Callable[[int, float], list[np.ndarray]],
    objects: int,
    options: StageOptions,
    rng: np.random.Generator,
) -> Sample:
    """Make a clip of frames under one flip and homographies, drawn until the first frame shows its objects.

    Args:
        images, labels: of each frame (None without annotation), or one for all.
        draw: number of the attempt, least area of an object in pixels -> homographies of the frames.
        objects: number of objects in the first frame's labels.
    """
    size = labels[0].shape
    target, least = clip_size(size, options), scaled_area(options.min_area, size, options)
    outer = transforms.scaling(size, target) @ (transforms.flip(size) if rng.random() < 0.5 else np.eye(3))
    repeats = options.frames // len(images)
    images = [transforms.shrink(image, target) for image in images] * repeats
    labels = [None if each is None else transforms.shrink(each, target) for each in labels] * repeats
    inner = transforms.scaling(images[0].shape[:2], size)
    keep_edge, cubic = options.exposed == "edge", options.resampling == "cubic"
    for attempt in range(ATTEMPTS):
        homographies = [outer @ warp @ inner for warp in draw(attempt, least)]
        first = transforms.apply_labels(labels[0], homographies[0], target, keep_edge=keep_edge)
        if visible_at_stride_8(first[0], objects):
            break
    shape = (options.frames, *target)
    frames, annotated = np.empty((*shape, 3), np.uint8), tuple(each is not None for each in labels)
    sample = Sample(frames, np.empty(shape, np.uint8), np.empty(shape, bool), annotated)
    for i, (image, each, homography) in enumerate(zip(images, labels, homographies, strict=True)):
        given = labels[0] if each is None else each
        moved, valid = transforms.apply_labels(given, homography, target, keep_edge=keep_edge) if i else first
        sample.labels[i], sample.valid[i] = 0 if each is None else moved, valid
        transforms.apply_image(image, homography, valid, cubic=cubic, out=sample.frames[i])
    return sample


def usable(images: Sequence[StillImage], options: StageOptions) -> list[Candidate]:
    """Return the images with the objects that pass the filters: area and both sides of the box, no crowd."""
    out = []
    for image in images:
        size = (image.height, image.width)
        area = scaled_area(options.min_area, size, options)
        side = options.min_side * np.sqrt(scaled_area(1.0, size, options))
        objects = (o for o in image.objects if options.crowds == "keep" or not o.crowd)
        kept = tuple(o for o in objects if o.area > area and min(o.bbox[2:]) > side)
        if kept:
            out.append(Candidate(image, kept))
    return out


def scaled_area(area: float, size: Size, options: StageOptions) -> float:
    """Return an area filter for an image of `size`, in proportion to `options.filter_pixels` if set."""
    return area if options.filter_pixels is None else area * size[0] * size[1] / options.filter_pixels


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


def visible_at_stride_8(labels: np.ndarray, objects: int) -> bool:
    """Return whether each object of `labels` (H, W) survives nearest downsampling by 8 (hodor specification 5.1)."""
    return len(np.setdiff1d(labels[4::8, 4::8], 0)) == objects
