"""Masks over a frame: objects in the DAVIS palette, half transparent, with outlines."""

import cv2
import numpy as np

from hodor.data.images import DAVIS_PALETTE

OPACITY = 0.5


def overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A frame, uint8 RGB (H, W, 3), under its labels, uint8 (H, W): a new image of the same form.

    Objects are tinted with their colour; along their edges, inside, runs a line of that colour with a white one beside
    it, both as wide as a 320th of the short side, at least one pixel.
    """
    inside = labels > 0
    if not inside.any():
        return frame.copy()
    colours = DAVIS_PALETTE[labels]
    out = frame.copy()
    out[inside] = (OPACITY * colours[inside] + (1 - OPACITY) * frame[inside]).round().astype(np.uint8)
    width = max(1, round(min(labels.shape) / 320))
    line, rim = (_border(labels, distance) & inside for distance in (width, 2 * width))
    out[rim] = colours[rim]
    out[line] = 255
    return out


def _border(labels: np.ndarray, distance: int) -> np.ndarray:
    """Pixels that are at most `distance` pixels away from one of another label, bool (H, W)."""
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    return cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
