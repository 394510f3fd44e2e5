"""Losses: HODOR's (specification section 5.1) and those of the memory methods (baselines specification, 1.2, 3.2)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hodor.config.methods import LossOptions
from hodor.data.images import VOID

# The released dice adds this to both means, and a sample with less overlap contributes 0.
SMOOTH = 1e-6


def cross_entropy_and_dice(
    logits: Sequence[Tensor], targets: Sequence[Tensor], *, full: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Tensor, Tensor]:
    """Compute cross-entropy and joint dice over all predictions of a batch.

    Full-resolution tensors are recomputed in the backward pass, one prediction at a time, instead of being stored.

    Args:
        logits: one tensor per prediction, which `full` maps to (B, 1 + K, H, W), channel 0 background.
        targets: labels (B, H, W) in 0..K of each prediction.
        full: deterministic map from logits to the size of the targets.

    Returns:
        Cross-entropy, the mean over predictions and pixels, and dice over one vector per sample that holds all objects,
        predictions and pixels, so that large objects dominate; both are means over the batch.
    """
    cross_entropy, overlap, total = 0.0, 0.0, 0.0
    for prediction, target in zip(logits, targets, strict=True):
        parts = _Recomputed.apply(prediction, target, full)
        cross_entropy, overlap, total = cross_entropy + parts[0], overlap + parts[1], total + parts[2]
    pixels = targets[0][0].numel() * len(logits)
    overlap, total = 2 * overlap / pixels, total / pixels
    dice = 1 - (overlap + SMOOTH) / (total + SMOOTH)
    dice = torch.where(overlap > SMOOTH, dice, torch.zeros_like(dice))
    return (cross_entropy / pixels).mean(), dice.mean()


class _Recomputed(torch.autograd.Function):
    """`_sums`, computed again in the backward pass.

    `torch.utils.checkpoint` does the same and imports the compiler for it, for as long as torch itself takes to import.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, full: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(prediction, target)
        device = prediction.device.type
        ctx.full, ctx.autocast = full, (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return _sums(prediction, target, full)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        prediction, target = ctx.saved_tensors
        prediction = prediction.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            sums = _sums(prediction, target, ctx.full)
            weighted = sum((a * b).sum() for a, b in zip(sums, gradients, strict=True))
        return *torch.autograd.grad(weighted, prediction), None, None  # gradients of its own would import the compiler


def _sums(prediction: Tensor, target: Tensor, full: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over pixels (B) of one prediction: cross-entropy, overlap per object, predicted plus true size per object."""
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
    """Average the cross-entropy of each sample's hardest pixels.

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
