"""Deformable convolution, first version (DCN-v1; Dai et al., "Deformable Convolutional Networks", ICCV 2017).

Equal to `torchvision.ops.deform_conv2d` with one offset group, one weight group and no modulation, which computes it on a
GPU if torchvision can be imported. Elsewhere it consists of PyTorch's own operations.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional


def deformable_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with displaced taps, stride 1 and "same" padding; maps are read bilinearly and are 0 outside.

    Args:
        x: (B, C, H, W).
        offsets: (B, 2 k k, H, W), pairs (dy, dx) in pixels of the taps in row-major order.
        weight: (O, C, k, k).
        bias: (O,) or None.

    Returns:
        (B, O, H, W).
    """
    operator = operator_for(x)
    if operator is None:
        return sampled_conv2d(x, offsets, weight, bias)
    return operator(x, offsets, weight, bias, padding=weight.shape[-1] // 2)


def operator_for(x: Tensor) -> Callable[..., Tensor] | None:
    """Return torchvision's operator, or None where PyTorch's own operations compute the convolution."""
    return gpu_operator() if on_gpu(x) else None


def on_gpu(x: Tensor) -> bool:
    """Return whether to use torchvision's operator, if it is available."""
    return x.is_cuda


@cache
def gpu_operator() -> Callable[..., Tensor] | None:
    """Return torchvision's operator; None if torchvision is missing or was built for another torch."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, OSError, RuntimeError):
        return None
    return deform_conv2d


def sampled_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `deformable_conv2d` with `grid_sample` and a 1x1 convolution over channels and taps.

    Positions and sampling are at least in float32: positions in bfloat16 are wrong by up to half a pixel.
    """
    batch, channels, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    taps, wide = k * k, torch.promote_types(x.dtype, torch.float32)
    offsets = offsets.to(wide).reshape(batch, taps, 2, height, width)
    reach = torch.arange(k, device=x.device, dtype=offsets.dtype) - k // 2
    rows = torch.arange(height, device=x.device, dtype=offsets.dtype).unsqueeze(1)
    columns = torch.arange(width, device=x.device, dtype=offsets.dtype)
    y = offsets[:, :, 0] + rows + reach.repeat_interleave(k).view(taps, 1, 1)  # (B, taps, H, W)
    x_ = offsets[:, :, 1] + columns + reach.repeat(k).view(taps, 1, 1)
    # With align_corners=False pixel centre i is at (2 i + 1) / size - 1: no division by size - 1, which may be 0.
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.view(batch, taps * height, width, 2)
    sampled = functional.grid_sample(x.to(wide), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled = sampled.to(x.dtype).reshape(batch, channels * taps, height, width)
    return functional.conv2d(sampled, weight.reshape(out_channels, channels * taps, 1, 1), bias)


class DeformableConv(nn.Module):
    """3x3 deformable convolution with bias; a plain 3x3 convolution predicts its offsets.

    The offset convolution keeps PyTorch's non-zero initial weights, as in the release.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_offsets = nn.Conv2d(dim, 2 * 9, 3, padding=1)
        self.conv_deform = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return deformable_conv2d(x, self.conv_offsets(x), self.conv_deform.weight, self.conv_deform.bias)
