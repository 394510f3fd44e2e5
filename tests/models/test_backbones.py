"""Backbones: sizes, strides, pretrained and initial weights."""

import pytest
import torch
from safetensors.torch import save_file

from hodor.config.methods import HODOROptions
from hodor.errors import HodorError
from hodor.models.backbones.convnet import ConvNet, EfficientNetLite0, lite0_weights_file
from hodor.models.backbones.resnet import ResNet, load_imagenet
from hodor.models.base import build_method
from hodor.models.frames import MEAN, STD, normalise
from hodor.models.hodor.network import build_backbone
from tests.narrow import small
from tests.refused import refused


@pytest.mark.parametrize(
    ("options", "strides"),
    [
        ({"backbone": "convnet", "backbone_width": 8, "backbone_depths": (1, 1, 1, 1)}, (4, 8, 16, 32)),
        ({"backbone": "efficientnet-lite0"}, (4, 8, 16, 32)),
        ({"backbone": "swin", "backbone_width": 32, "backbone_depths": (1, 2, 1, 1)}, (4, 8, 16, 32)),
        # As for a memory encoder: mask channels after the image's, no map after stride 16, a finer grid.
        (lambda: ConvNet(width=8, depths=(1, 1, 1), extra=2), (4, 8, 16)),
        (lambda: ConvNet(width=8, depths=(1, 1, 1), extra=2, stride=2), (2, 4, 8)),
        (lambda: EfficientNetLite0(pretrained=False, frozen=0, extra=2, levels=3), (4, 8, 16)),
    ],
)
def test_strides_of_maps(options, strides):
    further = callable(options)
    backbone = options() if further else build_backbone(HODOROptions(**options))
    maps = backbone(torch.randn(2, 5 if further else 3, 64, 96))
    sizes = [(2, channels, 64 // s, 96 // s) for channels, s in zip(backbone.channels, strides, strict=True)]
    assert [tuple(x.shape) for x in maps] == sizes
    if further:
        maps[-1].sum().backward()
        assert backbone.stride == strides[0] and all(p.grad is not None for p in backbone.parameters())


def test_lite0_equals_the_package_that_ships_its_weights():
    oracle_module = pytest.importorskip("efficientnet_lite_pytorch", reason="the oracle is a test dependency")
    oracle = oracle_module.EfficientNet.from_name("efficientnet-lite0")
    oracle.load_state_dict(torch.load(lite0_weights_file(), weights_only=True))
    oracle.eval()
    frames = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        ours = EfficientNetLite0(pretrained=True, frozen=0)(normalise(frames))
        x = oracle._swish(oracle._bn0(oracle._conv_stem((frames.float() - 127) / 128)))
        theirs = []
        for block in oracle._blocks:
            x = block(x)
            theirs.append(x)
    for ours_map, index in zip(ours, (2, 4, 10, 15), strict=True):
        assert torch.allclose(ours_map, theirs[index], atol=2e-4 * theirs[index].abs().max().item())


def test_normalise_fills_with_the_mean_colour():
    frames = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    valid = torch.tensor([[[True, False], [True, True]]])
    x = normalise(frames, valid)
    assert x[0, :, 0, 1].tolist() == [0, 0, 0]
    assert torch.allclose(x[0, :, 0, 0], torch.tensor([(255 - m) / s for m, s in zip(MEAN, STD, strict=True)]))


def test_pretrained_lite0_with_a_mask_channel_reads_the_image_as_without():
    torch.manual_seed(0)
    plain = EfficientNetLite0(pretrained=True, frozen=2).eval()
    masked = EfficientNetLite0(pretrained=True, frozen=2, extra=1, levels=3).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain(image)[:3]
        for ours, theirs in zip(masked(torch.cat([image, torch.zeros(1, 1, 64, 64)], 1)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        seen = masked(torch.cat([image, torch.ones(1, 1, 64, 64)], 1))[2]
    assert (seen - expected[2]).abs().max() > 1e-3
    assert masked.stem.weight.requires_grad and not masked.blocks[1].project.weight.requires_grad
    assert not plain.stem.weight.requires_grad


# Residual networks


@pytest.fixture(scope="module")
def weight_set(tmp_path_factory):
    """Return the folder of a weight set with random values, and its entries by file."""
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


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape", "not floating point"])
def test_weights_that_do_not_fit(weight_set, tmp_path, fault):
    entries = dict(weight_set[1]["resnet18"])
    if fault == "missing":
        del entries["bn1.weight"]
    elif fault == "unexpected":
        entries["layer4.0.conv1.weight"] = torch.zeros(1)
    elif fault == "not floating point":
        entries["conv1.weight"] = entries["conv1.weight"].int()
    else:
        entries["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(HodorError, match=rf"r\.safetensors: no ImageNet weights for this resnet18: 1 {fault}"):
        load_imagenet(ResNet(bottleneck=False, depths=(2, 2, 2)), entries, tmp_path / "r.safetensors")


def test_a_missing_weight_set(tmp_path):
    refused(r"resnet50\.safetensors: no such", small("stm", backbone="resnet").load_starting_weights, tmp_path)


def test_mask_filters_of_stcn_start_orthogonal():
    filters = build_method("stcn", {"others": True}).network.memory_encoder.backbone.conv1.weight[:, 3:]
    for channel in filters.unbind(1):
        channel = channel.flatten(1)  # 64 filters of 49 pixels: the columns are orthonormal
        torch.testing.assert_close(channel.t() @ channel, torch.eye(49), atol=1e-5, rtol=0)
