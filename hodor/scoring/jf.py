"""Region similarity J and boundary accuracy F of masks, by the official metric functions.

J is the intersection over union of two masks (1 where both are empty); F is the harmonic mean of the
precision and the recall of boundary pixels, a boundary pixel being right if the other mask has one within a
distance of ceil(0.008 x image diagonal) pixels (Perazzi et al., CVPR 2016; Pont-Tuset et al.,
arXiv:1704.00675).

The functions are those of the official DAVIS toolkit, unchanged, as the package esdft-segmetric ships them.
"""

from collections.abc import Iterable
from importlib import metadata

import numpy as np
from segmetric.metrics import db_eval_boundary, db_eval_iou
from segmetric.utils import db_statistics

BOUNDARY_TOLERANCE = 0.008
"""Boundary tolerance as a fraction of the image diagonal (official value)."""

PACKAGE = "esdft-segmetric"

# `db_statistics` holds the edges of its four bins as uint8 and adds 1 to them: right up to 255 values.
_LARGEST_EXACT = 255


def implementation() -> str:
    """Which code computed the numbers, in one line for provenance files and tables."""
    return (
        f"official metric functions ({PACKAGE} {metadata.version(PACKAGE)}), protocol re-implemented and "
        "verified against the official toolkit's output; the official toolkit itself was not used"
    )


def frame_scores(truth: np.ndarray, prediction: np.ndarray, ids: Iterable[int]) -> list[tuple[float, float]]:
    """J and F of each object in one frame.

    Args:
        truth, prediction: uint8 (H, W) labels, the same size.
        ids: of K objects; every other label is background.

    Returns:
        K pairs (J, F), each in 0..1, in the order of `ids`.
    """
    scores = []
    for id in ids:
        wanted, found = truth == id, prediction == id
        with np.errstate(invalid="ignore"):  # two empty masks are 0 / 0 inside, and 1 outside
            j = db_eval_iou(wanted, found)
        f = db_eval_boundary(wanted, found, bound_th=BOUNDARY_TOLERANCE)
        scores.append((float(j), float(f)))
    return scores


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall (share of frames above 0.5) and decay (first quarter minus last quarter) of one object.

    Args:
        values: float64 (T,) with T >= 1, the scores of the object's frames in their order.

    The decay of more than 255 frames is computed here, by the same rule: the official function overflows
    there (no DAVIS sequence is that long, so that no published number is affected).
    """
    if len(values) > _LARGEST_EXACT:
        return float(np.mean(values)), float(np.mean(values > 0.5)), _decay(values)
    mean, recall, decay = db_statistics(values)
    return float(mean), float(recall), float(decay)


def _decay(values: np.ndarray) -> float:
    # The official edges: five positions spread over 1..T, a half rounded up; both edges belong to a bin.
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return float(np.mean(first) - np.mean(last))
