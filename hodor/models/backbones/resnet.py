"""Residual networks up to stride 16 with torchvision's names (He et al., "Deep Residual Learning", CVPR 2016).

Batch norms keep their statistics in training while their weights learn (baselines specification, sections 1.2 and 3.2),
so that a result does not depend on the other images of the batch.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.errors import HodorError
from hodor.models.base import mismatches


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and learned weight and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18), with `bias` in STCN's value encoder."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, *, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=bias)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=bias)
        self.bn2 = FrozenBatchNorm(width)
        self.downsample = _downsample(inputs, width, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, and 1x1 convolutions (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, *, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=bias)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=bias)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=bias)
        self.bn3 = FrozenBatchNorm(4 * width)
        self.downsample = _downsample(inputs, 4 * width, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def _downsample(inputs: int, outputs: int, stride: int, *, bias: bool) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=bias), FrozenBatchNorm(outputs))


class ResNet(nn.Module):
    """Maps at strides 4, 8 and 16 of images (B, 3 + extra, H, W) whose sides are multiples of 16."""

    def __init__(
        self,
        *,
        bottleneck: bool,
        depths: tuple[int, ...],
        width: int = 64,
        extra: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        block = Bottleneck if bottleneck else BasicBlock
        self.kind = "resnet50" if bottleneck else "resnet18"
        self.stride = 4
        self.conv1 = nn.Conv2d(3 + extra, width, 7, 2, 3, bias=bias)
        self.bn1 = FrozenBatchNorm(width)
        self.channels, inputs = [], width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                blocks.append(block(inputs, width << i, 2 if i and not j else 1, bias=bias))
                inputs = (width << i) * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.channels.append(inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv1(x)
        x = functional.max_pool2d(functional.relu(self.bn1(x)), 3, 2, 1)
        maps = []
        for i in range(len(self.channels)):
            x = getattr(self, f"layer{i + 1}")(x)
            maps.append(x)
        return maps


def load_imagenet(network: ResNet, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load ImageNet weights; biases of convolutions and filters of extra inputs keep their initial values.

    Args:
        network: the network to initialise.
        weights: entries of a file of the weight set `resnet-imagenet`, without the layers after stride 16.
        path: that file, for error messages.

    Raises:
        HodorError: missing, unexpected or differently shaped entries.
    """
    own = {name: value for name, value in network.state_dict().items() if not _is_bias_of_convolution(name)}
    own["conv1.weight"] = own["conv1.weight"][:, :3]
    given = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    if faults := mismatches(own, given):
        raise HodorError(f"{path}: no ImageNet weights for this {network.kind}: {faults}")
    for name, value in given.items():
        own[name].copy_(value)


def _is_bias_of_convolution(name: str) -> bool:
    *_, outer, owner, kind = ("", *name.split("."))
    return kind == "bias" and (owner.startswith("conv") or (outer, owner) == ("downsample", "0"))
