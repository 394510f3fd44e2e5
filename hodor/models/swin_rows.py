"""Swin's blocks for inference on a CPU: a frame as rows of channels, updated in place, piece by piece.

The same sums as `swin.Block` without what its form costs there: windows are gathered in one go instead of padded, rolled
and cut; tokens that pad a map to whole windows are not projected, for all of them are zero and get the bias; the wide
layer of the MLP exists for some rows at a time, which stay in the cache; the mask of shifted windows is added once for a
size of map.

Legend: N = h w tokens of a frame, C channels, n windows, 49 tokens a window.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 7
_ROWS = 1024


@lru_cache(maxsize=32)
def window_rows(height: int, width: int, shift: int) -> tuple[Tensor, Tensor]:
    """Which token each place of each window shows (n * 49), N where it is padding; and the place of each token (N).

    Cached, for it depends on the size alone: do not write to the results.
    """
    with torch.inference_mode(False):
        padded = torch.full((height + -height % WINDOW, width + -width % WINDOW), height * width)
        padded[:height, :width] = torch.arange(height * width).view(height, width)
        padded = torch.roll(padded, (-shift, -shift), (0, 1))
        rows, columns = padded.shape[0] // WINDOW, padded.shape[1] // WINDOW
        tokens = padded.view(rows, WINDOW, columns, WINDOW).transpose(1, 2).flatten()
        places = torch.empty(height * width + 1, dtype=torch.long)
        places[tokens] = torch.arange(len(tokens))
        return tokens, places[:-1].clone()


@torch.no_grad()
def run_block(block, x: Tensor, height: int, width: int, allowed: Tensor) -> None:
    """One `swin.Block` on the rows `x` (N, C) of a frame, in place; `allowed` (n, 49, 49) as there."""
    _attend(block, x, height, width, allowed)
    fc1, fc2, norm = block.mlp.fc1, block.mlp.fc2, block.norm2
    for part in x.split(_ROWS):
        hidden = fc1(norm(part))
        torch.ops.aten.gelu_(hidden)
        part += fc2.bias
        part.addmm_(hidden, fc2.weight.t())


def _attend(block, x: Tensor, height: int, width: int, allowed: Tensor) -> None:
    attention, (tokens, channels) = block.attn, x.shape
    of_window, of_token = window_rows(height, width, block.shift)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    projected = x.new_empty((tokens + 1, 3 * channels))
    for part, out in zip(x.split(_ROWS), projected[:tokens].split(_ROWS), strict=True):
        torch.addmm(bias, block.norm1(part), weight.t(), out=out)
    projected[tokens] = bias
    windows = projected.index_select(0, of_window).view(-1, WINDOW**2, 3, attention.heads, channels // attention.heads)
    q, k, v = windows.permute(2, 0, 3, 1, 4)  # (n, heads, 49, d)
    added = attention.bias(allowed if block.shift else None)
    found = functional.scaled_dot_product_attention(q, k, v, attn_mask=added).transpose(1, 2).reshape(-1, channels)
    for part, places in zip(x.split(_ROWS), of_token.split(_ROWS), strict=True):
        part += attention.proj.bias
        part.addmm_(found.index_select(0, places), attention.proj.weight.t())
