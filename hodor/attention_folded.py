"""The folded form of soft-masked attention: weighted sums of raw pixels, with a gradient of its own.

The plain form (`hodor.attention`) projects every pixel to a key and a value. W_k and W_v of a head are linear, so the
queries can be projected instead:

    q . (W_k x_s) = (W_k^T q) . x_s        sum_s w_s (W_v x_s + b_v) = W_v (sum_s w_s x_s) + b_v sum_s w_s

Pixels then meet no weight matrix and no key or value of a pixel is stored. The key bias adds the same constant to all
logits of a query, which softmax removes. The cost is 2 h Q N C multiplications; the plain form has 2 (C + Q) N C.

Legend: B batch, Q queries, N pixels, C channels, h heads.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def folded_read(
    q: Tensor,
    pixels: Tensor,
    k_proj: nn.Linear,
    v_proj: nn.Linear,
    *,
    alpha: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Read values of all heads without projecting the pixels.

    Args:
        q: projected queries (B, h, Q, d), d = C / h.
        pixels: (B, N, C).
        k_proj, v_proj: key and value projections, C to C.
        alpha, mask: `alpha` (h,) times `mask` (B, Q, N) is added to the logits; both or none.
        bias: (B, Q, N), added to the logits of every head; without gradient. Not together with `mask`.
        dropout: probability of dropping a weight.

    Returns:
        (B, Q, C), the heads side by side, before the output projection.
    """
    heads, d = q.shape[1], q.shape[3]
    # The head's rows of W_k map each query to the channels of the pixels: (B, h, Q, C).
    keys = torch.einsum("bhqd,hdc->bhqc", q, k_proj.weight.unflatten(0, (heads, d))) / math.sqrt(d)
    precision = _precision(pixels)
    keep = None
    if dropout > 0:
        kept = 1 - dropout
        keep = torch.empty(*keys.shape[:3], pixels.shape[1], dtype=_sums(precision), device=pixels.device)
        keep.bernoulli_(kept).div_(kept)  # the same random numbers as torch's own dropout
    read, total = _FoldedRead.apply(keys.to(precision), pixels.to(precision), alpha, mask, bias, keep, k_proj.bias)
    values = torch.einsum("bhqc,hdc->bqhd", read, v_proj.weight.unflatten(0, (heads, d)))
    offset = v_proj.bias.unflatten(0, (heads, d))
    values = values + (offset if total is None else total.transpose(1, 2).unsqueeze(-1) * offset)
    return values.flatten(2)


class _FoldedRead(torch.autograd.Function):
    """Weighted sums of raw pixels: softmax of `keys . pixels + alpha * mask + bias`, times `keep`, times the pixels.

    The gradient is explicit because what autograd would keep (logits, biased logits, products of masks and alphas)
    is most of the memory, and because the softmax's gradient needs no sum over pixels: with P the weights, R = P X the
    result and G its gradient, sum_s P_is dP_is = G_i . R_i.
    """

    @staticmethod
    def forward(
        ctx: Any,
        keys: Tensor,
        pixels: Tensor,
        alpha: Tensor | None,
        mask: Tensor | None,
        bias: Tensor | None,
        keep: Tensor | None,
        key_bias: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """`keys` (B, h, Q, C), `pixels` (B, N, C), `alpha` (h), `mask` and `bias` (B, Q, N), `keep` (B, h, Q, N).

        `key_bias` is an argument only so that it receives its gradient, zero. Returns the sums (B, h, Q, C) and, with
        dropout, the sum of each query's remaining weights (B, h, Q).
        """
        size = (*keys.shape[:3], pixels.shape[1])
        with _no_autocast(pixels):
            # Pixels first: the product then runs along the long side of its result.
            across = pixels @ keys.flatten(1, 2).transpose(1, 2)  # (B, N, hQ)
            products = across.transpose(1, 2).unflatten(1, size[1:3])
            logits = across.new_empty(size, dtype=_sums(across.dtype))
            if mask is not None:
                torch.addcmul(
                    products.to(logits.dtype), _by_head(alpha, logits), mask.to(logits.dtype).unsqueeze(1), out=logits
                )
            elif bias is not None:
                torch.add(products, bias.to(logits.dtype).unsqueeze(1), out=logits)
            else:
                logits.copy_(products)
            # The products are no longer needed: the weights reuse their memory.
            room = across.view(size) if across.dtype == logits.dtype else torch.empty_like(logits)
            weights = torch.softmax(logits, dim=-1, out=room)
            dropped = weights if keep is None else weights * keep
            read = (dropped.flatten(1, 2).to(pixels.dtype) @ pixels).unflatten(1, size[1:3])
            total = None if keep is None else dropped.sum(-1)
        ctx.save_for_backward(keys, pixels, alpha, mask, keep, weights, read, total, key_bias)
        return read, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_read: Tensor, d_total: Tensor | None) -> tuple[Tensor | None, ...]:
        keys, pixels, alpha, mask, keep, weights, read, total, key_bias = ctx.saved_tensors
        size, sums = weights.shape, weights.dtype
        d_keys = d_pixels = d_alpha = d_mask = None
        with _no_autocast(pixels):
            rows = d_read.flatten(1, 2).to(pixels.dtype)  # (B, hQ, C)
            mean = (d_read.to(sums) * read).sum(-1, keepdim=True)
            # The gradient of the pixels is by far the largest tensor: until it is computed, its memory serves as a buffer.
            # Its layout is that of the pixels, by row or as a feature map (B, C, h, w).
            by_pixel = pixels.stride(-1) == 1
            large = pixels.new_empty(pixels.shape if by_pixel else pixels.transpose(1, 2).shape)
            count = pixels.shape[:2].numel() * rows.shape[1]
            buffer = large.view(-1)[:count] if count <= large.numel() else large.new_empty(count)
            across = torch.bmm(pixels, rows.transpose(1, 2), out=buffer.view(*pixels.shape[:2], -1))
            across = across.transpose(1, 2).unflatten(1, size[1:3])
            d_logits = torch.empty_like(weights)
            if keep is None:
                torch.sub(across, mean, out=d_logits).mul_(weights)
                dropped = weights
            else:
                rest = d_total.to(sums).unsqueeze(-1)
                mean = mean + rest * total.unsqueeze(-1)
                torch.add(across, rest, out=d_logits).mul_(keep).sub_(mean).mul_(weights)
                dropped = weights * keep
            by_row = d_logits.flatten(1, 2).to(pixels.dtype)
            if ctx.needs_input_grad[0]:
                d_keys = (by_row @ pixels).unflatten(1, size[1:3])
            if ctx.needs_input_grad[1]:
                used = dropped.flatten(1, 2).to(pixels.dtype)
                others = keys.flatten(1, 2)
                if by_pixel:
                    d_pixels = torch.bmm(used.transpose(1, 2), rows, out=large).baddbmm_(by_row.transpose(1, 2), others)
                else:
                    torch.bmm(rows.transpose(1, 2), used, out=large).baddbmm_(others.transpose(1, 2), by_row)
                    d_pixels = large.transpose(1, 2)
            if ctx.needs_input_grad[2]:
                d_alpha = (d_logits.flatten(2) @ mask.to(sums).flatten(1).unsqueeze(2)).sum((0, 2)).to(alpha.dtype)
            if ctx.needs_input_grad[3]:
                d_mask = (alpha.to(sums) @ d_logits.flatten(2)).view(mask.shape).to(mask.dtype)
        return d_keys, d_pixels, d_alpha, d_mask, None, None, torch.zeros_like(key_bias)


def _by_head(alpha: Tensor, like: Tensor) -> Tensor:
    return alpha.to(like.dtype).view(1, -1, 1, 1)


def _sums(dtype: torch.dtype) -> torch.dtype:
    """Softmax and its sums are at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _precision(pixels: Tensor) -> torch.dtype:
    """The type in which autocast would compute products of `pixels`."""
    kind = pixels.device.type
    if pixels.is_meta or not torch.is_autocast_enabled(kind):
        return pixels.dtype
    return torch.get_autocast_dtype(kind)


def _no_autocast(tensor: Tensor) -> AbstractContextManager:
    """Disable autocast; the meta device, on which operations are counted, does not support it."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
