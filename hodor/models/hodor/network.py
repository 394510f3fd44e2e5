"""The HODOR network: features, encoder, decoder (Athar et al., CVPR 2022; specification sections 1 to 4)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import HODOROptions
from hodor.errors import HodorError
from hodor.models.backbones.convnet import ConvNet, EfficientNetLite0
from hodor.models.backbones.swin import Swin
from hodor.models.base import mismatches, read_weights
from hodor.models.hodor.decoder import Decoder, Descriptors, History
from hodor.models.hodor.encoder import Encoder


class FeaturePyramid(nn.Module):
    """Feature pyramid network (Lin et al., CVPR 2017): maps of several strides with one width.

    Args:
        channels: widths of the backbone's maps, finest first.
        dim: width of every output.
        outputs: number of output maps, the finest ones.
    """

    def __init__(self, channels: Sequence[int], dim: int, *, outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.output = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(outputs))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (B, C_i, h_i, w_i), finest first, to the output maps (B, dim, h_i, w_i)."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for fine in reversed(range(len(levels) - 1)):
            size = levels[fine].shape[-2:]
            levels[fine] = levels[fine] + functional.interpolate(levels[fine + 1], size=size, mode="nearest")
        return [conv(level) for conv, level in zip(self.output, levels, strict=False)]


class Features(NamedTuple):
    """Maps of a batch of frames: `stride_4` (B, C, H/4, W/4), `stride_8` (B, C, H/8, W/8)."""

    stride_4: Tensor
    stride_8: Tensor


class Network(nn.Module):
    """One instance of HODOR; `HODOROptions()` is the published size.

    The release builds five pyramid levels and uses those at strides 4 and 8; the others are omitted here.
    """

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        self.grid = options.background_grid
        self.backgrounds = self.grid[0] * self.grid[1]
        self.backbone = build_backbone(options)
        self.pyramid = FeaturePyramid(self.backbone.channels, options.dim, outputs=2)
        self.norms = nn.ModuleList(nn.GroupNorm(16, options.dim) for _ in range(2))
        self.encoder = Encoder(options)
        self.decoder = Decoder(options)

    def features(self, frames: Tensor) -> Features:
        """Return the maps of normalised, padded frames (B, 3, H, W), H and W multiples of 32."""
        maps = self.pyramid(self.backbone(frames))
        return Features(*(norm(x) for norm, x in zip(self.norms, maps, strict=True)))

    def encode(self, features: Features, objects: Tensor, backgrounds: Tensor) -> Descriptors:
        """Return the descriptors of a frame with masks at stride 8 (see `Encoder.forward`)."""
        return Descriptors(*self.encoder(features.stride_8, objects, backgrounds))

    def decode(self, features: Features, history: History) -> Tensor:
        """Return the logits (B, 1 + G + K, H/4, W/4) of a frame (see `Decoder.forward`)."""
        embeddings = self.encoder.object_embedding, self.encoder.background_embedding
        return self.decoder(features.stride_4, features.stride_8, history, embeddings)


def build_backbone(options: HODOROptions) -> nn.Module:
    """Build the backbone; raise HodorError for pretrained weights or frozen blocks of one that has none."""
    if options.backbone == "efficientnet-lite0":
        return EfficientNetLite0(pretrained=options.pretrained, frozen=options.backbone_frozen)
    if options.pretrained or options.backbone_frozen:
        raise HodorError(
            f"backbone {options.backbone!r} has no pretrained weights; set `pretrained: false`, `backbone_frozen: 0`"
            + ("; `weights` names a weight set" if options.backbone == "swin" else "")
        )
    if options.backbone == "convnet":
        return ConvNet(width=options.backbone_width, depths=options.backbone_depths)
    return Swin(width=options.backbone_width, depths=options.backbone_depths, drop_path=options.drop_path)


def load_swin(network: Network, folder: Path) -> None:
    """Initialise backbone and pyramid strictly from a weight set, and print the entries that it lacks.

    The published training starts from the backbone and the pyramid of a COCO detector. ImageNet weights lack the pyramid
    and the norms of the four maps, which then start at random: a different experiment, and results must say so
    (specification section 1).

    Raises:
        HodorError: the file is missing or damaged, or entries are missing, unexpected or of another shape.
    """
    path = folder / "swin.safetensors"
    weights, metadata = read_weights(path, "prepare this weight set")
    own = {name: value for name, value in network.state_dict().items() if name.startswith(("backbone.", "pyramid."))}
    kept = sorted(own.keys() - weights.keys())
    imagenet = json.loads(metadata.get("weights", "{}")).get("format") == "swin-imagenet"
    optional = {name for name in kept if imagenet and re.match(r"pyramid\.|backbone\.norm\d\.", name)}
    if faults := mismatches({name: value for name, value in own.items() if name not in optional}, weights):
        raise HodorError(
            f"{path}: does not fit the network: {faults}; weight sets are for `backbone_width: 96`, "
            "`backbone_depths: [2, 2, 6, 2]` and `dim: 256`"
        )
    network.load_state_dict(weights, strict=False)
    print(f"{path}: {len(weights)} entries loaded", flush=True)
    if kept:
        print(f"{path}: {len(kept)} entries are not in it and start at random: {', '.join(kept)}", flush=True)
