"""Region similarity J and boundary accuracy F of masks: equal to the official functions, several times faster.

J is the intersection over union of two masks, 1 where both are empty. F is the harmonic mean of the precision and the
recall of boundary pixels: a boundary pixel is right if the other mask has one within a distance of ceil(0.008 x image
diagonal) pixels; F is 1 where neither mask has a boundary and 0 where one has none (Perazzi et al., CVPR 2016;
Pont-Tuset et al., arXiv:1704.00675). What the papers leave open is as in the official toolkit,
davis2017-evaluation:

- A pixel is on the boundary of a mask if the 2 x 2 block of the pixel and those right of it and below holds pixels
  inside and outside the mask. At the last row and column of the image the block is cut off: along the border of the
  image a mask has no boundary.
- Distances are Euclidean, from pixel centre to pixel centre; the tolerance itself is near enough.

Up to the last divisions, which are those of the official functions, everything is counted in integers, so that the
numbers are the same to the last bit. What makes it fast: a byte of each pixel holds the masks of four objects in the
truth and in the prediction, and every operation works on all eight; only the part of a frame that holds objects is
looked at; the disk of the tolerance is put together from shifted copies, its wider rows from its narrower ones.
"""

import math
from collections.abc import Iterable
from functools import cache

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008
"""Boundary tolerance as a fraction of the image diagonal (official value)."""

# Objects that are worked on at once: one bit for the truth and one for the prediction of each.
_GROUP = 4
# OpenCV counts in float32, which is exact up to here.
_EXACT_COUNT = 1 << 24
# bool (8, 256): which bytes have that bit.
_HAS_BIT = (np.arange(256) >> np.arange(8)[:, None] & 1).astype(bool)


def implementation() -> str:
    """Which code computed the numbers, in one line for provenance files and tables."""
    return (
        "J and F by hodor.scoring, verified equal to the official functions and to the official toolkit's output; "
        "the official toolkit itself was not used"
    )


def frame_scores(truth: np.ndarray, prediction: np.ndarray, ids: int | Iterable[int]) -> list[tuple[float, float]]:
    """J and F of each object in one frame.

    Args:
        truth, prediction: uint8 (H, W) labels, the same size; every label other than those of `ids` is background.
        ids: the objects' labels, each in 1..255; or a number K of objects, whose labels are 1..K.

    Returns:
        (J, F) of each object, each in 0..1, in the order of `ids`.

    Raises:
        ValueError: other types or sizes, a label out of range or twice.
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
    return [score for group in groups for score in _scores_of_group(truth, prediction, group, tolerance)]


def boundary_tolerance(size: tuple[int, int]) -> int:
    """Distance in pixels up to which boundary pixels of an image of that (height, width) match."""
    return int(np.ceil(BOUNDARY_TOLERANCE * np.linalg.norm(size)))


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall (share of frames above 0.5) and decay (first quarter minus last quarter) of one object.

    Args:
        values: float64 (T,) with T >= 1, the scores of the object's frames in their order.

    Equal to the official `db_statistics` up to 255 frames. That one holds the edges of its bins as uint8, so that its
    decay is wrong for longer sequences (DAVIS has none); here the same rule holds for any length.
    """
    # Five edges spread over 1..T, a half rounded up; both edges belong to a bin.
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return float(np.mean(values)), float(np.mean(values > 0.5)), float(np.mean(first) - np.mean(last))


def _crop(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both label maps cut to the box of all that is not 0, one pixel wider: it holds every boundary pixel."""
    x, y, width, height = cv2.boundingRect(truth | prediction)
    # Where the box ends inside the image, its last row and column are background, as is what lies beyond.
    box = (slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1))
    return np.ascontiguousarray(truth[box]), np.ascontiguousarray(prediction[box])


def _scores_of_group(
    truth: np.ndarray, prediction: np.ndarray, ids: tuple[int, ...], tolerance: int
) -> list[tuple[float, float]]:
    """J and F of at most four objects: a byte of each pixel holds their masks in the truth and in the prediction."""
    table = np.zeros((2, 256), np.uint8)
    table[:, list(ids)] = 1 << np.arange(len(ids)) << np.array([[0], [_GROUP]])
    masks = cv2.LUT(truth, table[0]) | cv2.LUT(prediction, table[1])
    area = _histogram(masks)
    edges = _boundaries(masks)
    near = _dilate(edges, tolerance)
    at = np.flatnonzero(edges != 0)
    edges, near = edges.ravel()[at], near.ravel()[at]
    # Right is a boundary pixel of the truth where one of the prediction is near, and the other way round.
    right = edges & (near << _GROUP | near >> _GROUP)
    edges, right = (np.bincount(values, minlength=256) for values in (edges, right))
    scores = []
    for k in range(len(ids)):
        in_truth, in_prediction = _HAS_BIT[k], _HAS_BIT[k + _GROUP]
        both, either = int(area[in_truth & in_prediction].sum()), int(area[in_truth | in_prediction].sum())
        recalled, true_edge = int(right[in_truth].sum()), int(edges[in_truth].sum())
        precise, found_edge = int(right[in_prediction].sum()), int(edges[in_prediction].sum())
        scores.append((both / either if either else 1.0, _f_measure(precise, found_edge, recalled, true_edge)))
    return scores


def _histogram(masks: np.ndarray) -> np.ndarray:
    """int64 (256,): number of pixels of each value."""
    if masks.size > _EXACT_COUNT:
        return np.bincount(masks.ravel(), minlength=256)
    return cv2.calcHist([masks], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def _boundaries(masks: np.ndarray) -> np.ndarray:
    """Bits of the pixels whose 2 x 2 block (right and below) holds pixels with and without the bit."""
    some, every = masks.copy(), masks.copy()
    np.bitwise_or(masks[:, :-1], masks[:, 1:], out=some[:, :-1])
    np.bitwise_and(masks[:, :-1], masks[:, 1:], out=every[:, :-1])
    mixed = some ^ every  # of the last row, which has none below it
    np.bitwise_xor(some[:-1] | some[1:], every[:-1] & every[1:], out=mixed[:-1])
    return mixed


@cache
def _disk(radius: int) -> dict[int, list[int]]:
    """Half width -> rows (distances from the centre, 0 and up) of the disk x^2 + y^2 <= radius^2 that have it."""
    rows: dict[int, list[int]] = {}
    for y in range(radius, -1, -1):
        rows.setdefault(math.isqrt(radius * radius - y * y), []).append(y)
    return rows


def _dilate(masks: np.ndarray, radius: int) -> np.ndarray:
    """Bits of the pixels that have the bit within `radius` pixels, themselves included."""
    height, width = masks.shape
    # Rows lie one behind the other, with so many empty pixels between them that no pixel reaches from one row into
    # another: a shift along this line is a shift within rows.
    step = width + radius
    line = np.zeros(radius + height * step + radius, np.uint8)
    pixels = height * step
    line[radius : radius + pixels].reshape(height, step)[:, :width] = masks
    near = np.zeros(pixels, np.uint8)
    reach = 0  # `line` holds each pixel joined with all that lie in its row up to `reach` away
    for half_width, rows in _disk(radius).items():
        while reach < half_width:
            # Two copies, this far to the left and to the right, must leave no gap between them.
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
    """F from the numbers of right boundary pixels and of all, in the prediction and in the truth."""
    if not in_prediction or not in_truth:
        return float(in_prediction == in_truth)
    precision, recall = precise / in_prediction, recalled / in_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
