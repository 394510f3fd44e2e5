"""HOD encoder: one descriptor per object and several for the background, from a frame's features and soft masks.

Specification section 3 (HODOR, CVPR 2022, "Object descriptors"; poster, "Soft-masked attention"). Legend: B batch,
K objects, G background patches, Q = G + K descriptors, N pixels, C channels, H W padded image, h w map at stride 8.
"""

import copy
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.attention import SoftMaskedAttention
from hodor.config.methods import ATTENTION, HODOROptions


def build_attention(options: HODOROptions) -> nn.Module:
    """Build the masked cross-attention: a mode of `SoftMaskedAttention` or a registered variant."""
    if module := ATTENTION[options.attention]:
        return import_module(module).build(options)
    return SoftMaskedAttention(
        options.dim,
        options.heads,
        mode=options.attention,  # type: ignore[arg-type]
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
        first, second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.feed_forward = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), second, nn.Dropout(dropout))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor, pixels: Tensor, masks: Tensor) -> Tensor:
        """Transform `x` (B, Q, C) with `embedding` (B, Q, C), `pixels` (B, N, C) and `masks` (B, Q, N)."""
        q = x + embedding
        x = self.norm1(x + self.dropout(self.self_attention(q, q, x, need_weights=False)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, pixels, masks)))
        return self.norm3(x + self.feed_forward(x))


class Encoder(nn.Module):
    """Descriptors of the background patches and of the objects of one frame.

    The decoder adds the learned `background_embedding` (G, C) and `object_embedding` (C) to its keys too.
    """

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        rows, columns = options.background_grid
        self.options = options
        self.object_embedding = nn.Parameter(torch.randn(options.dim))
        self.background_embedding = nn.Parameter(torch.randn(rows * columns, options.dim))
        layer = EncoderLayer(options)  # as in the release, all layers start from the same weights
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(options.encoder_layers))

    def forward(self, features: Tensor, objects: Tensor, backgrounds: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one frame.

        Args:
            features: (B, C, h, w) at stride 8.
            objects: soft masks (B, K, h, w) in [0, 1].
            backgrounds: soft masks of the background patches (B, G, h, w).

        Returns:
            Descriptors of the background (B, G, C) and of the objects (B, K, C).
        """
        pixels, split = features.flatten(2).transpose(1, 2), backgrounds.shape[1]
        masks = torch.cat([backgrounds, objects], dim=1).flatten(2)  # (B, Q, N)
        shown = masks if self.options.masked_initialisation else torch.ones_like(masks)
        x = initial_descriptors(pixels, shown, backgrounds=split)
        if not self.options.mask_backgrounds:
            masks = torch.cat([torch.ones_like(masks[:, :split]), masks[:, split:]], dim=1)
        if self.options.zero_alpha:
            masks = torch.zeros_like(masks)  # alpha * 0 = 0 * mask; the initial descriptors keep their masks
        embedding = torch.cat([self.background_embedding, self.object_embedding.expand(objects.shape[1], -1)])
        embedding = embedding.expand(len(x), -1, -1)
        for layer in self.layers:
            x = layer(x, embedding, pixels, masks)
        return x[:, :split], x[:, split:]


@torch.no_grad()
def initial_descriptors(pixels: Tensor, masks: Tensor, *, backgrounds: int) -> Tensor:
    """Average the features where each mask exceeds 0.5: `pixels` (B, N, C), `masks` (B, Q, N) -> (B, Q, C).

    If there is no such pixel, the result is the feature at the mask's maximum, and 0 for the first `backgrounds` masks,
    those of background patches. There is no gradient, as published.
    """
    inside = (masks > 0.5).to(pixels.dtype)
    count = inside.sum(-1, keepdim=True)
    mean = inside @ pixels / count.clamp(min=1)
    peak = masks.argmax(-1, keepdim=True).expand(-1, -1, pixels.shape[-1])
    fallback = pixels.gather(1, peak)
    fallback[:, :backgrounds] = 0
    return torch.where(count > 0, mean, fallback)


def patch_grid(height: int, width: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the masks of a grid of patches in row-major order: (rows * columns, height, width) float.

    Sizes of patches are rounded down; the last row and column include the remainder (specification section 3.1).
    """
    rows, columns = grid
    y = (torch.arange(height, device=device) // max(1, height // rows)).clamp(max=rows - 1)
    x = (torch.arange(width, device=device) // max(1, width // columns)).clamp(max=columns - 1)
    patch = y[:, None] * columns + x[None, :]
    return (patch == torch.arange(rows * columns, device=device)[:, None, None]).float()


def reference_masks(objects: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the encoder masks of a frame with binary masks (B, K, H, W), float, and `grid` background patches.

    Returns:
        Object masks (B, K, h, w) and background masks (B, G, h, w), the patches without the objects; both are resized
        bilinearly to stride 8.
    """
    height, width = objects.shape[-2:]
    backgrounds = patch_grid(height, width, grid, objects.device) * (1 - objects.amax(1, keepdim=True))
    return resize(objects, 1 / 8), resize(backgrounds, 1 / 8)


def predicted_masks(objects: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the encoder masks of a frame with predicted object probabilities (B, K, h, w) at stride 8.

    The background is 1 minus their sum, divided into patches at stride 8.
    """
    height, width = objects.shape[-2:]
    return objects, patch_grid(height, width, grid, objects.device) * (1 - objects.sum(1, keepdim=True))


def object_probabilities(logits: Tensor, backgrounds: int) -> Tensor:
    """Return the objects' probabilities (B, K, H, W), by softmax over all channels of logits (B, 1 + G + K, H, W)."""
    return functional.softmax(logits, dim=1)[:, 1 + backgrounds :]


def merge_backgrounds(x: Tensor, backgrounds: int) -> Tensor:
    """Merge the background channels by their maximum: (B, 1 + G + K, H, W) -> (B, 1 + K, H, W)."""
    return torch.cat([x[:, : 1 + backgrounds].amax(1, keepdim=True), x[:, 1 + backgrounds :]], dim=1)


def resize(x: Tensor, scale: float) -> Tensor:
    """Resize (B, C, H, W) bilinearly by a factor, without anti-aliasing."""
    size = (round(x.shape[-2] * scale), round(x.shape[-1] * scale))
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
