"""Losses: HODOR's (specification section 5.1) and those of the memory methods (baselines specification, 1.2, 3.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hodor.config.methods import LossOptions
from hodor.data.images import VOID

SMOOTH = 1e-6
"""Added to both means of the released dice, in which a sample with less overlap counts 0."""


def cross_entropy_and_dice(
    logits: Sequence[Tensor], targets: Sequence[Tensor], *, full: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and joint dice over all predictions of a batch, as means over the batch.

    Dice is of one vector per sample with all objects, predictions and pixels, so that large objects dominate.
    Full-resolution tensors are recomputed in the backward pass, one prediction at a time, instead of being stored.

    Args:
        logits: one tensor per prediction, which `full` maps to (B, 1 + K, H, W), channel 0 background.
        targets: labels (B, H, W) in 0..K of each prediction.
        full: deterministic map from logits to the size of the targets.
    """
    cross_entropy, overlap, total = 0.0, 0.0, 0.0
    for prediction, target in zip(logits, targets, strict=True):
        parts = checkpoint(_sums, prediction, target, full, use_reentrant=False, preserve_rng_state=False)
        cross_entropy, overlap, total = cross_entropy + parts[0], overlap + parts[1], total + parts[2]
    pixels = targets[0][0].numel() * len(logits)
    overlap, total = 2 * overlap / pixels, total / pixels
    dice = torch.where(overlap > SMOOTH, 1 - (overlap + SMOOTH) / (total + SMOOTH), 0)
    return (cross_entropy / pixels).mean(), dice.mean()


def _sums(prediction: Tensor, target: Tensor, full: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums (B) over the pixels of a prediction: cross-entropy, mean overlap and mean size of both of an object."""
    log_p = functional.log_softmax(full(prediction).float(), dim=1)
    target = target.long().unsqueeze(1)
    log_true = log_p.gather(1, target)  # (B, 1, H, W)
    foreground = target > 0
    # Only the true channel overlaps with the target; the objects' probabilities sum to 1 - p(background).
    overlap = (log_true.exp() * foreground).sum((1, 2, 3))
    total = ((1 - log_p[:, :1].exp()) + foreground).sum((1, 2, 3))
    objects = log_p.shape[1] - 1
    return -log_true.sum((1, 2, 3)), overlap / objects, total / objects


def hard_fraction(step: int, options: LossOptions) -> float:
    """Return the fraction of hardest pixels in the loss of a training step; 1 for plain cross-entropy."""
    if options.loss == "cross-entropy" or step < options.bootstrap_start:
        return 1.0
    progress = min(1.0, (step - options.bootstrap_start) / (options.bootstrap_end - options.bootstrap_start))
    return 1.0 - progress * (1.0 - options.bootstrap_part)


def bootstrapped_cross_entropy(logits: Tensor, labels: Tensor, fraction: float) -> Tensor:
    """Return the mean cross-entropy of each sample's hardest pixels.

    Args:
        logits: (B, 1 + K, H, W).
        labels: (B, H, W) in 0..K, or VOID for ignored pixels.
        fraction: of the pixels, in (0, 1].
    """
    labels = labels.long()
    loss = functional.cross_entropy(logits.float(), labels, ignore_index=VOID, reduction="none").flatten(1)  # (B, H W)
    if fraction < 1:
        return loss.topk(max(1, int(fraction * loss.shape[1])), dim=1, sorted=False).values.mean()
    counted = (labels != VOID).flatten(1).sum(1).clamp(min=1)
    return (loss.sum(1) / counted).mean()
