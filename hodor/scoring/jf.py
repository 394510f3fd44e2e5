"""Region similarity J and boundary accuracy F, bit-identical to the official functions and several times faster.

J is the intersection over union of two masks, 1 where both are empty. F is the harmonic mean of precision and recall of
boundary pixels: a boundary pixel matches if the other mask has one within ceil(0.008 x image diagonal) pixels; F is 1 if
neither mask has a boundary and 0 if only one has (Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv:1704.00675). What
the papers leave open follows the official toolkit, davis2017-evaluation:

- A pixel is on the boundary of a mask if the 2 x 2 block of the pixel and its right and lower neighbours holds pixels
  inside and outside the mask. The last row and column have no such neighbours, so a mask has no boundary there.
- Distances are Euclidean between pixel centres; a distance equal to the tolerance matches.

Counts are integers and the final divisions are those of the official functions. Speed comes from bit planes: one byte per
pixel holds the masks of four objects in the ground truth and in the prediction, and every operation works on all eight.
Only the box around the objects is read, and the disk of the tolerance is built from shifted copies, wider rows from
narrower ones.
"""

import math
from collections.abc import Iterable
from functools import cache

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008
"""Boundary tolerance as a fraction of the image diagonal (official value)."""

METRIC = (
    "J and F by hodor.scoring, verified equal to the official functions and to the official toolkit's output; "
    "the official toolkit itself was not used"
)
"""Code that computed the scores, for provenance files and tables."""

# Objects per byte: one bit each for the ground truth and the prediction.
_GROUP = 4
# OpenCV returns counts as float32, which is exact up to this number of pixels.
_EXACT_COUNT = 1 << 24
# bool (8, 256): whether a byte value has a bit.
_HAS_BIT = (np.arange(256) >> np.arange(8)[:, None] & 1).astype(bool)


def frame_scores(truth: np.ndarray, prediction: np.ndarray, ids: int | Iterable[int]) -> list[tuple[float, float]]:
    """Compute J and F of each object in one frame.

    Args:
        truth: ground truth, uint8 (H, W) labels; labels other than `ids` are background.
        prediction: predicted labels, uint8 (H, W).
        ids: labels of the objects, in 1..255; or a number K of objects with labels 1..K.

    Returns:
        (J, F) of each object in the order of `ids`, in 0..1.

    Raises:
        ValueError: wrong types or sizes, a label out of range or given twice.
    """
    ids = tuple(range(1, ids + 1)) if isinstance(ids, int) else tuple(ids)
    if truth.shape != prediction.shape or truth.ndim != 2 or not truth.dtype == prediction.dtype == np.uint8:
        raise ValueError(
            f"truth and prediction must both be uint8 (H, W), got {truth.dtype} {truth.shape} and "
            f"{prediction.dtype} {prediction.shape}"
        )
    if not all(1 <= id <= 255 for id in ids) or len(set(ids)) < len(ids):
        raise ValueError(f"object ids must be different labels in 1..255, got {ids}")
    tolerance = boundary_tolerance(truth.shape)
    truth, prediction = _crop(truth, prediction)
    groups = [ids[start : start + _GROUP] for start in range(0, len(ids), _GROUP)]
    return [score for group in groups for score in _group_scores(truth, prediction, group, tolerance)]


def boundary_tolerance(size: tuple[int, int]) -> int:
    """Return the distance in pixels within which boundary pixels match in an image of size (H, W)."""
    return int(np.ceil(BOUNDARY_TOLERANCE * np.linalg.norm(size)))


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Compute mean, recall (share of frames above 0.5) and decay (first minus last quarter) of one object.

    Equal to the official `db_statistics` up to 255 frames. Beyond these the official decay is wrong, because the edges of
    its quarters are stored as uint8; DAVIS has no longer sequence.

    Args:
        values: float64 (T,), T >= 1: scores of the object's frames in order.
    """
    # Five edges spread over 1..T, halves rounded up; a quarter includes both of its edges.
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return float(np.mean(values)), float(np.mean(values > 0.5)), float(np.mean(first) - np.mean(last))


def histogram(labels: np.ndarray) -> np.ndarray:
    """Count the pixels of each value of a uint8 array (H, W): int64 (256,)."""
    if labels.size > _EXACT_COUNT:
        return np.bincount(labels.ravel(), minlength=256)
    return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def _crop(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop both to the box of all nonzero labels, enlarged by one pixel to include every boundary pixel."""
    x, y, width, height = cv2.boundingRect(truth | prediction)
    box = (slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1))
    return np.ascontiguousarray(truth[box]), np.ascontiguousarray(prediction[box])


def _group_scores(
    truth: np.ndarray, prediction: np.ndarray, ids: tuple[int, ...], tolerance: int
) -> list[tuple[float, float]]:
    """Compute J and F of at most `_GROUP` objects."""
    table = np.zeros((2, 256), np.uint8)
    table[:, list(ids)] = 1 << np.arange(len(ids)) << np.array([[0], [_GROUP]])
    masks = cv2.LUT(truth, table[0]) | cv2.LUT(prediction, table[1])  # type: ignore[operator]
    area = histogram(masks)
    edges = _boundaries(masks)
    near = _dilate(edges, tolerance)
    at = np.flatnonzero(edges != 0)
    edges, near = edges.ravel()[at], near.ravel()[at]
    # A boundary pixel of the ground truth matches if one of the prediction is near, and vice versa.
    matched = edges & (near << _GROUP | near >> _GROUP)
    edges, matched = (np.bincount(values, minlength=256) for values in (edges, matched))
    scores = []
    for k in range(len(ids)):
        in_truth, in_prediction = _HAS_BIT[k], _HAS_BIT[k + _GROUP]
        both, either = int(area[in_truth & in_prediction].sum()), int(area[in_truth | in_prediction].sum())
        recalled, true_edge = int(matched[in_truth].sum()), int(edges[in_truth].sum())
        precise, found_edge = int(matched[in_prediction].sum()), int(edges[in_prediction].sum())
        scores.append((both / either if either else 1.0, _f_measure(precise, found_edge, recalled, true_edge)))
    return scores


def _boundaries(masks: np.ndarray) -> np.ndarray:
    """Return the bits of pixels whose 2 x 2 block (right and below) holds pixels with and without the bit."""
    some, every = masks.copy(), masks.copy()
    np.bitwise_or(masks[:, :-1], masks[:, 1:], out=some[:, :-1])
    np.bitwise_and(masks[:, :-1], masks[:, 1:], out=every[:, :-1])
    mixed = some ^ every  # the last row has no lower neighbours
    np.bitwise_xor(some[:-1] | some[1:], every[:-1] & every[1:], out=mixed[:-1])
    return mixed


@cache
def _disk(radius: int) -> dict[int, list[int]]:
    """Map each half width of the disk x^2 + y^2 <= radius^2 to its rows (distances from the centre)."""
    rows: dict[int, list[int]] = {}
    for y in range(radius, -1, -1):
        rows.setdefault(math.isqrt(radius * radius - y * y), []).append(y)
    return rows


def _dilate(masks: np.ndarray, radius: int) -> np.ndarray:
    """Return the bits that are set within `radius` pixels of each pixel, itself included."""
    height, width = masks.shape
    # All rows in one line, `radius` empty pixels between them, so that a shift of the line shifts each row.
    step = width + radius
    line = np.zeros(radius + height * step + radius, np.uint8)
    pixels = height * step
    line[radius : radius + pixels].reshape(height, step)[:, :width] = masks
    near = np.zeros(pixels, np.uint8)
    reach = 0  # `line` holds each pixel joined with its row neighbours up to `reach` away
    for half_width, rows in _disk(radius).items():
        while reach < half_width:
            # The copies shifted to the left and to the right must leave no gap between them.
            shift = min(half_width - reach, reach) or 1
            joined = line[: -2 * shift] | line[2 * shift :]
            if reach == 0:
                joined |= line[shift:-shift]
            line, reach = joined, reach + shift
        row = line[radius - reach :][:pixels]
        for y in (y for y in rows if y < height):
            near[y * step :] |= row[: pixels - y * step]
            if y:
                near[: -y * step] |= row[y * step :]
    return near.reshape(height, step)[:, :width]


def _f_measure(precise: int, in_prediction: int, recalled: int, in_truth: int) -> float:
    """Compute F from the numbers of matched and of all boundary pixels in the prediction and the ground truth."""
    if not in_prediction or not in_truth:
        return float(in_prediction == in_truth)
    precision, recall = precise / in_prediction, recalled / in_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
