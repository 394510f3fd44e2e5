"""HOD encoder: soft masks and one frame's features become one descriptor an object, and a few of the background.

Specification section 3 (HODOR, CVPR 2022, "Object descriptors"; poster, "Soft-masked attention"). Legend: B batch,
K objects, G background patches, Q = G + K descriptors, N pixels, C channels, h w map at stride 8.
"""

import copy
from importlib import import_module

import torch
from torch import Tensor, nn

from hodor.attention import SoftMaskedAttention
from hodor.config.methods import ATTENTION, HODOROptions


def build_attention(options: HODOROptions) -> nn.Module:
    """The masked cross-attention that the options name: one of the paper's, or a variant's own."""
    if module := ATTENTION[options.attention]:
        return import_module(module).build(options)
    return SoftMaskedAttention(
        options.dim,
        options.heads,
        mode=options.attention,
        dropout=options.dropout,
        alpha_inside_scale=options.alpha_inside_scale,
        threshold=options.mask_threshold,
        empty=options.empty_mask,
    )


class EncoderLayer(nn.Module):
    """Self-attention among descriptors, soft-masked cross-attention to pixels, feed-forward; post-norm."""

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        dim, hidden, dropout = options.dim, options.encoder_hidden, options.dropout
        self.self_attention = nn.MultiheadAttention(dim, options.heads, dropout=dropout, batch_first=True)
        self.cross_attention = build_attention(options)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor, pixels: Tensor, masks: Tensor) -> Tensor:
        """`x`, `embedding` (B, Q, C), `pixels` (B, N, C), `masks` (B, Q, N) -> (B, Q, C)."""
        q = x + embedding
        x = self.norm1(x + self.dropout(self.self_attention(q, q, x, need_weights=False)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, pixels, masks)))
        return self.norm3(x + self.feed_forward(x))


class Encoder(nn.Module):
    """Descriptors of the background patches and of the objects of one frame.

    `background_embedding` (G, C) and `object_embedding` (C) are learned; the decoder adds them to its keys too.
    """

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        rows, columns = options.background_grid
        self.options = options
        self.object_embedding = nn.Parameter(torch.randn(options.dim))
        self.background_embedding = nn.Parameter(torch.randn(rows * columns, options.dim))
        layer = EncoderLayer(options)
        # The release builds one layer and copies it: all layers start from the same weights.
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(options.encoder_layers))

    def forward(self, features: Tensor, objects: Tensor, backgrounds: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one frame.

        Args:
            features: (B, C, h, w) at stride 8.
            objects: soft masks (B, K, h, w) in [0, 1]; K may be 0.
            backgrounds: soft masks of the background patches (B, G, h, w).

        Returns:
            Descriptors of the background (B, G, C) and of the objects (B, K, C).
        """
        pixels = features.flatten(2).transpose(1, 2)  # (B, N, C)
        split = backgrounds.shape[1]
        masks = torch.cat([backgrounds, objects], dim=1).flatten(2)  # (B, Q, N)
        shown = masks if self.options.masked_initialisation else torch.ones_like(masks)
        x = initial_descriptors(pixels, shown, backgrounds=split)
        if not self.options.mask_backgrounds:
            masks = torch.cat([torch.ones_like(masks[:, :split]), masks[:, split:]], dim=1)
        if self.options.zero_alpha:
            masks = torch.zeros_like(masks)  # 0 * mask = alpha * 0: the attention alone no longer sees the masks
        count = objects.shape[1]
        embedding = torch.cat([self.background_embedding, self.object_embedding.expand(count, -1)])
        embedding = embedding.expand(len(x), -1, -1)
        for layer in self.layers:
            x = layer(x, embedding, pixels, masks)
        return x[:, :split], x[:, split:]


@torch.no_grad()
def initial_descriptors(pixels: Tensor, masks: Tensor, *, backgrounds: int) -> Tensor:
    """Mean feature under each mask above one half: `pixels` (B, N, C), `masks` (B, Q, N) -> (B, Q, C).

    Where no pixel is above one half, an object takes the feature at its mask's largest value and a background patch
    (the first `backgrounds` masks) is zero. Without gradient, as published.
    """
    inside = (masks > 0.5).to(pixels.dtype)
    count = inside.sum(-1, keepdim=True)
    mean = inside @ pixels / count.clamp(min=1)
    peak = masks.argmax(-1, keepdim=True).expand(-1, -1, pixels.shape[-1])
    fallback = pixels.gather(1, peak)
    fallback[:, :backgrounds] = 0
    return torch.where(count > 0, mean, fallback)
