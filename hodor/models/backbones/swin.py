"""Swin transformer, detection variant (Liu et al., ICCV 2021): maps at strides 4, 8, 16, 32 for any image size.

Parameter names are those of the original release. As in the detection variant, maps are padded to multiples of the window
inside each block and to even sizes before merging.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.device import feature_map

WINDOW = 7


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for whole samples (Huang et al., ECCV 2016)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)


class WindowAttention(nn.Module):
    """Self-attention within windows of WINDOW x WINDOW tokens, with a learned bias for each relative position."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        position = torch.arange(WINDOW * WINDOW)
        dy, dx = (x[:, None] - x[None, :] + WINDOW - 1 for x in (position // WINDOW, position % WINDOW))
        self.register_buffer("relative_position_index", dy * (2 * WINDOW - 1) + dx)  # rows of the table (49, 49)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        """Attend within windows `x` (B * windows, 49, C); `allowed` (windows, 49, 49) is additive, None without shift."""
        windows, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(windows, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1).unsqueeze(0).contiguous()  # (1, heads, 49, 49)
        if allowed is not None:
            bias = (bias + allowed.unsqueeze(1)).repeat(windows // allowed.shape[0], 1, 1, 1)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Window attention, in every second block with shifted windows, then an MLP; pre-norm."""

    def __init__(self, dim: int, heads: int, *, shift: int, drop_path: float) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        layers = [("fc1", nn.Linear(dim, 4 * dim)), ("gelu", nn.GELU()), ("fc2", nn.Linear(4 * dim, dim))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """Transform `x` (B, h, w, C); `allowed` is the mask of shifted windows of the padded map."""
        x = x + self.drop_path(self._attend(self.norm1(x), allowed))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, allowed: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        x = functional.pad(x, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
        rows, columns = x.shape[1] // WINDOW, x.shape[2] // WINDOW
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(batch, rows, WINDOW, columns, WINDOW, dim).permute(0, 1, 3, 2, 4, 5)
        x = self.attn(x.reshape(-1, WINDOW * WINDOW, dim), allowed if self.shift else None)
        x = x.view(batch, rows, columns, WINDOW, WINDOW, dim).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * WINDOW, columns * WINDOW, dim)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :height, :width]


def shifted_window_mask(height: int, width: int, shift: int, device: torch.device) -> Tensor:
    """Return an additive mask (windows, 49, 49): -100 between tokens that only the cyclic shift makes neighbours."""
    height, width = height + -height % WINDOW, width + -width % WINDOW

    def region(size: int) -> Tensor:
        index = torch.arange(size, device=device)
        return (index >= size - WINDOW).long() + (index >= size - shift).long()

    regions = region(height)[:, None] * 3 + region(width)[None, :]
    regions = regions.view(height // WINDOW, WINDOW, width // WINDOW, WINDOW).transpose(1, 2)
    regions = regions.reshape(-1, WINDOW * WINDOW)
    return (regions[:, :, None] != regions[:, None, :]) * -100.0


class PatchMerging(nn.Module):
    """Half the resolution: 2x2 neighbours are concatenated and projected to twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Blocks at one resolution, one for each probability of `drop_path`, and the layer to the next one."""

    def __init__(self, dim: int, heads: int, drop_path: Sequence[float], *, downsample: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, shift=(i % 2) * (WINDOW // 2), drop_path=rate) for i, rate in enumerate(drop_path)
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        allowed = shifted_window_mask(x.shape[1], x.shape[2], WINDOW // 2, x.device).to(x.dtype)
        for block in self.blocks:
            x = block(x, allowed)
        return x


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, h, w, C); images are padded on the right and below to multiples of 4."""
        x = functional.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Swin transformer, by default Swin-T."""

    def __init__(self, *, width: int = 96, depths: Sequence[int] = (2, 2, 6, 2), drop_path: float = 0.2) -> None:
        super().__init__()
        self.channels = [width * 2**i for i in range(len(depths))]
        rates = torch.linspace(0, drop_path, sum(depths)).split(list(depths))
        self.patch_embed = PatchEmbed(width)
        self.layers = nn.ModuleList()
        for i, (dim, rate) in enumerate(zip(self.channels, rates, strict=True)):
            self.layers.append(Stage(dim, max(1, dim // 32), rate.tolist(), downsample=i + 1 < len(depths)))
            self.add_module(f"norm{i}", nn.LayerNorm(dim))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        maps = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            maps.append(feature_map(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2)))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
