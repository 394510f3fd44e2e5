"""Losses over several predictions of a clip (specification section 5.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Dice of the released code: both mean terms get this much, and a sample whose overlap is below it counts 0.
SMOOTH = 1e-6


def cross_entropy_and_dice(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy and joint dice of all predictions of a batch.

    Args:
        logits: for each prediction (B, 1 + K, H, W), channel 0 background, at the targets' size.
        targets: for each prediction the labels (B, H, W) in 0..K, integer.

    Returns:
        Two scalars. Cross-entropy is the mean over batch, predictions and pixels. Dice flattens objects, predictions
        and pixels into one vector a sample, so large objects dominate; mean over the batch.
    """
    cross_entropy, overlap, total = logits[0].new_zeros(()), 0.0, 0.0
    for prediction, target in zip(logits, targets, strict=True):
        log_p = functional.log_softmax(prediction.float(), dim=1)
        target = target.long().unsqueeze(1)
        log_true = log_p.gather(1, target)  # (B, 1, H, W)
        cross_entropy = cross_entropy - log_true.mean()
        foreground = target > 0
        # Only the true channel overlaps with the target, and all objects together have 1 - p(background).
        overlap = overlap + (log_true.exp() * foreground).sum((1, 2, 3))
        total = total + ((1 - log_p[:, :1].exp()) + foreground).sum((1, 2, 3))
    size = (logits[0].shape[1] - 1) * logits[0][0, 0].numel() * len(logits)
    overlap, total = 2 * overlap / size, total / size
    dice = 1 - (overlap + SMOOTH) / (total + SMOOTH)
    return cross_entropy / len(logits), torch.where(overlap > SMOOTH, dice, torch.zeros_like(dice)).mean()
