"""Soft-masked attention: cross-attention whose pixels are weighted by a soft mask, differentiable in the mask.

The contribution of "Differentiable Soft-Masked Attention" (Athar, Luiten, Hermans, Ramanan, Leibe, CVPR-W 2022). This
file needs torch alone, so that it can be copied into other projects. For head h, query i and pixel s, with a mask m in
[0, 1]:

    logit = (q_hi . k_hs) / sqrt(d_h) + alpha_h * m_is        weights = softmax over s

A pixel inside the mask is preferred by the factor exp(alpha_h) over one outside; alpha_h is learned for each head. The
loss reaches whatever produced the mask through d logit / d m = alpha_h. Softmax ignores a shift, so `+ alpha * m` and
the released code's `- alpha * (1 - m)` are the same function.

The same function has two forms. The *plain* form projects every pixel to a key and a value. The key and value maps W_k
and W_v of a head are linear, so the *folded* form projects the queries to the channels of the pixels instead:

    q . (W_k x_s) = (W_k^T q) . x_s        sum_s w_s (W_v x_s + b_v) = W_v (sum_s w_s x_s) + b_v sum_s w_s

No key or value of a pixel is computed or stored, which costs less for few queries. The key bias adds the same constant
to all logits of a query, which softmax removes. Both forms consist of differentiable PyTorch operations, so that higher
derivatives, `torch.func`, `torch.compile` and `torch.export` apply.

Legend: B batch, Q queries, N pixels, C channels, h heads, d = C / h.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Mode = Literal["none", "hard", "soft"]
MODES: tuple[Mode, ...] = ("none", "hard", "soft")
Empty = Literal["all", "peak"]
Form = Literal["auto", "plain", "folded"]
FORMS: tuple[Form, ...] = ("auto", "plain", "folded")
LearnAlpha = Literal["per_head", "shared", "fixed"]
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
    return torch.zeros_like(mask).masked_fill(blocked, -math.inf)


class SoftMaskedAttention(nn.Module):
    """Multi-head cross-attention from queries to pixels, weighted by a mask for each query.

    The interface follows `nn.MultiheadAttention(batch_first=True)`.

    Args:
        dim: channels C of queries and output.
        heads: number of heads; divides `dim`.
        mode: `soft` (the paper), `hard` (pixels below 0.5 are blocked, no gradient to the mask) or `none` (plain
            attention, the mask is ignored). Only `soft` has an `alpha`.
        alpha: initial values, one for each head or one for all; None: `initial_alpha(heads)`, and its mean if shared.
        learn_alpha: `per_head`: a parameter of shape (heads,), as in the paper; `shared`: a parameter of shape (1,);
            `fixed`: a buffer, which is not trained.
        bias: whether the four projections have biases.
        kdim: channels of keys; None: `dim`.
        vdim: channels of values; None: `dim`.
        dropout: probability of dropping an attention weight in training.
        alpha_inside_scale: divide alpha * mask by sqrt(C / heads) as well, as some papers write the formula; the
            released code does not (specification section 3.4).
        threshold: of mode `hard`, see `hard_mask_bias`.
        empty: of mode `hard`, see `hard_mask_bias`.
        form: how it is computed, with the same result up to rounding: `plain`, `folded`, or `auto`, the one with fewer
            multiplications.

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
        learn_alpha: LearnAlpha = "per_head",
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
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
        if learn_alpha not in ("per_head", "shared", "fixed"):
            raise ValueError(f"learn_alpha {learn_alpha!r} is none of per_head, shared, fixed")
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.dim, self.heads, self.mode, self.form = dim, heads, mode, form
        self.threshold, self.empty = threshold, empty
        self.mask_scale = 1 / math.sqrt(dim // heads) if alpha_inside_scale else 1.0
        self.q_proj = nn.Linear(dim, dim, bias)
        self.k_proj = nn.Linear(kdim or dim, dim, bias)
        self.v_proj = nn.Linear(vdim or dim, dim, bias)
        self.out_proj = nn.Linear(dim, dim, bias)
        self.dropout = nn.Dropout(dropout)
        if mode == "soft":
            values = _alphas(alpha, heads, shared=learn_alpha == "shared")
            if learn_alpha == "fixed":
                self.register_buffer("alpha", values)
            else:
                self.alpha = nn.Parameter(values)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None = None,
        *,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend from `query` to `key` and `value` under `mask`.

        Args:
            query: (B, Q, C).
            key: (B, N, kdim), the pixels.
            mask: (B, Q, N), or (B, h, Q, N) for a mask of each head, in [0, 1]; unused in mode `none`.
            value: (B, N, vdim); None: `key`. Different where positions are added to the keys only.
            key_padding_mask: bool (B, N), True for pixels to ignore. A query without any other pixel reads zeros, so
                that its output is the bias of `out_proj`.
            need_weights: return the attention weights too.

        Returns:
            (B, Q, C); with `need_weights` also the weights (B, h, Q, N) as applied, that is after dropout.

        Raises:
            ValueError: a mask of another shape, or none where the mode needs one.
        """
        value = key if value is None else value
        self._check(query, key, mask, key_padding_mask)
        bias = self._bias(mask, key_padding_mask, query)
        q = self._split(self.q_proj(query)) / math.sqrt(self.dim // self.heads)  # (B, h, Q, d)
        form = self._folded if self.folds(query.shape[1]) else self._plain
        read, weights = form(q, key, value, bias, need_weights)  # (B, Q, C), (B, h, Q, N)
        if key_padding_mask is not None:
            nothing = key_padding_mask.all(dim=1)
            read = read.masked_fill(nothing.view(-1, 1, 1), 0)
            weights = None if weights is None else weights.masked_fill(nothing.view(-1, 1, 1, 1), 0)
        if need_weights and weights is not None:
            return self.out_proj(read), weights
        return self.out_proj(read)

    def folds(self, queries: int) -> bool:
        """Whether `forward` uses the folded form for this number of queries; with `form` "auto" the cheaper one.

        An exported graph serves every number of queries and has the plain form, unless `form` is "folded".
        """
        if self.form != "auto" or torch.compiler.is_exporting():
            return self.form == "folded"
        width = self.k_proj.in_features + self.v_proj.in_features
        return self.heads * queries * width < self.dim * (width + 2 * queries)

    def _plain(
        self, q: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        k, v = self._split(self.k_proj(key)), self._split(self.v_proj(value))  # (B, h, N, d)
        drops = self.training and self.dropout.p > 0
        same = bias is None or bias.dtype == q.dtype  # under autocast the mask keeps its precision
        if same and not (torch.is_grad_enabled() or need_weights or drops):
            # PyTorch's fused kernel is faster, but has no second and no forward-mode derivatives.
            return functional.scaled_dot_product_attention(q, k, v, bias, scale=1.0).transpose(1, 2).flatten(2), None
        logits = q @ k.transpose(-2, -1)  # (B, h, Q, N)
        weights = self.dropout(functional.softmax(logits if bias is None else logits + bias, dim=-1))
        return (weights @ v).transpose(1, 2).flatten(2), weights

    def _folded(
        self, q: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        # The head's rows of W_k map each query to the channels of the pixels: (B, h, Q, kdim).
        folded = torch.einsum("bhqd,hdc->bhqc", q, self.k_proj.weight.unflatten(0, (self.heads, -1)))
        logits = (folded.flatten(1, 2) @ key.transpose(1, 2)).unflatten(1, (self.heads, -1))  # (B, h, Q, N)
        weights = self.dropout(functional.softmax(logits if bias is None else logits + bias, dim=-1))
        read = (weights.flatten(1, 2) @ value).unflatten(1, (self.heads, -1))  # (B, h, Q, vdim)
        read = torch.einsum("bhqc,hdc->bqhd", read, self.v_proj.weight.unflatten(0, (self.heads, -1))).flatten(2)
        if self.v_proj.bias is not None:
            offset = self.v_proj.bias
            if self.training and self.dropout.p > 0:  # the remaining weights do not sum to 1
                total = weights.sum(-1).transpose(1, 2).unsqueeze(-1)  # (B, Q, h, 1)
                offset = (total * offset.unflatten(0, (self.heads, -1))).flatten(2)
            # The key bias has no effect; optimisers and distributed training need a gradient of it nevertheless.
            read = read + offset + 0 * self.k_proj.bias
        return read, weights

    def weights(
        self, query: Tensor, key: Tensor, mask: Tensor | None = None, *, key_padding_mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights (B, h, Q, N) without dropout, summing to 1 over the pixels, for figures and analysis.

        Arguments and errors are those of `forward`.
        """
        self._check(query, key, mask, key_padding_mask)
        bias = self._bias(mask, key_padding_mask, query)
        q, k = self._split(self.q_proj(query)), self._split(self.k_proj(key))
        logits = q @ k.transpose(-2, -1) / math.sqrt(self.dim // self.heads)
        return functional.softmax(logits if bias is None else logits + bias, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, h, L, d): heads are contiguous slices of channels."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _check(self, query: Tensor, key: Tensor, mask: Tensor | None, padding: Tensor | None) -> None:
        batch, queries, pixels = query.shape[0], query.shape[1], key.shape[1]
        if padding is not None and (padding.dtype != torch.bool or padding.shape != (batch, pixels)):
            raise ValueError(
                f"key_padding_mask must be bool (B, N) = {(batch, pixels)}, got {padding.dtype} {tuple(padding.shape)}"
            )
        if self.mode == "none":
            return
        shapes = ((batch, queries, pixels), (batch, self.heads, queries, pixels))
        if mask is None or mask.shape not in shapes:
            shape = None if mask is None else tuple(mask.shape)
            raise ValueError(
                f"mode {self.mode!r} needs a mask of shape (B, Q, N) = {shapes[0]} or (B, h, Q, N), got {shape}"
            )

    def _bias(self, mask: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
        """Term that mask and padding add to the logits, broadcastable to (B, h, Q, N)."""
        ignored = None if padding is None else padding[:, None, None, :]
        bias: Tensor | None = None
        if mask is not None and self.mode != "none":
            mask = mask if mask.ndim == 4 else mask.unsqueeze(1)
            if self.mode == "soft":
                bias = (self.mask_scale * self.alpha).view(1, -1, 1, 1).to(mask.dtype) * mask
            else:
                mask = mask if ignored is None else mask.masked_fill(ignored, -1)
                bias = hard_mask_bias(mask, self.threshold, self.empty).to(query.dtype)
        if ignored is None:
            return bias
        bias = query.new_zeros(()) if bias is None else bias
        # Finite, so that a query without any pixel has no NaN, in its gradients neither; the half does not overflow.
        return torch.where(ignored, torch.finfo(bias.dtype).min / 2, bias)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, heads={self.heads}, mode={self.mode!r}"


def _alphas(alpha: float | Sequence[float] | None, heads: int, *, shared: bool) -> Tensor:
    """Initial values, (heads,) or, if shared, (1,)."""
    if alpha is None:
        alpha = sum(INITIAL_ALPHA) / len(INITIAL_ALPHA) if shared else initial_alpha(heads)
    count = 1 if shared else heads
    values = [float(alpha)] * count if isinstance(alpha, (int, float)) else list(alpha)
    if len(values) != count:
        raise ValueError(
            f"{len(values)} alphas for {heads} heads: {'a single one' if shared else 'one for each'} is needed"
        )
    return torch.tensor(values, dtype=torch.float32)
