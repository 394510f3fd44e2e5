"""Soft-masked attention: cross-attention whose pixels are weighted by a soft mask, differentiable in the mask.

The contribution of "Differentiable Soft-Masked Attention" (Athar, Luiten, Hermans, Ramanan, Leibe, CVPR-W 2022). It
needs torch alone, so that it can be used in other networks. For head h, query i and pixel s, with a mask m in [0, 1]:

    logit = (q_hi . k_hs) / sqrt(d_h) + alpha_h * m_is        weights = softmax over s

A pixel inside the mask is preferred by the factor exp(alpha_h) over one outside; alpha_h is learned for each head. The
loss reaches whatever produced the mask through d logit / d m = alpha_h. Softmax ignores a shift, so `+ alpha * m` and
the released code's `- alpha * (1 - m)` are the same function.

The same function is computed in one of two forms: the *plain* form below projects every pixel to a key and a value, the
*folded* form (`hodor.attention_folded`) projects the queries back to the channels of the pixels instead, which costs
less for few queries.

Legend: B batch, Q queries, N pixels, C channels, h heads, d = C / h.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

try:
    from hodor.attention_folded import folded_read
except ImportError:  # this file was copied alone: it has the plain form
    folded_read = None

Mode = Literal["none", "hard", "soft"]
MODES: tuple[Mode, ...] = ("none", "hard", "soft")
Empty = Literal["all", "peak"]
Form = Literal["auto", "plain", "folded"]
FORMS: tuple[Form, ...] = ("auto", "plain", "folded")
# Initial values of the learned alphas, each for a quarter of the heads.
INITIAL_ALPHA = (32.0, 16.0, 8.0, 4.0)


def initial_alpha(heads: int) -> list[float]:
    """Return the initial alpha of each head: 32, 16, 8, 4, each for a quarter of the heads.

    Raises:
        ValueError: `heads` is no multiple of four.
    """
    if heads % len(INITIAL_ALPHA):
        raise ValueError(f"{heads} heads cannot share the initial alphas {INITIAL_ALPHA} equally; set `alpha`")
    return [value for value in INITIAL_ALPHA for _ in range(heads // len(INITIAL_ALPHA))]


def hard_mask_bias(mask: Tensor, threshold: float = 0.5, empty: Empty = "all") -> Tensor:
    """Return the additive bias of hard masking: -inf where `mask` (..., N) is below `threshold`, else 0.

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
        alpha: initial values, one for each head or one for all; None: `initial_alpha(heads)`.
        dropout: probability of dropping an attention weight in training.
        alpha_inside_scale: divide alpha * mask by sqrt(C / heads) as well, as some papers write the formula; the
            released code does not (specification section 3.4).
        threshold, empty: of mode `hard`, see `hard_mask_bias`.
        form: how it is computed, with the same result up to rounding: `plain` (the reference), `folded`, or `auto`, the
            one with fewer multiplications. The folded form supports first derivatives only: use `plain` for second
            derivatives, forward mode and the transforms of `torch.func`.

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
                raise ValueError(f"{len(values)} alphas for {heads} heads: one for each is needed")
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
        """Whether `forward` uses the folded form for this number of queries; with `form` "auto" the cheaper one."""
        cheaper = self.heads * queries < self.dim + queries
        return self.form == "folded" or (self.form == "auto" and cheaper and folded_read is not None)

    def _folded(self, query: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
        bias = alpha = None
        if self.mode == "hard":
            bias, mask = hard_mask_bias(mask, self.threshold, self.empty), None
        elif self.mode == "soft":
            alpha = self.mask_scale * self.alpha
        else:
            mask = None
        values = folded_read(
            self._split(self.q_proj(query)),
            pixels,
            self.k_proj,
            self.v_proj,
            alpha=alpha,
            mask=mask,
            bias=bias,
            dropout=self.dropout.p if self.training else 0.0,
        )
        return self.out_proj(values)

    def weights(self, query: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
        """Attention weights (B, h, Q, N) without dropout, summing to 1 over the pixels.

        For figures and analysis: `forward` need not compute them. Arguments and errors are those of `forward`.
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
        """Term that the mask adds to the logits, broadcastable to (B, h, Q, N)."""
        if self.mode == "none":
            return None
        if self.mode == "hard":
            return hard_mask_bias(mask, self.threshold, self.empty).unsqueeze(1).to(query.dtype)
        return (self.mask_scale * self.alpha).view(1, -1, 1, 1).to(mask.dtype) * mask.unsqueeze(1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, heads={self.heads}, mode={self.mode!r}"
