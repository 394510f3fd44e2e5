"""From what an object read of the memory to its probability (baselines specification, sections 1.1 and 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import MemoryOptions
from hodor.models.memory.blocks import Query, ResidualBlock


class Level(nn.Module):
    """Doubles the size of x (B K, C, h, w) and adds a skip (B, C', 2h, 2w) that all objects of a frame share."""

    def __init__(self, skip: nn.Module, out: nn.Module) -> None:
        super().__init__()
        self.skip, self.out = skip, out

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        skip = self.skip(skip)
        return self.out((x.unflatten(0, (len(skip), -1)) + skip.unsqueeze(1)).flatten(0, 1))


class Decoder(nn.Module):
    """STM's or STCN's decoder. `skips`: channels of the maps at strides 4 and 8."""

    def __init__(self, options: MemoryOptions, skips: tuple[int, int]) -> None:
        super().__init__()
        inputs, dim, (fine, middle) = 2 * options.value_dim, options.decoder_dim, skips
        self.stride = options.stride
        if options.decoder == "stm":
            self.compress = nn.Sequential(_convolution(inputs, dim), ResidualBlock(dim, dim))
            skip = [nn.Sequential(_convolution(width, dim), ResidualBlock(dim, dim)) for width in (middle, fine)]
            out = [ResidualBlock(dim, dim), ResidualBlock(dim, dim)]
        else:
            self.compress = ResidualBlock(inputs, 2 * dim)
            skip = [_convolution(middle, 2 * dim), _convolution(fine, dim)]
            out = [ResidualBlock(2 * dim, dim), ResidualBlock(dim, dim)]
        self.levels = nn.ModuleList(Level(*pair) for pair in zip(skip, out, strict=True))
        # Two logits, of the rest and of the object, or one: the object's.
        self.predict = _convolution(dim, 2 if options.decoder == "stm" else 1)

    def forward(self, query: Query, read: Tensor) -> Tensor:
        """Probabilities (B, K, H, W) in float32 of objects that read (B, K, Cv, h, w), each apart from the others."""
        value = query.value.unsqueeze(1).expand(-1, read.shape[1], -1, -1, -1)
        x = self.compress(torch.cat([read.to(value.dtype), value], dim=2).flatten(0, 1))
        for level, skip in zip(self.levels, reversed(query.skips), strict=True):
            x = level(x, skip)
        logits = self.predict(functional.relu(x)).float()
        logits = functional.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)
        p = functional.softmax(logits, dim=1)[:, 1] if logits.shape[1] == 2 else torch.sigmoid(logits[:, 0])
        return p.unflatten(0, read.shape[:2])


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
