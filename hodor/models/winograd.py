"""3x3 convolution with a quarter of the products, for inference on a CPU.

Winograd's F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016): a tile of 6x6
inputs becomes 4x4 outputs through 36 products a channel pair instead of 144. Tiles, weights and outputs are transformed
by fixed matrices; what lies between is one matrix product for each of the 36 places. In float32 the result differs from
the direct sum by about 1e-5 of its largest value, so that training keeps the direct form.

Legend: B batch, C input channels, O output channels, H W map, n tiles of a block.
"""

from functools import cache

import torch
from torch import Tensor, nn

from hodor.models.forms import cpu_inference

TILE = 4
# Below so many pixels or channels the transforms cost more than the products that they save.
_LEAST_PIXELS, _LEAST_CHANNELS = 1024, 32
# Tiles transformed at a time: their 36 planes stay in the cache.
_TILES = 464

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


@cache
def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    with torch.inference_mode(False):  # kept: an inference tensor would serve inference alone
        return torch.tensor(rows, dtype=torch.float32)


def _transform(rows: tuple[tuple[float, ...], ...], planes: Tensor) -> Tensor:
    """Apply a matrix (m, k) along both axes of `planes` (k, k, L): (m, m, L)."""
    matrix = _matrix(rows)
    k = planes.shape[0]
    return matrix @ (matrix @ planes.reshape(k, -1)).view(len(matrix), k, -1)


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve float32 `x` (B, C, H, W) with `weight` (O, C, 3, 3), zeros around it: (B, O, H, W), channels last.

    It runs in the layout of channels last; `x` in another is copied.
    """
    batch, channels, height, width = x.shape
    outputs = len(weight)
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = x.new_zeros((batch, TILE * rows + 2, TILE * columns + 2, channels))
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    kernels = _transform(_WEIGHT, weight.permute(2, 3, 0, 1)).view(36, outputs, channels).transpose(1, 2)
    out = x.new_empty((batch, TILE * rows, TILE * columns, outputs))
    block = max(1, _TILES // columns)  # rows of tiles
    for image, target in zip(padded, out, strict=True):
        tiles = image.unfold(0, 6, TILE).unfold(1, 6, TILE).permute(3, 4, 0, 1, 2)  # (6, 6, rows, columns, C)
        for first in range(0, rows, block):
            part = tiles[:, :, first : first + block]
            n = part.shape[2] * columns
            transformed = _transform(_INPUT, part.reshape(6, 6, n * channels))
            products = torch.bmm(transformed.view(36, n, channels), kernels)  # (36, n, O)
            found = _transform(_OUTPUT, products.view(6, 6, n * outputs)).view(TILE, TILE, -1, columns, outputs)
            found = found.permute(2, 0, 3, 1, 4)  # (rows, 4, columns, 4, O)
            place = target[TILE * first : TILE * (first + block)].view(found.shape)
            if bias is None:
                place.copy_(found)
            else:
                torch.add(found, bias, out=place)
    return out[:, :height, :width].permute(0, 3, 1, 2)


class Conv3x3(nn.Conv2d):
    """3x3 convolution, stride 1, zeros around it; Winograd's form where that is faster and no gradient is asked for."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)."""
        if self._saves(x):
            return winograd_conv2d(x, self.weight, self.bias)
        return super().forward(x)

    def _saves(self, x: Tensor) -> bool:
        """Whether products, not transforms, are what this convolution consists of."""
        large = x.shape[-2] * x.shape[-1] >= _LEAST_PIXELS and min(self.weight.shape[:2]) >= _LEAST_CHANNELS
        return large and cpu_inference(x, self.weight)
