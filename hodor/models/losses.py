"""Losses over several predictions of a clip (specification section 5.1)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Dice of the released code: both mean terms get this much, and a sample whose overlap is below it counts 0.
SMOOTH = 1e-6


def cross_entropy_and_dice(
    logits: Sequence[Tensor], targets: Sequence[Tensor], *, full: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and joint dice of all predictions of a batch.

    Nothing at full resolution is kept for the backward pass, which computes it again, one prediction at a time: that is
    cheaper than the memory for all of them.

    Args:
        logits: for each prediction what `full` turns into (B, 1 + K, H, W), channel 0 background, at the targets' size.
        targets: for each prediction the labels (B, H, W) in 0..K, integer.
        full: as it stands, or resized and merged; without random numbers.

    Returns:
        Two scalars, means over the batch. Cross-entropy is the mean over predictions and pixels. Dice flattens objects,
        predictions and pixels into one vector a sample, so large objects dominate.
    """
    cross_entropy, overlap, total = 0.0, 0.0, 0.0
    for prediction, target in zip(logits, targets, strict=True):
        parts = checkpoint(_sums, prediction, target, full, use_reentrant=False, preserve_rng_state=False)
        cross_entropy, overlap, total = cross_entropy + parts[0], overlap + parts[1], total + parts[2]
    pixels = targets[0][0].numel() * len(logits)
    overlap, total = 2 * overlap / pixels, total / pixels
    dice = 1 - (overlap + SMOOTH) / (total + SMOOTH)
    dice = torch.where(overlap > SMOOTH, dice, torch.zeros_like(dice))
    return (cross_entropy / pixels).mean(), dice.mean()


def _sums(prediction: Tensor, target: Tensor, full: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of one prediction, sums (B) over pixels: cross-entropy; overlap with the objects, and size of both, by objects."""
    log_p = functional.log_softmax(full(prediction).float(), dim=1)
    target = target.long().unsqueeze(1)
    log_true = log_p.gather(1, target)  # (B, 1, H, W)
    foreground = target > 0
    # Only the true channel overlaps with the target, and all objects together have 1 - p(background).
    overlap = (log_true.exp() * foreground).sum((1, 2, 3))
    total = ((1 - log_p[:, :1].exp()) + foreground).sum((1, 2, 3))
    objects = log_p.shape[1] - 1
    return -log_true.sum((1, 2, 3)), overlap / objects, total / objects
