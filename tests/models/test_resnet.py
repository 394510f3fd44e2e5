"""Residual networks under torchvision's names and what memory methods take from ImageNet weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hodor.errors import HodorError
from hodor.models.base import build_method
from hodor.models.resnet import FrozenBatchNorm, ResNet, load_imagenet


def test_frozen_batch_norm_is_batch_norm_in_evaluation():
    reference, ours = nn.BatchNorm2d(5), FrozenBatchNorm(5).train()
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = torch.rand(5) + 0.5
            getattr(reference, name).copy_(value)
            getattr(ours, name).copy_(value)
    x = torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(ours(x), reference.eval()(x))


@pytest.mark.parametrize(
    ("bottleneck", "depths", "channels", "parameters"),
    [(True, (3, 4, 6), [256, 512, 1024], 8_543_296), (False, (2, 2, 2), [64, 128, 256], 2_782_784)],
)
def test_published_sizes(bottleneck, depths, channels, parameters):
    """torchvision's ResNet-50 and ResNet-18 without their last stage and classes."""
    network = ResNet(bottleneck=bottleneck, depths=depths)
    assert network.channels == channels
    assert sum(p.numel() for p in network.parameters()) == parameters
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 64, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16), strict=True)
    ]


@pytest.fixture(scope="module")
def weight_set(tmp_path_factory):
    """A prepared weight set with random values, as entries by file."""
    folder, out = tmp_path_factory.mktemp("resnet-imagenet"), {}
    for kind, bottleneck, depths in (("resnet50", True, (3, 4, 6)), ("resnet18", False, (2, 2, 2))):
        state = ResNet(bottleneck=bottleneck, depths=depths).state_dict()
        out[kind] = {name: torch.rand_like(value) for name, value in state.items()}
        save_file(out[kind], folder / f"{kind}.safetensors")
    return folder, out


@pytest.mark.parametrize(("name", "memory"), [("stm", "resnet50"), ("stcn", "resnet18")])
def test_both_encoders_start_from_imagenet(weight_set, name, memory):
    folder, released = weight_set
    method = build_method(name, {"weights": "resnet-imagenet"})
    network = method.network
    before = {key: value.clone() for key, value in network.memory_encoder.backbone.state_dict().items()}
    method.load_starting_weights(folder)
    for encoder, kind in ((network.query_encoder, "resnet50"), (network.memory_encoder.backbone, memory)):
        own = encoder.state_dict()
        for key, value in released[kind].items():
            assert torch.equal(own[key][:, :3] if key == "conv1.weight" else own[key], value), key
        rest = own.keys() - released[kind].keys()
        assert all(key.endswith(".bias") and torch.equal(own[key], before[key]) for key in rest)
    assert torch.equal(network.memory_encoder.backbone.conv1.weight[:, 3:], before["conv1.weight"][:, 3:])


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
def test_weights_that_do_not_fit(weight_set, tmp_path, fault):
    entries = dict(weight_set[1]["resnet18"])
    if fault == "missing":
        del entries["bn1.weight"]
    elif fault == "unexpected":
        entries["layer4.0.conv1.weight"] = torch.zeros(1)
    else:
        entries["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(HodorError, match=rf"r\.safetensors: no ImageNet weights for this resnet18: 1 {fault}"):
        load_imagenet(ResNet(bottleneck=False, depths=(2, 2, 2)), entries, tmp_path / "r.safetensors")


def test_a_weight_set_that_is_not_there(tmp_path, memory_method):
    with pytest.raises(HodorError, match=r"resnet50\.safetensors: no such"):
        memory_method("stm", backbone="resnet").load_starting_weights(tmp_path)


def test_mask_filters_of_stcn_start_orthogonal():
    filters = build_method("stcn", {"others": True}).network.memory_encoder.backbone.conv1.weight[:, 3:]
    for channel in filters.unbind(1):
        channel = channel.flatten(1)  # 64 filters of 49 pixels: the columns are orthonormal
        torch.testing.assert_close(channel.t() @ channel, torch.eye(49), atol=1e-5, rtol=0)
