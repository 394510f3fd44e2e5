"""OR decoder: mask logits of a frame from its features and the descriptors of other frames.

Specification section 4. Legend: B batch, T history frames, K objects, G background patches, N pixels, C channels,
h w map at stride 8, M = (K + G) T descriptors.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import HODOROptions
from hodor.models.deformable import DeformableConv


class Descriptors(NamedTuple):
    """Descriptors of one frame: backgrounds (B, G, C) and objects (B, n, C), the first of which has the number `first`.

    Those with `first` > 0 describe new objects only, and their backgrounds are not used.
    """

    backgrounds: Tensor
    objects: Tensor
    first: int = 0


@dataclass
class History:
    """Descriptors of one or more frames: `objects` (B, K, T, C) and `backgrounds` (B, G, T, C).

    The mask `valid`, bool (K + G, T), is False where a frame has no such descriptor; None: all exist.
    """

    objects: Tensor
    backgrounds: Tensor
    valid: Tensor | None = None

    @staticmethod
    def of(frames: Sequence[Descriptors]) -> "History":
        """Stack the descriptors of frames, with invalid ones for objects that a frame does not describe."""
        first, stop = [x.first for x in frames], [x.first + x.objects.shape[1] for x in frames]
        count = max(stop)
        padded = [functional.pad(x.objects, (0, 0, x.first, count - n)) for x, n in zip(frames, stop, strict=True)]
        history = History(torch.stack(padded, 2), torch.stack([x.backgrounds for x in frames], 2))
        if any(first) or min(stop) < count:
            start, end = (torch.tensor(x, device=history.objects.device) for x in (first, stop))
            number = torch.arange(count, device=history.objects.device).unsqueeze(1)
            backgrounds = (start == 0).expand(history.backgrounds.shape[1], -1)
            history.valid = torch.cat([(number >= start) & (number < end), backgrounds])
        return history

    def padded(self, length: int) -> "History":
        """Append invalid frames up to `length`, so that the shape does not depend on the number of frames."""
        count, frames = self.objects.shape[1] + self.backgrounds.shape[1], self.objects.shape[2]
        valid = self.objects.new_ones(count, frames, dtype=torch.bool) if self.valid is None else self.valid
        objects, backgrounds = (functional.pad(x, (0, 0, 0, length - frames)) for x in (self.objects, self.backgrounds))
        return History(objects, backgrounds, functional.pad(valid, (0, length - frames)))


class DescriptorAttention(nn.Module):
    """Attention of pixels to descriptors, with separate keys and values for objects and background; no output layer."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj_objects = nn.Linear(dim, dim)
        self.v_proj_objects = nn.Linear(dim, dim)
        self.k_proj_backgrounds = nn.Linear(dim, dim)
        self.v_proj_backgrounds = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, history: History, embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Attend from pixels (B, N, C); the embeddings of objects (C) and backgrounds (G, C) are added to keys only."""
        objects, backgrounds = history.objects, history.backgrounds
        keys = (
            self.k_proj_objects(objects + embeddings[0]),
            self.k_proj_backgrounds(backgrounds + embeddings[1].unsqueeze(1)),
        )
        values = self.v_proj_objects(objects), self.v_proj_backgrounds(backgrounds)
        q = self._split(self.q_proj(query))  # (B, heads, N, d)
        k, v = (self._split(torch.cat([x.flatten(1, 2) for x in parts], dim=1)) for parts in (keys, values))
        valid = None if history.valid is None else history.valid.flatten()  # (M,)
        if not (self.training and self.dropout.p):
            bias = None if valid is None else q.new_zeros(1, len(valid)).masked_fill_(~valid, -math.inf)
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        # The release drops logits, not weights: a dropped logit is 0, not minus infinity.
        logits = self.dropout((q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1))
        if valid is not None:
            logits = logits.masked_fill(~valid, -math.inf)
        return (functional.softmax(logits, dim=-1) @ v).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ContiguousGradient(torch.autograd.Function):
    """The identity with a contiguous gradient.

    Compiled code (torch 2.13) assumes that a layer norm keeps the layout of its output's gradient. If that is transposed,
    it does not, and a group norm before it computes a wrong gradient without any error.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class DecoderLayer(nn.Module):
    """Deformable convolution, attention to descriptors and feed-forward layers, each with a residual connection."""

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        dim, hidden = options.dim, options.decoder_hidden
        self.convolution = DeformableConv(dim)
        self.convolution_norm = nn.GroupNorm(16, dim)
        self.cross_attention = DescriptorAttention(dim, options.heads, options.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, position: Tensor, history: History, embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Transform `x` (B, C, h, w); `position` (N, C) is added to the queries."""
        height, width = x.shape[-2:]
        x = x + self.convolution_norm(functional.relu(self.convolution(x)))
        x = x.flatten(2).transpose(1, 2).contiguous()  # (B, N, C)
        attended = self.cross_attention(x + position, history, embeddings)
        x = self.norm1(x + self.dropout(attended))
        hidden = self.dropout(functional.relu(self.fc1(x)))
        x = ContiguousGradient.apply(self.norm2(x + self.dropout(self.fc2(hidden))))
        return x.transpose(1, 2).unflatten(2, (height, width)).contiguous()


class Decoder(nn.Module):
    """Mask logits of one frame from its features and a history of descriptors."""

    def __init__(self, options: HODOROptions) -> None:
        super().__init__()
        dim, layer = options.dim, DecoderLayer(options)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(options.decoder_layers))
        self.reduce_4 = nn.Sequential(nn.Conv2d(dim, dim // 4, 1, bias=False), nn.ReLU(True), nn.GroupNorm(8, dim // 4))
        self.embed_4 = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.ReLU(True), nn.GroupNorm(8, dim))
        self.object_query = nn.Linear(dim, dim)
        self.background_query = nn.Linear(dim, dim)
        # A background channel that does not depend on descriptors.
        self.catch_all = nn.Sequential(
            nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False),
            nn.GroupNorm(8, dim // 2),
            nn.ReLU(True),
            nn.Conv2d(dim // 2, 1, 1, bias=False),
        )

    def forward(
        self, features_4: Tensor, features_8: Tensor, history: History, embeddings: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Decode one frame.

        Args:
            features_4: (B, C, 2 h, 2 w) at stride 4.
            features_8: (B, C, h, w) at stride 8.
            history: descriptors of previous frames.
            embeddings: of objects (C) and backgrounds (G, C), those of the encoder.

        Returns:
            Logits (B, 1 + G + K, 2 h, 2 w): the catch-all, the background patches, the objects.
        """
        position = sine_position(*features_8.shape[-2:], features_8.shape[1], features_8.device).to(features_8.dtype)
        x = features_8
        for layer in self.layers:
            x = layer(x, position, history, embeddings)
        x = functional.interpolate(x, size=features_4.shape[-2:], mode="bilinear", align_corners=False)
        fine = self.reduce_4(features_4)
        split = fine.shape[1]
        embedded = self.embed_4(torch.cat([x[:, :split] + fine, x[:, split:]], dim=1))
        valid, count = history.valid, history.objects.shape[1]
        of_objects, of_backgrounds = (None, None) if valid is None else (valid[:count], valid[count:])
        backgrounds = similarity(self.background_query(history.backgrounds), embedded, of_backgrounds)
        objects = similarity(self.object_query(history.objects), embedded, of_objects)
        return torch.cat([self.catch_all(embedded), backgrounds, objects], dim=1)


def similarity(query: Tensor, pixels: Tensor, valid: Tensor | None) -> Tensor:
    """Return the maximum over T of the scaled dot products of queries (B, K, T, C) and pixels (B, C, H, W): (B, K, H, W).

    Queries outside `valid` (K, T) are ignored.
    """
    batch, count, frames, dim = query.shape
    products = query.flatten(1, 2) @ pixels.flatten(2) / math.sqrt(dim)  # (B, K T, H W)
    products = products.view(batch, count, frames, -1)
    if valid is not None:
        products = products.masked_fill(~valid.view(1, count, frames, 1), -math.inf)
    return products.amax(2).unflatten(-1, pixels.shape[-2:])


@lru_cache(maxsize=64)
def sine_position(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Return DETR's sine embedding of the positions of a map (specification section 2): (height * width, dim).

    The first half of the channels encodes y, the second x; coordinates are normalised to (0, 2 pi], the temperature is
    10,000, even channels are sines, odd ones cosines. The result is cached and must not be modified.
    """
    half = dim // 2
    exponents = torch.arange(half, device=device, dtype=torch.float32).div(2, rounding_mode="floor") * 2 / half
    frequencies = 10_000**exponents

    def axis(size: int) -> Tensor:
        coordinates = torch.arange(1, size + 1, device=device, dtype=torch.float32) / (size + 1e-6) * (2 * math.pi)
        angles = coordinates[:, None] / frequencies  # (size, half)
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1)

    y, x = axis(height), axis(width)
    return torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], dim=-1).flatten(0, 1)
