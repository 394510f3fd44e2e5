"""Deformable 3x3 convolution, first version (DCN-v1): every tap reads at a learned offset.

Pure PyTorch, so that it runs where torchvision cannot be imported; equal to `torchvision.ops.deform_conv2d` with one
offset group, one weight group and no modulation (Dai et al., "Deformable Convolutional Networks", ICCV 2017), which
takes its place on a GPU where it can be imported. On a CPU pixels are gathered as rows of channels.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.models.forms import cpu_float32, inference

# Output pixels whose taps are gathered at a time: they stay in the cache until they are multiplied.
_PIXELS = 512
# In a smaller map finding the neighbours costs more than reading them saves.
_LEAST = 2**16


def deformable_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve `x` (B, C, H, W) with `weight` (O, C, k, k), each tap displaced by `offsets` (B, 2 k k, H, W).

    Offsets are (dy, dx) pairs in pixels, tap by tap in row-major order. Reading is bilinear; outside the map is 0.
    The output has the size of `x` (stride 1, "same" padding). Returns (B, O, H, W).
    """
    operator = gpu_operator() if on_gpu(x) else None
    if operator is not None:
        # The operator takes one type alone; under mixed precision it casts by itself.
        return operator(x, offsets, weight, bias, padding=weight.shape[-1] // 2)
    if x.numel() >= _LEAST and cpu_float32(x, offsets, weight):
        return gathered_conv2d(x, offsets, weight, bias)
    return sampled_conv2d(x, offsets, weight, bias)


def on_gpu(x: Tensor) -> bool:
    """Whether torchvision's operator, if there, is the faster way for this tensor."""
    return x.is_cuda


@cache
def gpu_operator() -> Callable[..., Tensor] | None:
    """torchvision's operator, imported when first asked for; None where torchvision is absent or does not fit torch."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, OSError, RuntimeError):  # a build for another torch fails with the last two
        return None
    return deform_conv2d


def sampled_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`deformable_conv2d` in PyTorch's own operations.

    Positions and reading are at least in float32: a bfloat16 position is off by up to half a pixel.
    """
    batch, channels, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    taps, wide = k * k, torch.promote_types(x.dtype, torch.float32)
    offsets = offsets.to(wide).view(batch, taps, 2, height, width)
    reach = torch.arange(k, device=x.device, dtype=offsets.dtype) - k // 2
    rows = torch.arange(height, device=x.device, dtype=offsets.dtype).view(1, 1, height, 1)
    columns = torch.arange(width, device=x.device, dtype=offsets.dtype).view(1, 1, 1, width)
    y = offsets[:, :, 0] + rows + reach.repeat_interleave(k).view(1, taps, 1, 1)  # (B, taps, H, W)
    x_ = offsets[:, :, 1] + columns + reach.repeat(k).view(1, taps, 1, 1)
    # With align_corners=False the pixel centre i lies at (2 i + 1) / size - 1: no division by size - 1, which is 0
    # for a map of one row.
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.view(batch, taps * height, width, 2)
    sampled = functional.grid_sample(x.to(wide), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled = sampled.to(x.dtype)
    # The taps of a channel lie side by side: what remains is a 1x1 convolution over channels x taps.
    return functional.conv2d(
        sampled.view(batch, channels * taps, height, width),
        weight.reshape(out_channels, channels * taps, 1, 1),
        bias,
    )


def gathered_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`deformable_conv2d` channels last: each tap is the weighted sum of its four neighbours' rows of channels.

    The same sums as `sampled_conv2d` in another order.
    """
    batch, channels, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    taps, pixels = k * k, batch * height * width
    rows = x.permute(0, 2, 3, 1).reshape(pixels, channels)
    places, shares = _neighbours(offsets.permute(0, 2, 3, 1).reshape(batch, height, width, taps, 2))
    matrix = weight.permute(2, 3, 1, 0).reshape(taps * channels, out_channels)
    starts = torch.arange(0, 4 * taps * pixels, 4, dtype=places.dtype)
    if inference(x, offsets, weight, *([] if bias is None else [bias])):
        out = x.new_empty((pixels, out_channels))
        for first in range(0, pixels, _PIXELS):
            last = min(first + _PIXELS, pixels)
            part = slice(4 * taps * first, 4 * taps * last)
            gathered = _weighted_rows(rows, places[part], shares[part], starts[: taps * (last - first)])
            torch.mm(gathered.view(last - first, taps * channels), matrix, out=out[first:last])
        if bias is not None:
            out += bias
    else:
        gathered = _Gather.apply(rows, places, shares, starts).view(pixels, taps * channels)
        out = gathered @ matrix if bias is None else torch.addmm(bias, gathered, matrix)
    return out.view(batch, height, width, out_channels).permute(0, 3, 1, 2)


def _weighted_rows(rows: Tensor, places: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
    """Sums of `rows` (N, C) at `places`, weighted by `shares` (both M); sum i goes from `starts[i]` to the next start."""
    return functional.embedding_bag(places, rows, starts, mode="sum", per_sample_weights=shares)


class _Gather(torch.autograd.Function):
    """`_weighted_rows` of four rows each, with gradients to the rows and their shares.

    embedding_bag's own gradient to the rows adds them up one by one; here the uses of each row are brought together by
    a sort, and summed as the rows are in forward. Sums have a fixed order.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, places: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(rows, places, shares, starts)
        # Detached: embedding_bag takes another, slower way for what might want a gradient.
        return _weighted_rows(rows.detach(), places, shares.detach(), starts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        rows, places, shares, starts = ctx.saved_tensors
        to_rows = to_shares = None
        grad = grad.contiguous()
        if ctx.needs_input_grad[0]:
            order = torch.argsort(places, stable=True)
            uses = torch.bincount(places, minlength=len(rows))
            first = torch.cumsum(uses, 0) - uses
            sums = torch.div(order, 4, rounding_mode="floor")
            to_rows = _weighted_rows(grad, sums, shares[order], first)
        if ctx.needs_input_grad[2]:
            of_sum = torch.arange(len(starts), dtype=starts.dtype).repeat_interleave(4)
            to_shares = torch.ops.aten._embedding_bag_per_sample_weights_backward(grad, rows, places, starts, of_sum, 0)
        return to_rows, None, to_shares, None


def _neighbours(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a map and their bilinear shares, four for each tap: `offsets` (B, H, W, taps, 2) -> int32, float (B H W taps 4).

    A neighbour outside the map has share 0 and the place of one inside.
    """
    batch, height, width, taps, _ = offsets.shape
    k = round(taps**0.5)
    reach = torch.arange(k, dtype=offsets.dtype) - k // 2
    y = offsets[..., 0] + torch.arange(height, dtype=offsets.dtype).view(-1, 1, 1) + reach.repeat_interleave(k)
    x = offsets[..., 1] + torch.arange(width, dtype=offsets.dtype).view(-1, 1) + reach.repeat(k)

    def axis(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
        below = position.floor()
        share = position - below
        ends = torch.stack([below, below + 1], dim=-1)
        inside = (ends >= 0) & (ends < size)
        return ends.clamp(0, size - 1).nan_to_num(0).int(), torch.stack([1 - share, share], dim=-1) * inside

    (rows, vertical), (columns, horizontal) = axis(y, height), axis(x, width)
    image = torch.arange(batch, dtype=torch.int32).view(-1, 1, 1, 1, 1) * height
    places = ((image + rows) * width).unsqueeze(-1) + columns.unsqueeze(-2)
    return places.flatten(), (vertical.unsqueeze(-1) * horizontal.unsqueeze(-2)).flatten()


class DeformableConv(nn.Module):
    """3x3 deformable convolution with bias; a plain 3x3 convolution predicts its offsets.

    The offset convolution keeps PyTorch's non-zero starting weights, as the release does.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_offsets = nn.Conv2d(dim, 2 * 9, 3, padding=1)
        self.conv_deform = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return deformable_conv2d(x, self.conv_offsets(x), self.conv_deform.weight, self.conv_deform.bias)
