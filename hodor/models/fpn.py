"""Feature pyramid network (Lin et al., CVPR 2017): one width for the maps of several strides."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from hodor.models.forms import cpu_inference
from hodor.models.winograd import Conv3x3


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, top-down nearest upsampling and addition, 3x3 output convolutions.

    Args:
        channels: widths of the backbone's maps, finest first.
        dim: width of every output.
        outputs: how many of the finest levels are produced; coarser ones only feed the top-down path.
    """

    def __init__(self, channels: Sequence[int], dim: int, *, outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.output = nn.ModuleList(Conv3x3(dim, dim) for _ in range(outputs))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, h_i, w_i), finest first -> the finest `outputs` of them as (B, dim, h_i, w_i)."""
        levels = [_pointwise(lateral, x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for fine in reversed(range(len(levels) - 1)):
            size = levels[fine].shape[-2:]
            levels[fine] = levels[fine] + functional.interpolate(levels[fine + 1], size=size, mode="nearest")
        return [conv(level) for conv, level in zip(self.output, levels, strict=False)]


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution; channels last it is one matrix product, which a CPU does faster."""
    if cpu_inference(x, conv.weight):
        return functional.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)
    return conv(x)
