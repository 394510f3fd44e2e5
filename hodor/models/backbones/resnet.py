"""Residual networks up to stride 16 with torchvision's names (He et al., "Deep Residual Learning", CVPR 2016).

Batch norms keep their statistics in training while their weights learn (baselines specification, sections 1.2 and 3.2):
a result does not depend on the other images of the batch.
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


class Block(nn.Module):
    """Residual block: two 3x3 convolutions (ResNet-18), or a 1x1, a 3x3 with the stride and a 1x1 one (ResNet-50).

    The convolutions have a `bias` in STCN's value encoder.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool, bias: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        layers = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            layers = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.count = len(layers)
        for i, (before, after, kernel, step) in enumerate(layers, 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, kernel, step, kernel // 2, bias=bias))
            self.add_module(f"bn{i}", FrozenBatchNorm(after))
        self.downsample = None
        if inputs != outputs or stride != 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=bias)
            self.downsample = nn.Sequential(shortcut, FrozenBatchNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(functional.relu(y) if i > 1 else y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Maps at strides 4, 8 and 16 of images (B, 3 + extra, H, W) whose sides are multiples of 16."""

    stride = 4

    def __init__(
        self, *, bottleneck: bool, depths: tuple[int, ...], width: int = 64, extra: int = 0, bias: bool = False
    ) -> None:
        super().__init__()
        self.kind = "resnet50" if bottleneck else "resnet18"
        self.conv1 = nn.Conv2d(3 + extra, width, 7, 2, 3, bias=bias)
        self.bn1 = FrozenBatchNorm(width)
        self.channels, inputs = [], width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                blocks.append(Block(inputs, width << i, stride, bottleneck=bottleneck, bias=bias))
                inputs = (width << i) * (4 if bottleneck else 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.channels.append(inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        maps = []
        for i in range(len(self.channels)):
            x = getattr(self, f"layer{i + 1}")(x)
            maps.append(x)
        return maps


def load_imagenet(network: ResNet, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load ImageNet weights; biases of convolutions and filters of extra inputs keep their initial values.

    Args:
        network: the network to initialise.
        weights: entries of a file of the weight set `resnet-imagenet`.
        path: that file, for error messages.

    Raises:
        HodorError: entries are missing, unexpected or of another shape.
    """
    biases = {f"{name}.bias" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    own = {name: value for name, value in network.state_dict().items() if name not in biases}
    own["conv1.weight"] = own["conv1.weight"][:, :3]
    given = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    if faults := mismatches(own, given):
        raise HodorError(f"{path}: no ImageNet weights for this {network.kind}: {faults}")
    for name, value in given.items():
        own[name].copy_(value)
