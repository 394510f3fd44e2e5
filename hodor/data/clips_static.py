"""Square pseudo-video clips of single images, as in STM, KMN, STCN (baselines specification 1.2, 1.7, 2.7, 3.2, 3.7).

An image is loaded with all its objects as one label map (255: void, which stays), the first frame is drawn, and the
objects of the clip are chosen among those that it shows. What is drawn once for a clip and for each frame:

| | STM, KMN (`AffineClips`) | STCN (`StcnClips`) |
|---|---|---|
| clip | short side, uniform between the crop and the image's; flip; with `colour` one jitter (STM has none) | scale; flip; jitter, now and then grey |
| frame | zoom of width and height, rotation, shear, shift, place of the crop | rotation, scale, horizontal shear; place of the crop along the long side; a second jitter; for one frame in three a thin-plate spline |
| resampling | bilinear | bicubic |

`StcnClips` deviates from the release to resample once instead of up to four times: the geometric steps are composed,
and a soft mask is thresholded before them, not after. What the release cuts off between the steps (the canvas after the
first scaling, the square before the spline) is cut off here too.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.config.stages import Source, StageOptions
from hodor.data import transforms
from hodor.data.augmentations import Strength, hide, hiding_probability, jitter, random_affine, random_spline
from hodor.data.clips_image import ATTEMPTS, Candidate, Clips, scaled_area
from hodor.data.dataset import Plan, Sample, pool
from hodor.data.images import VOID
from hodor.data.readers import StillImage, has_instances, load_images
from hodor.data.transforms import Frame, Size, black_out, greyscale, thin_plate_positions

ROTATION, SHEAR = 20.0, 10.0
JITTER = Strength(0.1, 0.05, 0.05, 0.05)
# STM and KMN.
ZOOM, SHIFT = (0.9, 1.1), 0.1
# STCN.
SCALE, FRAME_SCALE = (0.8, 1.5), (0.9, 1.1)
FRAME_JITTER = Strength(0.1, 0.05, 0.05, 0.0)
GREY, THIN_PLATE = 0.05, 0.33


@dataclass(frozen=True)
class Camera:
    """What all frames of a clip share: image, labels, size of the canvas, and homography `onto` the canvas.

    `scale` of the clip is applied by STCN after the flip.
    """

    image: np.ndarray
    labels: np.ndarray
    canvas: Size
    onto: np.ndarray
    scale: float = 1.0

    def on_canvas(self, centre: tuple[float, float]) -> tuple[float, float]:
        """Map a position of the image to the canvas, both as fractions of the sides."""
        height, width = self.labels.shape
        x, y, _ = self.onto @ [centre[0] * width, centre[1] * height, 1]  # scaled and mirrored: no perspective
        return x / self.canvas[1], y / self.canvas[0]


class StaticClips(Clips):
    """Square clips of images; a subclass defines what a frame shows."""

    def usable(self, source: Source, data: Path) -> list[Candidate]:
        images = load_images(data / source.dataset, source.dataset, source.split)
        return usable(images, self.options, has_instances(source.dataset))

    def plan(self, seed: int) -> Plan:
        """Plan the batches of all steps: every image of the pool once a round, with up to `max_objects` objects."""
        options = self.options
        items = pool(self.counts, options.sources, seed)
        numbers = np.array([min(len(c.objects), options.max_objects) for c in self.candidates], int)[items]
        return self.batches(items, numbers, seed)

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """Make one clip of image `item` with up to `objects` of its objects, chosen among those that frame 0 shows.

        Frame 0 is drawn again a few times while it shows fewer; if it shows none, it is cropped around an object.
        """
        candidate, options = self.candidates[item], self.options
        image = candidate.image.read()
        size = image.shape[:2]
        labels = transforms.draw_labels((item.mask(*size) for item in candidate.objects), size)
        if (void := candidate.image.void()) is not None:
            labels[void] = VOID
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
            shown = largest_object(first[1])
        chosen = np.sort(rng.choice(shown, min(objects, len(shown)), replace=False))
        frames = [first] + [self.draw(camera, rng, None) for _ in range(options.frames - 1)]
        images, moved, valid = (np.stack(parts) for parts in zip(*frames, strict=True))
        followed = np.stack([transforms.chosen_labels(each, chosen, keep=VOID) for each in moved])
        clip = images, followed, valid
        if options.hide_and_seek is not None:
            probability = hiding_probability(options.hide_and_seek, step, options.steps)
            clip = hide(clip, options.hide_and_seek, probability, rng)
        return Sample(*clip, (True,) * options.frames)

    @abstractmethod
    def camera(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Camera:
        """Draw what all frames of a clip share."""

    @abstractmethod
    def draw(self, camera: Camera, rng: np.random.Generator, centre: tuple[float, float] | None) -> Frame:
        """Draw one frame; around `centre` (x, y as fractions of the image) if given."""


class AffineClips(StaticClips):
    """Clips of STM and KMN: frames under independent affine warps."""

    def camera(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Camera:
        crop = self.options.crop
        canvas = enlarged(labels.shape, rng.uniform(crop, max(crop, min(labels.shape))))
        small, small_labels = transforms.shrink(image, canvas), transforms.shrink(labels, canvas)
        if self.options.colour:
            small = jitter(small, JITTER, rng)
        onto = transforms.scaling(small_labels.shape, canvas)
        if rng.random() < 0.5:
            onto = transforms.flip(canvas) @ onto
        return Camera(small, small_labels, canvas, onto)

    def draw(self, camera: Camera, rng: np.random.Generator, centre: tuple[float, float] | None) -> Frame:
        crop, canvas = self.options.crop, camera.canvas
        if centre is None:
            warp = random_affine(canvas, rng, shift=SHIFT, rotation=ROTATION, shear=SHEAR)
            warp = warp @ transforms.zoom(canvas, *rng.uniform(*ZOOM, 2))
        else:
            warp, centre = np.eye(3), camera.on_canvas(centre)
        left, top = crop_offset(canvas, crop, rng, centre)
        homography = transforms.move(-left, -top) @ warp @ camera.onto
        return transforms.apply(camera.image, camera.labels, homography, (crop, crop))


class StcnClips(StaticClips):
    """Clips of STCN: frames under a shared and an independent affine warp and thin-plate splines."""

    def camera(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Camera:
        canvas = enlarged(labels.shape, self.options.crop)
        scale = rng.uniform(*SCALE)
        target = enlarged(labels.shape, self.options.crop * scale)
        small, small_labels = transforms.shrink(image, target), transforms.shrink(labels, target)
        flipped = rng.random() < 0.5
        if self.options.colour:
            small = jitter(small, JITTER, rng)
            if rng.random() < GREY:
                small = greyscale(small)
        onto = transforms.scaling(small_labels.shape, canvas)
        if flipped:
            onto = transforms.flip(canvas) @ onto
        return Camera(small, small_labels, canvas, onto, scale)

    def draw(self, camera: Camera, rng: np.random.Generator, centre: tuple[float, float] | None) -> Frame:
        canvas, crop = camera.canvas, self.options.crop
        if centre is None:
            clip = transforms.zoom(canvas, camera.scale, camera.scale)
            rotation, shear = rng.uniform(-ROTATION, ROTATION), rng.uniform(-SHEAR, SHEAR)
            turn = transforms.affine(canvas, shift=(0, 0), rotation=rotation, shear=shear)
            frame = turn @ transforms.zoom(canvas, *[rng.uniform(*FRAME_SCALE)] * 2)
        else:  # without the clip's scale, which moved the object out of the frame
            clip = frame = np.eye(3)
            centre = camera.on_canvas(centre)
        left, top = crop_offset(canvas, crop, rng, centre)
        frame = transforms.move(-left, -top) @ frame
        bent = centre is None and rng.random() < THIN_PLATE
        image, labels, valid = self.read(camera, clip, frame, random_spline(rng) if bent else None)
        if self.options.colour:
            image = jitter(image, FRAME_JITTER, rng, valid)
        labels *= valid.view(np.uint8)
        return black_out(image, valid), labels, valid

    def read(
        self, camera: Camera, clip: np.ndarray, frame: np.ndarray, spline: tuple[np.ndarray, np.ndarray] | None
    ) -> Frame:
        """Resample a frame under the warps of clip and frame and the spline, if any; valid is what no step cuts off."""
        crop, onto = self.options.crop, clip @ camera.onto
        if spline is None:
            image, labels, valid = transforms.apply(camera.image, camera.labels, frame @ onto, (crop, crop), cubic=True)
            return image, labels, valid & transforms.covers(camera.canvas, frame, (crop, crop))
        square = thin_plate_positions(*spline, crop)
        canvas = transforms.positions_through(np.linalg.inv(frame), square)
        picture = transforms.positions_through(np.linalg.inv(onto), canvas)
        image, labels, valid = transforms.read_at(camera.image, camera.labels, picture)
        kept = transforms.inside(square, (crop, crop)) & transforms.inside(canvas, camera.canvas)
        return image, labels, valid & kept


def usable(images: Sequence[StillImage], options: StageOptions, instances: bool) -> list[Candidate]:
    """Return the images with the objects that can reach the least area in a clip, without crowds.

    Without `instances` an image is one object of any size, so no mask is opened.
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


def visible(labels: np.ndarray, least: float) -> np.ndarray:
    """Return the ids of the objects that cover at least `least` pixels, and at least one, of `labels` (h, w)."""
    areas = transforms.count_labels(labels)[1:VOID]
    return np.flatnonzero(areas >= max(least, 1)) + 1


def largest_object(labels: np.ndarray) -> np.ndarray:
    """Return the id of the largest object of `labels` (h, w), as an array; empty if there is no object."""
    areas = transforms.count_labels(labels)[1:VOID]
    return np.array([areas.argmax() + 1]) if areas.any() else np.zeros(0, int)


def centre_of(labels: np.ndarray) -> tuple[float, float]:
    """Return the pixel of the largest object nearest to its mean, x, y as fractions of the sides; 0.5, 0.5 if none."""
    found = largest_object(labels)
    if not len(found):
        return 0.5, 0.5
    y, x = np.nonzero(labels == found[0])
    nearest = ((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin()
    return (x[nearest] + 0.5) / labels.shape[1], (y[nearest] + 0.5) / labels.shape[0]


def enlarged(size: Size, short_side: float) -> Size:
    """Return the size scaled to the given short side."""
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def crop_offset(
    canvas: Size, crop: int, rng: np.random.Generator, centre: tuple[float, float] | None
) -> tuple[float, float]:
    """Return left and top of a square of side `crop` in the canvas (never smaller): random, or about `centre`."""
    sides = np.array(canvas[::-1])
    room = np.maximum(sides - crop, 0)
    return tuple(rng.uniform(0, room) if centre is None else np.clip(centre * sides - crop / 2, 0, room))
