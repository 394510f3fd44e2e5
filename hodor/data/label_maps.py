"""Operations on label maps, uint8 (H, W): drawing them from masks, counting, renaming and measuring their objects."""

from collections.abc import Iterable

import cv2
import numpy as np

VALUES = 256


def draw(masks: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the labels of masks (bool (H, W), at most 255): 1, 2, ... in their order, a later one on top."""
    labels = None
    for i, mask in enumerate(masks):
        shown = np.multiply(mask.view(np.uint8), np.uint8(i + 1))
        # The greatest label is the latest.
        labels = shown if labels is None else np.maximum(labels, shown, out=labels)
    if labels is None:
        return np.zeros(size, np.uint8)
    # COCO's masks are stored column by column.
    return labels if labels.flags.c_contiguous else cv2.transpose(labels.T)


def counts(labels: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Return the number of pixels of each value, int (256,), only where `where`, bool (H, W), is True, if given."""
    mask = None if where is None else where.view(np.uint8)
    return cv2.calcHist([labels], [0], mask, [VALUES], [0, VALUES]).ravel().astype(int)


def chosen_labels(labels: np.ndarray, chosen: np.ndarray, keep: int | None = None) -> np.ndarray:
    """Rename the ids `chosen`, in their order, to 1, 2, ...; `keep` stays, everything else becomes background."""
    renamed = np.zeros(VALUES, np.uint8)
    renamed[chosen] = np.arange(1, len(chosen) + 1)
    if keep is not None:
        renamed[keep] = keep
    return cv2.LUT(labels, renamed)


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return x, y, width, height of the pixels in a mask (H, W); all 0 where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)
