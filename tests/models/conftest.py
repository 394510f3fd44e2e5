"""Clips for the tests of methods."""

import numpy as np
import pytest
import torch

from hodor.data.clip import Clip


@pytest.fixture
def squares():
    """Return a function that creates a clip (B, T, 64, 96) of squares that drift on noise."""

    def make(objects=2, frames=3, batch=2, size=(64, 96), annotated=None) -> Clip:
        rng = np.random.default_rng(0)
        labels = np.zeros((batch, frames, *size), np.uint8)
        for t in range(frames):
            for i in range(objects):
                left = 4 + 28 * i + 2 * t
                labels[:, t, 12 + 4 * i : 40 + 4 * i, left : left + 24] = i + 1
        pixels = rng.integers(0, 256, (batch, frames, 3, *size), dtype=np.uint8)
        pixels = np.where(labels[:, :, None] > 0, pixels // 4 + 60 * labels[:, :, None], pixels // 4)
        shown = torch.ones(batch, frames, *size, dtype=torch.bool)
        labels, pixels = torch.from_numpy(labels), torch.from_numpy(pixels.astype(np.uint8))
        return Clip(pixels, labels, shown, objects, annotated or (True,) * frames)

    return make
