"""The HODOR network: features, encoder, decoder (Athar et al., CVPR 2022; specification sections 1 to 4)."""

from dataclasses import dataclass

from torch import Tensor, nn

from hodor.config.methods import HODOROptions
from hodor.errors import HodorError
from hodor.models.backbones import ConvNet, EfficientNetLite0
from hodor.models.fpn import FeaturePyramid
from hodor.models.hodor.decoder import Decoder, History
from hodor.models.hodor.encoder import Encoder
from hodor.models.swin import Swin


@dataclass
class Features:
    """Maps of a batch of frames: `stride_4` (B, C, H/4, W/4), `stride_8` (B, C, H/8, W/8)."""

    stride_4: Tensor
    stride_8: Tensor

    def __getitem__(self, index: slice) -> "Features":
        return Features(self.stride_4[index], self.stride_8[index])


class Network(nn.Module):
    """One instance of HODOR; `HODOROptions()` is the published size.

    Of the five pyramid levels that the release builds, only strides 4 and 8 are read; the others are left out here
    (the converter lists their names).
    """

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        dim, rows_columns = options.dim, options.background_grid
        self.grid = rows_columns
        self.backgrounds = rows_columns[0] * rows_columns[1]
        self.backbone = build_backbone(options)
        self.pyramid = FeaturePyramid(self.backbone.channels, dim, outputs=2)
        self.norms = nn.ModuleList(nn.GroupNorm(16, dim) for _ in range(2))
        self.encoder = Encoder(options)
        self.decoder = Decoder(
            dim, options.heads, options.decoder_hidden, options.decoder_layers, dropout=options.dropout
        )

    def features(self, frames: Tensor) -> Features:
        """Maps of normalised, padded frames (B, 3, H, W), H and W multiples of 32."""
        maps = self.pyramid(self.backbone(frames))
        return Features(*(norm(x) for norm, x in zip(self.norms, maps, strict=True)))

    def encode(self, features: Features, objects: Tensor, backgrounds: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptors (B, G, C) and (B, K, C) of a frame under masks at stride 8 (see `Encoder.forward`)."""
        return self.encoder(features.stride_8, objects, backgrounds)

    def decode(self, features: Features, history: History) -> Tensor:
        """Logits (B, 1 + G + K, H/4, W/4) of a frame (see `Decoder.forward`)."""
        return self.decoder(
            features.stride_4,
            features.stride_8,
            history,
            self.encoder.object_embedding,
            self.encoder.background_embedding,
        )


def build_backbone(options: HODOROptions) -> nn.Module:
    """The backbone that the options name, with its pretrained weights where asked for.

    Raises:
        HodorError: pretrained weights or frozen blocks asked for where there are none.
    """
    if options.backbone == "efficientnet-lite0":
        return EfficientNetLite0(pretrained=options.pretrained, frozen=options.backbone_frozen)
    if options.pretrained or options.backbone_frozen:
        raise HodorError(
            f"backbone {options.backbone!r} ships no pretrained weights: set `pretrained: false`, `backbone_frozen: 0`"
            + ("; `weights` names a weight set" if options.backbone == "swin" else "")
        )
    if options.backbone == "convnet":
        return ConvNet(width=options.backbone_width, depths=options.backbone_depths)
    return Swin(width=options.backbone_width, depths=options.backbone_depths, drop_path=options.drop_path)
