"""Hide-and-Seek: parts of training frames are hidden (KMN; baselines specification, sections 2.2 and 2.7)."""

from dataclasses import replace

import numpy as np

from hodor.config.stages import HideAndSeek
from hodor.data.batches import Sample
from hodor.data.warps import black_out


def hiding_probability(options: HideAndSeek, step: int, steps: int) -> float:
    """The probability of a cell at training step `step` of `steps`: a line from 0, then `options.probability`."""
    ramp = options.ramp * steps
    return options.probability * (min(1.0, step / ramp) if ramp else 1.0)


def hide(sample: Sample, options: HideAndSeek, probability: float, rng: np.random.Generator) -> Sample:
    """The sample with grid cells hidden: no image is valid there, and the labels are background or as they were."""
    count, height, width = sample.labels.shape
    cells = rng.random((count, options.grid, options.grid)) < probability
    if not options.reference:
        cells[0] = False
    rows = np.arange(height) * options.grid // height
    columns = np.arange(width) * options.grid // width
    shown = ~cells.take(rows, axis=1).take(columns, axis=2)
    frames = np.stack([black_out(frame.copy(), where) for frame, where in zip(sample.frames, shown, strict=True)])
    labels = sample.labels if options.labels == "keep" else sample.labels * shown.view(np.uint8)
    return replace(sample, frames=frames, labels=labels, valid=sample.valid & shown)
