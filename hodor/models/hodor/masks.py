"""Masks that the encoder reads at stride 8, from ground truth or from predictions (specification section 3.1).

Legend: B batch, K objects, G background patches, H W padded image (multiples of 8), h w map.
"""

import torch
from torch import Tensor
from torch.nn import functional


def patch_grid(height: int, width: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Membership of each position in a grid of patches, row-major: (rows * columns, height, width) float.

    Patches have the floored size; the last row and column take the remainder.
    """
    rows, columns = grid
    y = (torch.arange(height, device=device) // max(1, height // rows)).clamp(max=rows - 1)
    x = (torch.arange(width, device=device) // max(1, width // columns)).clamp(max=columns - 1)
    patch = y[:, None] * columns + x[None, :]
    return (patch == torch.arange(rows * columns, device=device)[:, None, None]).float()


def reference_masks(objects: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Encoder masks of a frame with ground truth.

    Args:
        objects: binary masks (B, K, H, W) of the padded frame, float.
        grid: rows and columns of background patches.

    Returns:
        Object masks (B, K, h, w) and background masks (B, G, h, w): the patches without the objects; both resized
        bilinearly to stride 8.
    """
    background = 1 - objects.amax(1, keepdim=True) if objects.shape[1] else torch.ones_like(objects[:, :0].sum(1, True))
    backgrounds = patch_grid(*objects.shape[-2:], grid, objects.device) * background
    return resize(objects, 1 / 8), resize(backgrounds, 1 / 8)


def predicted_masks(objects: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Encoder masks of a frame with predicted object probabilities (B, K, h, w) at stride 8.

    The background is what no object claims, cut into patches at stride 8.
    """
    background = 1 - objects.sum(1, keepdim=True)
    return objects, patch_grid(*objects.shape[-2:], grid, objects.device) * background


def object_probabilities(logits: Tensor, backgrounds: int) -> Tensor:
    """Probabilities of the objects (B, K, H, W): softmax over all channels (B, 1 + G + K, H, W), unmerged."""
    return functional.softmax(logits, dim=1)[:, 1 + backgrounds :]


def merge_backgrounds(logits: Tensor, backgrounds: int) -> Tensor:
    """Logits (B, 1 + K, H, W) that the loss sees: the background channels merged by their largest logit."""
    split = 1 + backgrounds
    return torch.cat([logits[:, :split].amax(1, keepdim=True), logits[:, split:]], dim=1)


def resize(x: Tensor, scale: float) -> Tensor:
    """Bilinear resize of (B, C, H, W), pixel centres aligned, no smoothing before."""
    size = (round(x.shape[-2] * scale), round(x.shape[-1] * scale))
    if x.shape[1] == 0:
        return x.new_zeros((x.shape[0], 0, *size))
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
