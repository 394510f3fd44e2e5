"""Random geometry and colour of training clips (hodor specification 5.3 and 5.4, baselines 1.7, 2.7 and 3.2).

All random numbers come from the generator given, so a clip depends only on its seed.
"""

from typing import NamedTuple

import cv2
import numpy as np

from hodor.config.stages import HideAndSeek
from hodor.data import transforms
from hodor.data.transforms import Frame, Size, turn_hue

# Factors of the side of a crop.
CROP_FACTORS = (0.6, 0.7, 0.8)
PRESERVING_FACTORS = (0.6, 0.7, 0.8, 0.9)
# Weights of red, green and blue in grey (ITU-R BT.601).
_GREY = np.array([0.299, 0.587, 0.114])


def random_affine(size: Size, rng: np.random.Generator, *, shift: float, rotation: float, shear: float) -> np.ndarray:
    """Draw an affine warp, each part uniform up to the given bound (fractions, degrees)."""
    return transforms.affine(
        size,
        shift=tuple(rng.uniform(-shift, shift, 2)),
        rotation=rng.uniform(-rotation, rotation),
        shear=rng.uniform(-shear, shear),
    )


def random_perspective(size: Size, rng: np.random.Generator, scale: tuple[float, float]) -> np.ndarray:
    """Draw a perspective warp; corners move inwards by normal distances, their deviation uniform in `scale`."""
    deviation = rng.uniform(*scale)
    return transforms.perspective(size, np.abs(rng.normal(0, deviation, (4, 2))) % 0.5)


def random_crop(size: Size, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Draw a crop of `factor` times both sides, uniformly placed, stretched over the image."""
    height, width = size[0] * factor, size[1] * factor
    top, left = rng.uniform(0, size[0] - height), rng.uniform(0, size[1] - width)
    return transforms.crop(size, top, left, height, width)


def preserving_crop(size: Size, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Draw a crop that holds the bounding box of all objects; the full image if no factor leaves room for it."""
    left, top, across, down = cv2.boundingRect(labels)  # zeros where there is no object
    fitting = [f for f in PRESERVING_FACTORS if size[0] * f >= down and size[1] * f >= across]
    if not across or not fitting:
        return np.eye(3)
    factor = fitting[rng.integers(len(fitting))]
    height, width = size[0] * factor, size[1] * factor
    y = rng.uniform(max(0, top + down - height), min(top, size[0] - height))
    x = rng.uniform(max(0, left + across - width), min(left, size[1] - width))
    return transforms.crop(size, y, x, height, width)


def keeps_objects(labels: np.ndarray, homography: np.ndarray, objects: int, min_area: float) -> bool:
    """Return whether every object keeps half of its area and at least `min_area` pixels inside the frame.

    Areas are in pixels of the source image `labels` (H, W): stretching adds none.
    """
    ids = slice(1, objects + 1)
    before, after = transforms.count_labels(labels)[ids], counts_inside(labels, homography)[ids]
    return bool(np.all(after >= np.maximum(0.5 * before, min_area)))


def counts_inside(labels: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Count the pixels of each value of labels (H, W) that a warp leaves inside the frame: int (256,).

    Under rotation, shear and perspective a pixel at the edge may or may not count (OpenCV rounds positions).
    """
    if homography[[0, 1, 2, 2], [1, 0, 0, 1]].any():
        return transforms.count_labels(labels, transforms.covers(labels.shape, np.linalg.inv(homography), labels.shape))
    # Only stretched and moved: the pixels that stay are a box.
    box = []
    for side, scale, offset in zip(labels.shape, homography[[1, 0], [1, 0]], homography[[1, 0], [2, 2]], strict=True):
        position = scale * (np.arange(side) + 0.5) + offset
        inside = np.flatnonzero((position >= 0) & (position < side))
        box.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0))
    part = labels[tuple(box)]
    return transforms.count_labels(part) if part.size else np.zeros(transforms.LABELS, int)


def object_crop(size: Size, labels: np.ndarray, objects: int, min_area: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a crop that keeps half of every object, else one that holds them all, else the full image."""
    for factor in CROP_FACTORS:
        candidate = random_crop(size, rng, factor)
        if keeps_objects(labels, candidate, objects, min_area):
            return candidate
    return preserving_crop(size, rng, labels)


def image_warps(labels: np.ndarray, objects: int, frames: int, min_area: float, rng: np.random.Generator) -> list:
    """Draw the homographies of a pseudo-video of one image: basic warps for half of the clips, else crop-based ones.

    `labels` (H, W) holds the objects 1..`objects` of the image; `min_area` is in its pixels.
    """
    size = labels.shape
    if rng.random() < 0.5:
        return [np.eye(3)] + [_basic_warp(size, rng) for _ in range(frames - 1)]
    out = [object_crop(size, labels, objects, min_area, rng)]
    factor = CROP_FACTORS[rng.integers(len(CROP_FACTORS))]
    for _ in range(frames - 1):
        cut = random_crop(size, rng, factor)
        turn = random_affine(size, rng, shift=0, rotation=10, shear=5) if rng.random() < 0.5 else np.eye(3)
        out.append(turn @ cut)
    return out


def _basic_warp(size: Size, rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(3)
    if kind == 0:
        return random_affine(size, rng, shift=0.25, rotation=20, shear=10)
    if kind == 1:
        return random_perspective(size, rng, (0.10, 0.12))
    (height, width), margin = size, rng.uniform(0.10, 0.25)
    return transforms.crop(size, height * margin, width * margin, height * (1 - 2 * margin), width * (1 - 2 * margin))


def video_warp(labels: np.ndarray, objects: int, min_area: float, rng: np.random.Generator) -> np.ndarray:
    """Draw one homography for all frames of a real clip, a crop or another warp that keeps the objects.

    `labels` (H, W) are those of the reference frame.
    """
    size = labels.shape
    if rng.random() < 0.5:
        return object_crop(size, labels, objects, min_area, rng)
    for _ in range(3):
        if rng.random() < 0.5:
            candidate = random_affine(size, rng, shift=0, rotation=20, shear=10)
        else:
            candidate = random_perspective(size, rng, (0.08, 0.10))
        if keeps_objects(labels, candidate, objects, min_area):
            return candidate
    return np.eye(3)


def random_spline(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw uniform control points (12, 2), x and y in the unit square, and normal displacements, deviation 0.02."""
    return rng.random((12, 2)), rng.normal(0, 1, (12, 2)) * 0.02


def colour(image: np.ndarray, rng: np.random.Generator, *, brightness: float) -> np.ndarray:
    """Change hue and saturation by up to 12 of 255, contrast by 5 %, brightness by up to `brightness` of 255.

    `image` is uint8 RGB (H, W, 3) and unchanged; so is the type of the result.
    """
    hue, saturation = rng.uniform(-12, 12, 2)
    contrast, light = rng.uniform(0.95, 1.05), rng.uniform(-brightness, brightness)
    wheel = ((np.arange(256) + hue * 180 / 255) % 180).astype(np.uint8)  # OpenCV's hue has 180 steps
    scale = np.clip(np.arange(256) + saturation, 0, 255).astype(np.uint8)
    levels = np.clip((np.arange(256) - 127.5) * contrast + 127.5 + light, 0, 255).astype(np.uint8)
    changed = turn_hue(image, wheel, scale)
    return cv2.LUT(changed, levels, dst=changed)


class Strength(NamedTuple):
    """The greatest change of each factor from 1, and the greatest shift of the hue as a fraction of the circle."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


def jitter(
    image: np.ndarray, strength: Strength, rng: np.random.Generator, valid: np.ndarray | None = None
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, in random order, each uniformly up to its strength.

    Brightness multiplies; contrast moves away from the mean grey, saturation away from a pixel's grey. `image` is uint8
    RGB (H, W, 3), unchanged. The mean grey is that of the pixels `valid`, bool (H, W), of all if None.
    """
    factors = rng.uniform(-1, 1, 4) * strength
    for kind in rng.permutation(4):
        change = factors[kind]
        if change == 0:
            continue
        if kind == 0:
            image = _levels(image, 1 + change, 0.0)
        elif kind == 1:
            mean = float(np.dot(cv2.mean(image, None if valid is None else valid.view(np.uint8))[:3], _GREY))
            image = _levels(image, 1 + change, -change * mean)
        elif kind == 2:
            image = cv2.transform(image, (1 + change) * np.eye(3) - change * _GREY[None].repeat(3, 0))
        else:
            image = turn_hue(image, np.rint((np.arange(256) + change * 180) % 180).astype(np.uint8) % 180)
    return image


def _levels(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return cv2.LUT(image, np.clip(np.rint(np.arange(256) * factor + offset), 0, 255).astype(np.uint8))


def hiding_probability(options: HideAndSeek, step: int, steps: int) -> float:
    """Return the probability of hiding a grid cell at `step` of `steps`: linear from 0 to `options.probability`."""
    ramp = options.ramp * steps
    return options.probability * (min(1.0, step / ramp) if ramp else 1.0)


def hide(clip: Frame, options: HideAndSeek, probability: float, rng: np.random.Generator) -> Frame:
    """Hide grid cells of a clip (frames (T, H, W, 3), labels, valid): not valid there, labels removed or kept."""
    frames, labels, valid = clip
    count, height, width = labels.shape
    cells = rng.random((count, options.grid, options.grid)) < probability
    if not options.reference:
        cells[0] = False
    rows, columns = np.arange(height) * options.grid // height, np.arange(width) * options.grid // width
    shown = ~cells.take(rows, axis=1).take(columns, axis=2)
    frames = np.where(shown[..., None], frames, np.uint8(0))
    return frames, labels if options.labels == "keep" else labels * shown.view(np.uint8), valid & shown
