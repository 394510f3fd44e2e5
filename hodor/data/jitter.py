"""Random changes of colour by four factors, as STCN and followers of STM use them (baselines specification, 1.7, 3.2).

Everything is drawn from the generator given.
"""

from typing import NamedTuple

import cv2
import numpy as np

from hodor.data.augment import turn_hue

# Weights of red, green and blue in grey (ITU-R BT.601).
_GREY = np.array([0.299, 0.587, 0.114])


class Strength(NamedTuple):
    """Largest change of each factor from 1, and largest turn of the hue in parts of the circle."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


def jitter(
    image: np.ndarray, strength: Strength, rng: np.random.Generator, valid: np.ndarray | None = None
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, in random order, each uniformly up to its strength.

    Brightness multiplies; contrast moves away from the mean grey, saturation away from a pixel's grey.

    Args:
        image: uint8 RGB (H, W, 3), unchanged.
        valid: bool (H, W), the pixels that the mean grey is taken over; all where None.

    Returns:
        uint8 RGB (H, W, 3).
    """
    factors = rng.uniform(-1, 1, 4) * strength
    for kind in rng.permutation(4):
        change = factors[kind]
        if change == 0:
            continue
        if kind == 0:
            image = _levels(image, 1 + change, 0.0)
        elif kind == 1:
            mask = None if valid is None else valid.view(np.uint8)
            mean = float(np.dot(cv2.mean(image, mask)[:3], _GREY))
            image = _levels(image, 1 + change, -change * mean)
        elif kind == 2:
            image = cv2.transform(image, (1 + change) * np.eye(3) - change * _GREY[None].repeat(3, 0))
        else:
            image = _turn_hue(image, change)
    return image


def greyscale(image: np.ndarray) -> np.ndarray:
    """The grey of uint8 RGB (H, W, 3) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _levels(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return cv2.LUT(image, np.clip(np.rint(np.arange(256) * factor + offset), 0, 255).astype(np.uint8))


def _turn_hue(image: np.ndarray, part: float) -> np.ndarray:
    # OpenCV's hue has 180 steps.
    return turn_hue(image, np.rint((np.arange(256) + part * 180) % 180).astype(np.uint8) % 180)
