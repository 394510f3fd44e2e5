"""The loss against its written definition (specification section 5.1)."""

import pytest
import torch
from torch.nn import functional

from hodor.models.losses import cross_entropy_and_dice


def by_definition(logits, targets):
    cross_entropy = torch.stack([functional.cross_entropy(x, t) for x, t in zip(logits, targets, strict=True)]).mean()
    dice = []
    for b in range(len(targets[0])):
        p = torch.cat([x[b].softmax(0)[1:].flatten() for x in logits])
        t = torch.cat(
            [functional.one_hot(t[b], x.shape[1]).permute(2, 0, 1)[1:].flatten() for x, t in zip(logits, targets)]
        )
        overlap, total = 2 * (p * t).mean(), (p + t).mean()
        dice.append(1 - (overlap + 1e-6) / (total + 1e-6) if overlap > 1e-6 else torch.zeros(()))
    return cross_entropy, torch.stack(dice).mean()


def full(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=4, mode="bilinear")


@pytest.mark.parametrize("upsample", [None, full])
def test_equals_the_definition_with_its_gradient_and_keeps_nothing_at_full_resolution(upsample):
    generator = torch.Generator().manual_seed(2)
    logits = [torch.randn(2, 4, 8, 8, generator=generator).requires_grad_() for _ in range(3)]
    large = [upsample(x) if upsample else x for x in logits]
    targets = [torch.randint(0, 4, (2, *large[0].shape[2:]), generator=generator) for _ in range(3)]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        ours = cross_entropy_and_dice(logits, targets, **({"full": full} if upsample else {}))
    assert not upsample or max(kept) <= targets[0].numel() < large[0].numel()  # the labels are the largest
    expected = by_definition(large, targets)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(sum(pair), logits) for pair in (ours, expected)]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_a_sample_without_any_object_adds_no_dice():
    logits = [torch.zeros(2, 2, 4, 4)]
    targets = [torch.zeros(2, 4, 4, dtype=torch.long)]
    assert cross_entropy_and_dice(logits, targets)[1] == 0
    targets[0][1, :2] = 1
    assert cross_entropy_and_dice(logits, targets)[1].item() == pytest.approx((1 - 2 * 0.25 / 1) / 2, rel=1e-4)
