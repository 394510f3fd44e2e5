"""Aggregation, losses, encoders and the training step of memory networks."""

import pytest
import torch
from torch.nn import functional

from hodor.config.methods import MemoryOptions, STCNOptions
from hodor.config.rows import options_class
from hodor.data.clip import Clip
from hodor.models.losses import bootstrapped_cross_entropy, hard_fraction
from hodor.models.memory.network import aggregate
from tests.narrow import small
from tests.refused import refused

# Aggregation


def test_aggregate_is_odds_over_their_sum():
    p = torch.rand(1, 3, 2, 2) * 0.9 + 0.05
    every = torch.cat([(1 - p).prod(1, keepdim=True), p], 1)
    odds = every / (1 - every)
    torch.testing.assert_close(aggregate(p).softmax(1), odds / odds.sum(1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_aggregate_of_certain_objects_is_finite(dtype):
    p = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=dtype).view(1, 2, 1, 3)
    logits = aggregate(p)
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
    torch.testing.assert_close(
        logits.softmax(1)[0, :, 0], torch.tensor([[1.0, 0, 0], [0, 1.0, 0.5], [0, 0, 0.5]]), atol=1e-6, rtol=0
    )


# Losses


def test_the_hard_fraction_falls_linearly():
    options = STCNOptions()
    assert [hard_fraction(step, options) for step in (0, 19_999, 20_000)] == [1, 1, 1]
    assert hard_fraction(45_000, options) == pytest.approx(1 - 0.85 / 2)
    assert hard_fraction(70_000, options) == hard_fraction(10**6, options) == pytest.approx(0.15)
    assert hard_fraction(10**6, MemoryOptions()) == 1


def test_bootstrapped_loss_is_the_mean_of_the_hardest_pixels_of_each_sample():
    logits, labels = torch.randn(2, 3, 10, 10), torch.randint(0, 3, (2, 10, 10)).to(torch.uint8)
    each = functional.cross_entropy(logits, labels.long(), reduction="none").flatten(1)
    assert bootstrapped_cross_entropy(logits, labels, 1.0).item() == pytest.approx(each.mean().item(), rel=1e-6)
    hardest = each.sort(dim=1, descending=True).values[:, :15].mean()
    assert bootstrapped_cross_entropy(logits, labels, 0.15).item() == pytest.approx(hardest.item(), rel=1e-6)


@pytest.mark.parametrize("part", [1.0, 0.2])
def test_void_pixels_do_not_count(part):
    logits, labels = torch.randn(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[:, 4:] = 255
    logits.requires_grad_()
    loss = bootstrapped_cross_entropy(logits, labels, part)
    loss.backward()
    assert logits.grad[:, :, 4:].abs().max() == 0 and logits.grad[:, :, :4].abs().max() > 0
    if part == 1:
        alone = bootstrapped_cross_entropy(logits[:, :, :4], labels[:, :4], part)
        assert loss.item() == pytest.approx(alone.item(), rel=1e-6)


def test_a_void_pixel_is_background_in_the_input(squares):
    method, clip = small("stm"), squares(objects=1)
    void = clip.labels.clone()
    void[:, 0, -8:] = 255
    with torch.no_grad():
        plain = method.loss(clip, 0)["loss"]
        assert method.loss(Clip(clip.frames, void, clip.valid, 1, clip.annotated), 0)["loss"] == plain


# Network


def test_frames_read_the_soft_attached_predictions_before_them(squares):
    network = small("stcn").network
    masks = []
    memorise = network.memorise
    network.memorise = lambda frames, given, query: masks.append(given) or memorise(frames, given, query)
    frames, given = torch.randn(1, 4, 3, 64, 96), torch.zeros(1, 2, 64, 96)
    given[:, 0, :32], given[:, 1, 40:] = 1, 1
    logits = network.clip(frames, given)
    assert len(logits) == 3 and len(masks) == 3 and masks[0] is given
    for t in (1, 2):
        torch.testing.assert_close(masks[t], logits[t - 1].softmax(1)[:, 1:])
    logits[0].retain_grad()
    logits[2].mean().backward()
    assert logits[0].grad.abs().max() > 0


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_the_loss_is_the_sum_over_annotated_frames(squares, name):
    method = small(name)
    whole = squares(objects=2, frames=3)
    one = Clip(whole.frames, whole.labels, whole.valid, 2, (True, False, True))
    other = Clip(whole.frames, whole.labels, whole.valid, 2, (True, True, False))
    with torch.no_grad():
        both, first, second = (method.loss(clip, 0)["loss"] for clip in (whole, one, other))
    torch.testing.assert_close(both, first + second)
    refused("annotated", method.loss, Clip(whole.frames, whole.labels, whole.valid, 2, (True, False, False)), 0)


def test_bootstrapping_depends_on_the_step(squares):
    method = small("stcn", bootstrap_start=10, bootstrap_end=20)
    with torch.no_grad():
        early, late = method.loss(squares(), 9), method.loss(squares(), 20)
    assert set(early) == {"loss"} and late["cross_entropy"] == early["loss"] and late["loss"] > early["loss"]


@pytest.mark.parametrize("backbone", ["resnet", "efficientnet-lite0"])
@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_every_parameter_learns(squares, name, backbone):
    method = small(name, backbone=backbone, memory_backbone=backbone).train()
    method.loss(squares(), 0)["loss"].backward()
    idle = [key for key, p in method.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # The channel gate's hidden layer is two units wide here, either of which may be off.
    assert [key for key in idle if ".attention.channel." not in key] == []


def test_batch_norms_keep_their_statistics(squares):
    method = small("stm", backbone="resnet").train()
    before = {key: value.clone() for key, value in method.state_dict().items() if "running" in key}
    method.loss(squares(), 0)
    assert before and all(torch.equal(value, method.state_dict()[key]) for key, value in before.items())
    frames = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        single = torch.cat([method.network.query(frame[None]).coarse for frame in frames])
        torch.testing.assert_close(method.network.query(frames).coarse, single, atol=1e-4, rtol=1e-4)


def test_a_finer_grid():
    network = small("stcn", stride=2).network
    query = network.query(torch.randn(1, 3, 32, 48))
    assert query.key.shape[2:] == (4, 6) and query.fine.shape[2:] == (16, 24)
    assert network.clip(torch.randn(1, 2, 3, 32, 48), torch.zeros(1, 1, 32, 48))[0].shape == (1, 2, 32, 48)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("stm", {"stride": 2, "backbone": "resnet"}, "stride"),
        ("stm", {"pretrained": True}, "pretrained"),
        ("stm", {"weights": "resnet-imagenet", "backbone": "convnet"}, "weights"),
        ("stm", {"bootstrap_start": 5, "bootstrap_end": 5}, "bootstrap_end"),
        ("stm", {"backbone_frozen": 2, "memory_backbone": "efficientnet-lite0"}, "backbone_frozen"),
        ("stm", {"one_encoder": True, "backbone": "convnet", "memory_encoder": "fused"}, "one_encoder"),
        ("stm", {"one_encoder": True, "backbone": "resnet", "memory_encoder": "separate"}, "one_encoder"),
        ("dmn-aoa", {"training_scales": (0.5, 2)}, "training_scales"),
        ("dmn-aoa", {"training_scales": (2, 1.5)}, "training_scales"),
        ("dmn-aoa", {"stride": 2}, "stride"),
        ("dmn-aoa", {"top_k": 3}, "top_k"),
        ("dmn-aoa", {"weights": "resnet-imagenet", "backbone": "convnet"}, "weights"),
        ("dmn-aoa", {"bootstrap_start": 5, "bootstrap_end": 5}, "bootstrap_end"),
    ],
)
def test_options_that_contradict_each_other(method, options, message):
    with pytest.raises(ValueError, match=message):
        options_class(method)(**options)


def test_with_one_encoder_keys_agree_from_the_start():
    """Without a mask the memorised keys are the query's; with one, many positions still match themselves."""
    network = small("stm", memory_encoder="separate", one_encoder=True, others=True).network.eval()
    torch.manual_seed(0)
    frame = torch.randn(1, 3, 64, 96)
    query = network.query(frame)
    key, _ = network.memorise(frame, torch.zeros(1, 1, 64, 96), None)
    torch.testing.assert_close(key[:, 0], query.key)
    key, _ = network.memorise(frame, torch.zeros(1, 1, 64, 96).index_fill_(2, torch.arange(20, 40), 1.0), None)
    found = torch.einsum("cm,cq->mq", key[0, 0].flatten(1), query.key[0].flatten(1)).argmax(0)
    assert (found == torch.arange(len(found))).float().mean() > 0.25  # by chance: 0.04
    assert not torch.equal(key[:, 0], query.key)


def test_mask_filters_of_small_backbones_are_large():
    """Mask filters start four times as large as image filters, of which each sees three channels."""
    for options in ({"backbone": "convnet"}, {"backbone": "efficientnet-lite0"}):
        weight = small("stm", **options).network.memory_encoder.backbone.stem.weight
        assert weight.shape[1] == 5
        assert 3 < (weight[:, 3:].std() / weight[:, :3].std()).item() < 5
