"""Cross-entropy over all pixels or over the hardest (baselines specification, sections 1.2 and 3.2)."""

from torch import Tensor
from torch.nn import functional

from hodor.config.methods import LossOptions
from hodor.data.images import VOID


def hard_part(step: int, options: LossOptions) -> float:
    """Which part of the pixels, the hardest, the loss of a step averages over; 1 for plain cross-entropy."""
    if options.loss == "cross-entropy" or step < options.bootstrap_start:
        return 1.0
    way = min(1.0, (step - options.bootstrap_start) / (options.bootstrap_end - options.bootstrap_start))
    return 1.0 - way * (1.0 - options.bootstrap_part)


def pixel_loss(logits: Tensor, labels: Tensor, part: float) -> Tensor:
    """Mean cross-entropy of each sample's hardest `part` of its pixels, averaged over the batch.

    Args:
        logits: (B, 1 + K, H, W).
        labels: (B, H, W) in 0..K, or VOID, which counts as no pixel.
        part: in (0, 1].
    """
    labels = labels.long()
    loss = functional.cross_entropy(logits.float(), labels, ignore_index=VOID, reduction="none").flatten(1)  # (B, H W)
    if part < 1:
        return loss.topk(max(1, int(part * loss.shape[1])), dim=1, sorted=False).values.mean()
    counted = (labels != VOID).flatten(1).sum(1).clamp(min=1)
    return (loss.sum(1) / counted).mean()
