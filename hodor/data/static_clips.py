"""Square pseudo-videos from single images: what the clips of STM, KMN and STCN share (baselines specification).

An image is loaded with all its objects as one label map (255: void, which stays), the first frame is drawn, and the
objects of the clip are chosen among those that it shows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.config.stages import StageOptions
from hodor.data import label_maps
from hodor.data.batches import Plan, Sample, plan_batches
from hodor.data.hide_and_seek import hide, hiding_probability
from hodor.data.image_clips import ATTEMPTS, scaled_area
from hodor.data.image_sets import INSTANCES, StillImage, StillObject, pool
from hodor.data.images import VOID
from hodor.data.label_maps import chosen_labels
from hodor.data.packs import training_images
from hodor.data.warps import Frame, Size


@dataclass(frozen=True)
class Camera:
    """Picture and labels as read from, the canvas that they are stretched over, and the map onto it."""

    image: np.ndarray
    labels: np.ndarray
    canvas: Size
    onto: np.ndarray

    def on_canvas(self, centre: tuple[float, float]) -> tuple[float, float]:
        """Where a position of the picture lies on the canvas, both as parts of the sides."""
        height, width = self.labels.shape
        x, y, _ = self.onto @ [centre[0] * width, centre[1] * height, 1]  # scaled and mirrored: no perspective
        return x / self.canvas[1], y / self.canvas[0]


@dataclass(frozen=True)
class Candidate:
    """An image with the objects that a clip may show, and the pixels that each must cover in the first frame."""

    image: StillImage
    objects: tuple[StillObject, ...]
    least: float


class StaticClips(ABC):
    """Makes square clips of the images of one or more sources; what a frame shows is the subclass's matter."""

    def __init__(self, options: StageOptions, data: Path) -> None:
        self.options = options
        self.candidates: list[Candidate] = []
        self.counts = []
        for source in options.sources:
            images = training_images(data, source, options)
            found = usable(images, options, source.dataset in INSTANCES)
            self.candidates += found
            self.counts.append(len(found))

    def plan(self, seed: int) -> Plan:
        """Batches of all steps: every image of the pool once a round, with as many of its objects as allowed."""
        options = self.options
        items = pool(self.counts, options.sources, seed)
        numbers = np.array([min(len(c.objects), options.max_objects) for c in self.candidates], int)
        return plan_batches(
            items, numbers[items], np.ones(len(items)), steps=options.steps, batch=options.batch, seed=seed
        )

    def size(self, item: int, objects: int, rng: np.random.Generator) -> Size:
        """Height and width of the clip that `make` gives for the same arguments."""
        return self.options.crop, self.options.crop

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """One clip of image `item` with up to `objects` of its objects, chosen among those that frame 0 shows.

        Where frame 0 shows fewer it is drawn again a few times; where it shows none, the clip is cut around an object.
        """
        candidate, options = self.candidates[item], self.options
        image = candidate.image.read()
        labels = label_map(candidate, image.shape[:2])
        camera = self.camera(image, labels, rng)
        first, shown = None, np.zeros(0, int)
        for _ in range(ATTEMPTS):
            frame = self.draw(camera, rng, None)
            found = visible(frame[1], candidate.least)
            if first is None or len(found) > len(shown):
                first, shown = frame, found
            if len(shown) >= objects:
                break
        if not len(shown):
            first = self.draw(camera, rng, centre_of(labels))
            shown = visible(first[1], candidate.least)
        if not len(shown):
            shown = largest(first[1])
        chosen = np.sort(rng.choice(shown, min(objects, len(shown)), replace=False))
        frames = [first] + [self.draw(camera, rng, None) for _ in range(options.frames - 1)]
        images, moved, valid = (np.stack(parts) for parts in zip(*frames, strict=True))
        followed = np.stack([chosen_labels(labels, chosen, keep=VOID) for labels in moved])
        sample = Sample(images, followed, valid, (True,) * options.frames)
        if options.hide_and_seek is not None:
            probability = hiding_probability(options.hide_and_seek, step, options.steps)
            sample = hide(sample, options.hide_and_seek, probability, rng)
        return sample

    @abstractmethod
    def camera(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Camera:
        """What all frames of a clip share: the picture, its labels and the random numbers drawn once a clip."""

    @abstractmethod
    def draw(self, camera: Camera, rng: np.random.Generator, centre: tuple[float, float] | None) -> Frame:
        """One frame with random numbers of its own; around `centre` (x, y as parts of the image) where given."""


def usable(images: Sequence[StillImage], options: StageOptions, instances: bool) -> list[Candidate]:
    """Images with the objects that can reach the least area in a clip, without crowds.

    In data sets without instances an image is one object of any size, so no mask is opened here.
    """
    if not instances:
        return [Candidate(image, tuple(image.objects), 1) for image in images]
    least = scaled_area(options.min_area, (options.crop, options.crop), options)
    out = []
    for image in images:
        growth = max(options.crop / min(image.height, image.width), 1.0) ** 2
        kept = [o for o in image.objects if (options.crowds == "keep" or not o.crowd) and o.area * growth >= least]
        if options.overlap == "smaller-on-top" or len(kept) >= VOID:
            kept = sorted(kept, key=lambda o: -o.area)[: VOID - 1]
        if kept:
            out.append(Candidate(image, tuple(kept), least))
    return out


def label_map(candidate: Candidate, size: Size) -> np.ndarray:
    """uint8 (H, W): objects 1, 2, ... in their order, a later one covering an earlier one; 255 where void.

    `size` is that of the picture as read.
    """
    labels = label_maps.draw((item.mask(*size) for item in candidate.objects), size)
    void = candidate.image.void()
    if void is not None:
        labels[void] = VOID
    return labels


def visible(labels: np.ndarray, least: float) -> np.ndarray:
    """Ids of the objects that cover at least `least` pixels, and one, of `labels` (h, w)."""
    areas = label_maps.counts(labels)[1:VOID]
    return np.flatnonzero(areas >= max(least, 1)) + 1


def largest(labels: np.ndarray) -> np.ndarray:
    """Id of the largest object of `labels` (h, w), as an array of one; empty where there is no object."""
    areas = label_maps.counts(labels)[1:VOID]
    return np.array([areas.argmax() + 1]) if areas.any() else np.zeros(0, int)


def centre_of(labels: np.ndarray) -> tuple[float, float]:
    """Position (x, y as parts of the sides) of a pixel of the largest object nearest to its mean; the middle if none."""
    found = largest(labels)
    if not len(found):
        return 0.5, 0.5
    y, x = np.nonzero(labels == found[0])
    nearest = ((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin()
    return (x[nearest] + 0.5) / labels.shape[1], (y[nearest] + 0.5) / labels.shape[0]


def enlarged(size: Size, short_side: float) -> Size:
    """The size with the given short side, rounded."""
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def crop_offset(
    canvas: Size, crop: int, rng: np.random.Generator, centre: tuple[float, float] | None
) -> tuple[float, float]:
    """Left and top of a square of side `crop` in the canvas (never smaller): random, or about `centre` where given."""
    room = canvas[1] - crop, canvas[0] - crop
    if centre is None:
        return tuple(rng.uniform(0, [max(r, 0) for r in room]))
    return tuple(
        float(np.clip(part * side - crop / 2, 0, max(r, 0)))
        for part, side, r in zip(centre, (canvas[1], canvas[0]), room, strict=True)
    )
