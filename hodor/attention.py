"""Soft-masked attention: cross-attention whose pixels are weighted by a soft mask, differentiable in the mask.

The contribution of "Differentiable Soft-Masked Attention" (Athar, Luiten, Hermans, Ramanan, Leibe, CVPR-W 2022), usable
alone: this module imports torch and nothing else. For head h, query i and pixel s, with a mask m in [0, 1]:

    logit = (q_hi . k_hs) / sqrt(d_h) + alpha_h * m_is        weights = softmax over s

A pixel inside the mask is preferred by the factor exp(alpha_h) over one outside; alpha_h is learned for each head. The
loss reaches whatever produced the mask through d logit / d m = alpha_h. Softmax ignores a shift, so `+ alpha * m` and
the released code's `- alpha * (1 - m)` are the same function.

The same function is computed in one of two forms. The *plain* form projects every pixel to a key and a value. The
*folded* form projects the queries back instead, for W_k and W_v of a head are linear:

    q . (W_k x_s) = (W_k^T q) . x_s        sum_s w_s (W_v x_s + b_v) = W_v (sum_s w_s x_s) + b_v sum_s w_s

so that pixels meet no weight matrix, and no key or value of a pixel is ever stored. The key bias adds the same to all
pixels of a query, which softmax removes. It costs 2 h Q N C multiplications where the plain form costs 2 (C + Q) N C.

Legend: B batch, Q queries, N pixels, C channels, h heads, d = C / h.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Mode = Literal["none", "hard", "soft"]
MODES: tuple[Mode, ...] = ("none", "hard", "soft")
Empty = Literal["all", "peak"]
Form = Literal["auto", "plain", "folded"]
FORMS: tuple[Form, ...] = ("auto", "plain", "folded")
# The learned alphas start at these values, each for a quarter of the heads.
INITIAL_ALPHA = (32.0, 16.0, 8.0, 4.0)


def initial_alpha(heads: int) -> list[float]:
    """The starting alpha of each head: 32, 16, 8, 4, each for a quarter of the heads.

    Raises:
        ValueError: `heads` is no multiple of four.
    """
    if heads % len(INITIAL_ALPHA):
        raise ValueError(f"{heads} heads cannot share the starting alphas {INITIAL_ALPHA} equally: give `alpha`")
    return [value for value in INITIAL_ALPHA for _ in range(heads // len(INITIAL_ALPHA))]


def hard_mask_bias(mask: Tensor, threshold: float = 0.5, empty: Empty = "all") -> Tensor:
    """The additive bias of hard masking: -inf where `mask` (..., N) is below `threshold`, else 0.

    A query whose pixels are all blocked would have no softmax: all its pixels are unblocked (`empty` "all"), or those
    where its mask is largest ("peak"). The result has no gradient: thresholding is what soft masking replaces.
    """
    mask = mask.detach()
    blocked = mask < threshold
    kept = torch.ones_like(blocked) if empty == "all" else mask == mask.amax(dim=-1, keepdim=True)
    blocked = blocked & ~(blocked.all(dim=-1, keepdim=True) & kept)
    return torch.zeros_like(mask).masked_fill_(blocked, -math.inf)


class SoftMaskedAttention(nn.Module):
    """Multi-head cross-attention from queries to pixels, weighted by a mask for each query.

    Args:
        dim: channels C of queries, pixels and output.
        heads: number of heads; divides `dim`.
        mode: `soft` (the paper), `hard` (pixels below 0.5 are blocked, no gradient to the mask) or `none` (plain
            attention, the mask is ignored). Only `soft` has the parameter `alpha` (heads,).
        alpha: starting values, one for each head or one for all; None takes `initial_alpha(heads)`.
        dropout: probability of dropping an attention weight in training.
        alpha_inside_scale: divide alpha * mask by sqrt(C / heads) as well, as some papers write the formula; the
            released code does not (specification section 3.4).
        threshold, empty: of mode `hard`, see `hard_mask_bias`.
        form: how it is computed, with the same result but for rounding: `plain` (the reference), `folded`, or `auto`, the
            one that multiplies less. The folded form has first derivatives alone, by a backward pass of its own:
            take `plain` for second derivatives, forward mode and the transforms of `torch.func`.

    Raises:
        ValueError: an unknown mode or form, heads that do not divide `dim`, or alphas that do not fit the heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mode: Mode = "soft",
        alpha: float | Sequence[float] | None = None,
        dropout: float = 0.0,
        alpha_inside_scale: bool = False,
        threshold: float = 0.5,
        empty: Empty = "all",
        form: Form = "auto",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        if form not in FORMS:
            raise ValueError(f"form {form!r} is none of {', '.join(FORMS)}")
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.dim, self.heads, self.mode, self.form = dim, heads, mode, form
        self.threshold, self.empty = threshold, empty
        self.mask_scale = 1 / math.sqrt(dim // heads) if alpha_inside_scale else 1.0
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        if mode == "soft":
            values = initial_alpha(heads) if alpha is None else alpha
            values = [float(values)] * heads if isinstance(values, (int, float)) else list(values)
            if len(values) != heads:
                raise ValueError(f"{len(values)} alphas for {heads} heads: give one for each")
            self.alpha = nn.Parameter(torch.tensor(values, dtype=torch.float32))

    def forward(self, query: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `query` (B, Q, C) to `pixels` (B, N, C) under `mask` (B, Q, N) in [0, 1]; returns (B, Q, C).

        `mask` may be None in mode `none`.

        Raises:
            ValueError: a mask of another shape, or none where the mode needs one.
        """
        self._check(mask, query, pixels)
        if self.folds(query.shape[1]):
            return self._folded(query, pixels, mask)
        bias = self._bias(mask, query)
        q = self._split(self.q_proj(query))  # (B, h, Q, d)
        k = self._split(self.k_proj(pixels))  # (B, h, N, d)
        v = self._split(self.v_proj(pixels))
        logits = q @ k.transpose(-2, -1) / math.sqrt(self.dim // self.heads)  # (B, h, Q, N)
        if bias is not None:
            logits = logits + bias
        weights = self.dropout(functional.softmax(logits, dim=-1))
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))

    def folds(self, queries: int) -> bool:
        """Whether `forward` takes the folded form for so many queries: always the cheaper one where `form` is `auto`."""
        return self.form == "folded" or (self.form == "auto" and self.heads * queries < self.dim + queries)

    def _folded(self, query: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
        d = self.dim // self.heads
        q = self._split(self.q_proj(query))
        # The head's rows of W_k take each query to the channels of the pixels: (B, h, Q, C).
        keys = torch.einsum("bhqd,hdc->bhqc", q, self.k_proj.weight.unflatten(0, (self.heads, d))) / math.sqrt(d)
        precision = _precision(pixels)
        bias = alpha = keep = None
        if self.mode == "hard":
            bias, mask = hard_mask_bias(mask, self.threshold, self.empty), None
        elif self.mode == "soft":
            alpha = self.mask_scale * self.alpha
        else:
            mask = None
        if self.training and self.dropout.p > 0:
            kept = 1 - self.dropout.p
            keep = torch.empty(*keys.shape[:3], pixels.shape[1], dtype=_sums(precision), device=pixels.device)
            keep.bernoulli_(kept).div_(kept)  # as torch's own dropout draws
        read, total = _FoldedRead.apply(
            keys.to(precision), pixels.to(precision), alpha, mask, bias, keep, self.k_proj.bias
        )  # (B, h, Q, C), (B, h, Q)
        values = torch.einsum("bhqc,hdc->bqhd", read, self.v_proj.weight.unflatten(0, (self.heads, d)))
        offset = self.v_proj.bias.unflatten(0, (self.heads, d))
        values = values + (offset if total is None else total.transpose(1, 2).unsqueeze(-1) * offset)
        return self.out_proj(values.flatten(2))

    def weights(self, query: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
        """What `forward` weights the pixels with, without dropout: (B, h, Q, N), a sum of 1 over the pixels.

        To look at, not to train with: `forward` need not form them. Arguments and errors as there.
        """
        self._check(mask, query, pixels)
        bias = self._bias(mask, query)
        q, k = self._split(self.q_proj(query)), self._split(self.k_proj(pixels))
        logits = q @ k.transpose(-2, -1) / math.sqrt(self.dim // self.heads)
        return functional.softmax(logits if bias is None else logits + bias, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, h, L, d): heads are contiguous slices of channels."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _check(self, mask: Tensor | None, query: Tensor, pixels: Tensor) -> None:
        expected = (query.shape[0], query.shape[1], pixels.shape[1])
        if self.mode != "none" and (mask is None or tuple(mask.shape) != expected):
            shape = None if mask is None else tuple(mask.shape)
            raise ValueError(f"mode {self.mode!r} needs a mask of shape (B, Q, N) = {expected}, got {shape}")

    def _bias(self, mask: Tensor | None, query: Tensor) -> Tensor | None:
        """What the mask adds to the logits, broadcastable to (B, h, Q, N)."""
        if self.mode == "none":
            return None
        if self.mode == "hard":
            return hard_mask_bias(mask, self.threshold, self.empty).unsqueeze(1).to(query.dtype)
        return (self.mask_scale * self.alpha).view(1, -1, 1, 1).to(mask.dtype) * mask.unsqueeze(1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, heads={self.heads}, mode={self.mode!r}"


class _FoldedRead(torch.autograd.Function):
    """Weighted sums of raw pixels: softmax of `keys . pixels + alpha * mask + bias`, times `keep`, times the pixels.

    Written with its gradient because what autograd would keep (logits, biased logits, products of masks and alphas)
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

        `key_bias` is not used: it is here to be given its gradient, zero. Returns the sums (B, h, Q, C) and, where
        weights are dropped, what is left of each query's weights (B, h, Q).
        """
        size = (*keys.shape[:3], pixels.shape[1])
        with _no_autocast(pixels):
            # Pixels first: the long side of the result is then the one that the product runs along.
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
            # The products are used up: their memory takes the weights.
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
            # The gradient of the pixels is much the largest tensor: until it is written, its memory serves as a buffer.
            # It lies as the pixels do, by row or as a feature map (B, C, h, w).
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
    """What autocast would compute products of `pixels` in."""
    kind = pixels.device.type
    if pixels.is_meta or not torch.is_autocast_enabled(kind):
        return pixels.dtype
    return torch.get_autocast_dtype(kind)


def _no_autocast(tensor: Tensor) -> AbstractContextManager:
    """(The meta device, on which operations are counted, knows no autocast.)"""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
