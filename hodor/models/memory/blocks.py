"""Encoders of frames and of masks, and their heads (baselines specification, sections 1.1 and 3.1).

Legend: B batch, K objects, C channels, H W padded frame, h w key grid (stride 16 at paper size).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hodor.config.methods import MemoryOptions
from hodor.models.backbones.convnet import ConvNet, EfficientNetLite0
from hodor.models.backbones.resnet import ResNet


class Query(NamedTuple):
    """Encoding of a batch of frames without masks; strides are those at paper size."""

    frame: Tensor  # normalised (B, 3, H, W)
    fine: Tensor  # map at stride 4
    middle: Tensor  # map at stride 8
    coarse: Tensor  # map (B, C, h, w) at stride 16
    key: Tensor  # (B, Ck, h, w)
    value: Tensor  # (B, Cv, h, w)


class ResidualBlock(nn.Module):
    """Pre-activation block without norms, with a convolution on the shortcut if the number of channels changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(functional.relu(self.conv1(functional.relu(x))))
        return y + (x if self.shortcut is None else self.shortcut(x))


class KeyValue(nn.Module):
    """Convolutions from a coarse map to key and value; `orthogonal` initialises the key's weights as in STCN.

    With `options.one_encoder` the map is normalised over the image, and the memory's head (without `own_key`) uses the key
    convolution of the query's head, the argument `key` of `forward`.
    """

    def __init__(self, channels: int, options: MemoryOptions, *, orthogonal: bool, own_key: bool = True) -> None:
        super().__init__()
        self.normalised = options.one_encoder
        self.key = nn.Conv2d(channels, options.key_dim, 3, padding=1) if own_key else None
        self.value = nn.Conv2d(channels, options.value_dim, 3, padding=1)
        if orthogonal or (options.one_encoder and own_key):
            # On normalised maps, keys of different positions then differ clearly before anything is learned.
            nn.init.orthogonal_(self.key.weight, gain=1.5 if options.one_encoder else 1.0)
            nn.init.zeros_(self.key.bias)

    def forward(self, x: Tensor, key: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        if self.normalised:
            x = functional.instance_norm(x)
        return (self.key or key)(x), self.value(x)


class Attention(nn.Module):
    """Channel and spatial attention (Woo et al., "CBAM", ECCV 2018), without norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.channel = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3)))
        x = x * torch.sigmoid(gate)[:, :, None, None]
        summary = torch.stack([x.amax(1), x.mean(1)], dim=1)
        return x * torch.sigmoid(self.place(summary))


class Fuser(nn.Module):
    """Fusion of the masked frame's map and the frame's own coarse map to a value (STCN)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(inputs, outputs)
        self.attention = Attention(outputs)
        self.block2 = ResidualBlock(outputs, outputs)

    def forward(self, masked: Tensor, coarse: Tensor) -> Tensor:
        x = self.block1(torch.cat([masked, coarse], dim=1))
        return self.block2(x + self.attention(x))


class MemoryEncoder(nn.Module):
    """Encoder of frames with masks, and the module from its map to values: `head`, with keys too, or `fuser`.

    Without `options.others`, the other objects' masks are omitted, or enter through the filters `further` if those are set,
    which are not weights of the network (see `further_filters`).
    """

    def __init__(self, options: MemoryOptions, coarse: int) -> None:
        super().__init__()
        self.others, separate = options.others, options.memory_encoder == "separate"
        self.backbone = build_backbone(options, memory=True, extra=2 if options.others else 1)
        self.first = "conv1.weight" if isinstance(self.backbone, ResNet) else "stem.weight"
        self._initialise_mask_filters(orthogonal=not separate)
        channels, own_key = self.backbone.channels[-1], not options.one_encoder
        self.head = KeyValue(channels, options, orthogonal=False, own_key=own_key) if separate else None
        self.fuser = None if separate else Fuser(channels + coarse, options.value_dim)
        self.register_buffer("further", None, persistent=False)

    @torch.no_grad()
    def _initialise_mask_filters(self, *, orthogonal: bool) -> None:
        """Initialise each mask channel of a ResNet as a convolution of its own, as the published systems do.

        In a small backbone, mask filters start four times as large as image filters: masks have smaller values than
        normalised images, and small networks train for few steps.
        """
        weight = self.backbone.get_parameter(self.first)
        if not isinstance(self.backbone, ResNet):
            weight[:, 3:] = 4 * weight[:, :3].std() * torch.randn_like(weight[:, 3:])
            return
        for channel in range(3, weight.shape[1]):
            filters = torch.empty_like(weight[:, :1])
            nn.init.orthogonal_(filters) if orthogonal else nn.init.kaiming_uniform_(filters, a=5**0.5)
            weight[:, channel : channel + 1] = filters

    def forward(self, frame: Tensor, masks: Tensor) -> Tensor:
        """Encode normalised frames (B, 3, H, W) with masks (B, K, H, W) in [0, 1] to the coarsest map (B K, C, h, w)."""
        channels = [frame.unsqueeze(1).expand(-1, masks.shape[1], -1, -1, -1), masks.unsqueeze(2)]
        if self.others or self.further is not None:
            others = (masks.sum(1, keepdim=True) - masks).clamp(0, 1)
            channels.append(others.unsqueeze(2))
        x = torch.cat(channels, dim=2).flatten(0, 1)  # (B K, 3 + 1 or 2, H, W)
        weights = {}
        if self.further is not None:
            weights[self.first] = torch.cat([self.backbone.get_parameter(self.first), self.further], dim=1)
        return functional_call(self.backbone, weights, (x,))[-1]


def build_backbone(options: MemoryOptions, *, memory: bool, extra: int = 0) -> nn.Module:
    """Build the backbone of the query or memory encoder: three maps, the finest at `options.stride`."""
    kind = options.memory_kind if memory else options.backbone
    if kind == "efficientnet-lite0":
        # Frozen blocks of the memory encoder would save no backward pass, because its stem learns.
        frozen = 0 if memory else options.backbone_frozen
        return EfficientNetLite0(pretrained=options.pretrained, frozen=frozen, extra=extra, levels=3)
    width = options.memory_width if memory else options.backbone_width
    depths = options.memory_depths if memory else options.backbone_depths
    if kind == "convnet":
        return ConvNet(width=width, depths=depths, extra=extra, stride=options.stride)
    basic = memory and options.memory_encoder == "fused"
    return ResNet(bottleneck=not basic, depths=depths, width=width, extra=extra, bias=basic)


def further_filters(kind: str, weight: Tensor) -> Tensor:
    """Return filters (C, 1, k, k) for an untrained channel: `zeros`, or `orthogonal` with a fixed seed.

    The released evaluation of static STCN has a channel for other objects, which its training lacks (baselines
    specification, section 3.4).
    """
    filters = torch.zeros_like(weight[:, :1])
    if kind == "orthogonal":
        generator = torch.Generator().manual_seed(0)
        filters.copy_(nn.init.orthogonal_(torch.empty(filters.shape), generator=generator))
    return filters
