"""Small networks and data for the tests of methods."""

import numpy as np
import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.models.base import build_method
from tests.narrow import MEMORY


@pytest.fixture
def memory_method():
    """Return a function that builds a small memory method by name; `inference` settings are a dict."""

    def build(name: str, *, inference: dict | None = None, seed: int = 0, **options):
        torch.manual_seed(seed)
        settings = InferenceOptions(**{"short_side": 64} | (inference or {}))
        return build_method(name, MEMORY | options, settings).eval()

    return build


@pytest.fixture
def squares():
    """Return a function that creates a clip (B, T, 64, 96) of squares that drift on noise."""

    def make(objects=2, frames=3, batch=2, size=(64, 96), annotated=None, seed=0) -> Clip:
        rng = np.random.default_rng(seed)
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


class Video:
    """Frames of noise, uint8 (H, W, 3), and boxes, bool (H, W)."""

    def __init__(self, size=(64, 96)):
        self.size = size

    def frame(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (*self.size, 3), dtype=np.uint8)

    def box(self, top: int, left: int, side: int = 24) -> np.ndarray:
        mask = np.zeros(self.size, bool)
        mask[top : top + side, left : left + side] = True
        return mask


@pytest.fixture
def video():
    return Video
