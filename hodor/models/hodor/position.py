"""Sine position embedding of the decoder's pixels (DETR; specification section 2)."""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def sine_position(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Embedding of each position of a map, row by row: (height * width, dim), y in the first half of the channels.

    Coordinates are normalised to (0, 2 pi]; temperature 10,000; even channels sine, odd ones cosine. `dim` is a
    multiple of four. Cached, because it depends on the size alone: do not write to the result.
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
