"""Sizes of frames, and masks resized and restored."""

import numpy as np
import torch

from hodor.config.stages import InferenceOptions
from hodor.models.frames import Geometry, fit_masks


def test_published_sizes():
    """854x480 becomes 911x512, padded 928x512 (specification section 6)."""
    geometry = Geometry.of((480, 854), InferenceOptions(short_side=512))
    assert geometry.resized == (512, 911) and geometry.padded == (512, 928)
    capped = Geometry.of((480, 854), InferenceOptions(short_side=512, long_side=854))
    assert capped.resized == (480, 854) and capped.padded == (480, 864)


def test_masks_survive_resizing_and_restoring():
    for size in ((480, 854), (33, 97), (200, 120)):
        mask = np.zeros(size, bool)
        mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
        geometry = Geometry.of(size, InferenceOptions(short_side=256))
        fitted = fit_masks([mask], geometry, torch.device("cpu"))
        assert fitted.shape == (1, 1, *geometry.padded) and set(fitted.unique().tolist()) == {0, 1}
        back = geometry.restore(fitted)[0, 0].numpy() > 0.5
        assert back.shape == size
        assert (back & mask).sum() / (back | mask).sum() > 0.85
