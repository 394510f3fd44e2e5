"""Random colour and geometry of training clips (specification sections 5.3 and 5.4).

Everything is drawn from the generator given, so a clip depends on its seed alone.
"""

import cv2
import numpy as np

from hodor.data import label_maps, warps
from hodor.data.warps import Size

# Factors of the side of a crop.
CROP_FACTORS = (0.6, 0.7, 0.8)
PRESERVING_FACTORS = (0.6, 0.7, 0.8, 0.9)
# An object counts as kept if at least this part of its area stays.
KEPT_PART = 0.5


def colour(image: np.ndarray, rng: np.random.Generator, *, brightness: float) -> np.ndarray:
    """Change hue and saturation by up to 12 of 255, contrast by 5 %, brightness by up to `brightness` of 255.

    `image` is uint8 RGB (H, W, 3); returns the same.
    """
    hue, saturation = rng.uniform(-12, 12, 2)
    contrast, light = rng.uniform(0.95, 1.05), rng.uniform(-brightness, brightness)
    # OpenCV's hue has 180 steps.
    wheel = ((np.arange(256) + hue * 180 / 255) % 180).astype(np.uint8)
    scale = np.clip(np.arange(256) + saturation, 0, 255).astype(np.uint8)
    levels = np.clip((np.arange(256) - 127.5) * contrast + 127.5 + light, 0, 255).astype(np.uint8)
    changed = turn_hue(image, wheel, scale)
    return cv2.LUT(changed, levels, dst=changed)


def turn_hue(image: np.ndarray, wheel: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Replace hues (0..179) and, where given, saturations of uint8 RGB (H, W, 3) by tables, uint8 (256,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    # A table for one channel is far faster than one for all three.
    hue = cv2.extractChannel(hsv, 0)
    cv2.insertChannel(cv2.LUT(hue, wheel, dst=hue), hsv, 0)
    if scale is not None:
        saturation = cv2.extractChannel(hsv, 1)
        cv2.insertChannel(cv2.LUT(saturation, scale, dst=saturation), hsv, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


def random_affine(size: Size, rng: np.random.Generator, *, shift: float, rotation: float, shear: float) -> np.ndarray:
    """Affine warp with each part drawn uniformly up to the given bound (fractions, degrees)."""
    return warps.affine(
        size,
        shift=tuple(rng.uniform(-shift, shift, 2)),
        rotation=rng.uniform(-rotation, rotation),
        shear=rng.uniform(-shear, shear),
    )


def random_perspective(size: Size, rng: np.random.Generator, scale: tuple[float, float]) -> np.ndarray:
    """Perspective warp; corners move inwards by normal distances of a deviation drawn from `scale` (of the side)."""
    deviation = rng.uniform(*scale)
    return warps.perspective(size, np.abs(rng.normal(0, deviation, (4, 2))) % 0.5)


def random_crop(size: Size, rng: np.random.Generator, factor: float) -> np.ndarray:
    """A box of `factor` times both sides, uniformly placed, stretched over the image."""
    height, width = size[0] * factor, size[1] * factor
    top, left = rng.uniform(0, size[0] - height), rng.uniform(0, size[1] - width)
    return warps.crop(size, top, left, height, width)


def preserving_crop(size: Size, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray | None:
    """A crop that holds the bounding box of all objects, or None where no factor leaves room for it."""
    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    if len(rows) == 0:
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    fitting = [f for f in PRESERVING_FACTORS if size[0] * f >= bottom - top and size[1] * f >= right - left]
    if not fitting:
        return None
    factor = fitting[rng.integers(len(fitting))]
    height, width = size[0] * factor, size[1] * factor
    y = rng.uniform(max(0, bottom - height), min(top, size[0] - height))
    x = rng.uniform(max(0, right - width), min(left, size[1] - width))
    return warps.crop(size, y, x, height, width)


def keeps_objects(labels: np.ndarray, homography: np.ndarray, objects: int, min_area: float) -> bool:
    """Whether every object keeps half of its area and at least `min_area` pixels inside the frame.

    Areas are counted in pixels of the source image `labels` (H, W): a stretched crop gains none.
    """
    ids = slice(1, objects + 1)
    before, after = label_maps.counts(labels)[ids], _counts_inside(labels, homography)[ids]
    return bool(np.all(after >= np.maximum(KEPT_PART * before, min_area)))


def _counts_inside(labels: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """How many pixels of each value of labels (H, W) a warp leaves inside the frame: int (256,).

    Under rotation, shear and perspective a pixel at the very edge may count either way (OpenCV rounds positions).
    """
    if homography[[0, 1, 2, 2], [1, 0, 0, 1]].any():
        return label_maps.counts(labels, warps.covers(labels.shape, np.linalg.inv(homography), labels.shape))
    # Stretched and moved alone: what stays is a box.
    box = []
    for side, scale, offset in zip(labels.shape, homography[[1, 0], [1, 0]], homography[[1, 0], [2, 2]], strict=True):
        position = scale * (np.arange(side) + 0.5) + offset
        inside = np.flatnonzero((position >= 0) & (position < side))
        box.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0))
    part = labels[tuple(box)]
    return label_maps.counts(part) if part.size else np.zeros(label_maps.VALUES, int)


def object_crop(size: Size, labels: np.ndarray, objects: int, min_area: float, rng: np.random.Generator) -> np.ndarray:
    """A random crop that keeps every object by half, else one that holds them all, else the full image."""
    for factor in CROP_FACTORS:
        candidate = random_crop(size, rng, factor)
        if keeps_objects(labels, candidate, objects, min_area):
            return candidate
    candidate = preserving_crop(size, rng, labels)
    return np.eye(3) if candidate is None else candidate


def image_warps(labels: np.ndarray, objects: int, frames: int, min_area: float, rng: np.random.Generator) -> list:
    """Homographies that make a pseudo-video of `frames` frames of one image; half basic, half crop-based clips.

    `labels` (H, W) holds the objects 1..`objects` of the image; `min_area` in its pixels.
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
    margin = rng.uniform(0.10, 0.25)
    height, width = size
    return warps.crop(size, height * margin, width * margin, height * (1 - 2 * margin), width * (1 - 2 * margin))


def video_warp(labels: np.ndarray, objects: int, min_area: float, rng: np.random.Generator) -> np.ndarray:
    """One homography for all frames of a real clip: a crop, or an affine or perspective warp that keeps the objects.

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
