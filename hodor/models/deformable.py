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
    operator = gpu_operator() if on_gpu(x) else None
    if operator is None:
        return sampled_conv2d(x, offsets, weight, bias)
    return operator(x, offsets, weight, bias, padding=weight.shape[-1] // 2)


def on_gpu(x: Tensor) -> bool:
    """Return whether to use torchvision's operator, if it is available: its gradients are not deterministic."""
    return x.is_cuda and not torch.are_deterministic_algorithms_enabled()


@cache
def gpu_operator() -> Callable[..., Tensor] | None:
    """Return torchvision's operator; None if torchvision is missing or was built for another torch."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, OSError, RuntimeError):
        return None
    return deform_conv2d


def sampled_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `deformable_conv2d` with `embedding_bag`, whose bags are the four pixels around each tap, and a product.

    It reads the channels of a pixel as one row of memory, twice as fast on a CPU as `grid_sample` in float32 and five times
    in bfloat16. Positions are at least in float32: in bfloat16 they would be wrong by up to half a pixel.
    """
    batch, channels, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    # Positions in the map with a border of zeros, one pixel wide, in which all reads outside end.
    rows, columns, reach = (torch.arange(1, n + 1, device=x.device, dtype=wide) for n in (height, width, k))
    reach -= (k + 1) // 2
    offsets = offsets.to(wide).permute(0, 2, 3, 1).reshape(batch, height, width, k, k, 2)
    y = (offsets[..., 0] + rows.view(-1, 1, 1, 1) + reach.view(-1, 1)).clamp(0, height + 1)  # (B, H, W, k, k)
    x_ = (offsets[..., 1] + columns.view(-1, 1, 1) + reach).clamp(0, width + 1)
    # The second clamp is for NaN, which becomes some integer.
    top, left = y.detach().int().clamp(0, height), x_.detach().int().clamp(0, width)
    below, right = y - top, x_ - left
    above, beside = 1 - below, 1 - right
    shares = torch.stack([above * beside, above * right, below * beside, below * right], dim=-1)
    maps = torch.arange(batch, device=x.device, dtype=torch.int32).view(-1, 1, 1, 1, 1)
    first = (maps * (height + 2) + top) * (width + 2) + left
    pixels = torch.stack([first, first + 1, first + width + 2, first + width + 3], dim=-1)
    # The gradient of a pixel is the sum over all taps that read it, too long for half precision.
    table = x.to(wide if torch.is_grad_enabled() else x.dtype).permute(0, 2, 3, 1)
    table = functional.pad(table, (0, 0, 1, 1, 1, 1)).reshape(-1, channels)
    shares = shares.to(table.dtype).view(-1, 4)
    sampled = functional.embedding_bag(pixels.view(-1, 4), table, mode="sum", per_sample_weights=shares).to(x.dtype)
    kernel = weight.permute(0, 2, 3, 1).reshape(out_channels, -1)
    return functional.linear(sampled.view(batch, height, width, -1), kernel, bias).permute(0, 3, 1, 2)


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
