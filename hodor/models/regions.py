"""Regions of a frame: boxes around masks, maps read inside boxes, results pasted back.

Boxes (left, top, right, bottom) are fractions of the frame, for maps of every stride, and may exceed it.
Legend: B batch, K objects, C channels, H W frame, h w map, R cells of a region on a side.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hodor.device import constant, in_float32

Number = Tensor | float
WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of the whole frame."""


def tight_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boxes (B, K, 4) of masks (B, K, H, W) above 0.5, and whether they are not empty, bool (B, K).

    The box of an empty mask is the whole frame.
    """
    inside = masks > 0.5
    sides = []
    for axis in (2, 3):
        used = inside.any(axis)  # (B, K, W), then (B, K, H)
        length = used.shape[2]
        position = torch.arange(length, device=masks.device)
        first, last = torch.where(used, position, length).amin(2), torch.where(used, position + 1, 0).amax(2)
        sides.append((first / length, last / length))
    (left, right), (top, bottom) = sides
    found, boxes = inside.flatten(2).any(2), torch.stack([left, top, right, bottom], 2)
    return torch.where(found.unsqueeze(2), boxes, constant(WHOLE, masks.device)), found


def enlarge(boxes: Tensor, scale: Number, least: tuple[float, float], shift: Number = 0.0) -> Tensor:
    """Enlarge boxes by `scale` around their centres, up to the size of the frame.

    Args:
        boxes: (B, K, 4).
        scale: factor of both sides, at least 1; a tensor broadcasts to (B, K, 1).
        least: smallest width and height.
        shift: movement of the new box in [-1, 1], at +-1 as far as the old box stays inside; a tensor broadcasts to
            (B, K, 2).
    """
    centre, side = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    larger = torch.maximum(side * scale, constant(least, side.device)).clamp(max=1.0)
    centre = centre + shift * (larger - side) / 2
    return torch.cat([centre - larger / 2, centre + larger / 2], dim=-1)


def roi_align(maps: Tensor, boxes: Tensor, size: int, samples: int = 2) -> Tensor:
    """Average bilinear samples of maps, 0 outside, in the cells of boxes (He et al., "Mask R-CNN", ICCV 2017, section 3).

    Args:
        maps: (B, C, h, w).
        boxes: (B, K, 4).
        size: cells per side of a region.
        samples: per side of a cell.

    Returns:
        (B, K, C, size, size) in float32.
    """
    count = size * samples
    position = (torch.arange(count, device=boxes.device) + 0.5) / count
    left_top, side = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    at = (
        2 * (left_top.unsqueeze(2) + side.unsqueeze(2) * position.view(-1, 1)) - 1
    )  # (B, K, count, 2), x and y separately
    x, y = at[..., 0].unsqueeze(2), at[..., 1].unsqueeze(3)
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1)  # (B, K, count, count, 2)
    # All regions of a frame form one tall image, so that the map is not copied for each object.
    with in_float32(maps):
        read = functional.grid_sample(maps.float(), grid.flatten(1, 2).float(), align_corners=False)
        read = functional.avg_pool2d(read, samples) if samples > 1 else read
    return read.unflatten(2, (boxes.shape[1], size)).transpose(1, 2)


def mask_regions(masks: Tensor, boxes: Tensor, size: int, samples: int) -> Tensor:
    """Apply `roi_align` to each mask of (B, K, H, W) in its own box of (B, K, 4): (B, K, 1, size, size)."""
    read = roi_align(masks.flatten(0, 1).unsqueeze(1), boxes.flatten(0, 1).unsqueeze(1), size, samples)
    return read.view(*masks.shape[:2], 1, size, size)


def paste(x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Paste regions (B, K, h, w) into frames at boxes (B, K, 4): (B, K, H, W), 0 outside the boxes."""
    frame = []
    for axis, length in ((0, size[1]), (1, size[0])):
        position = (torch.arange(length, device=boxes.device) + 0.5) / length
        start, stop = boxes[..., axis].flatten().unsqueeze(1), boxes[..., axis + 2].flatten().unsqueeze(1)
        frame.append(2 * (position - start) / (stop - start) - 1)  # (B K, length): -1 to 1 inside the box
    across, down = frame[0].unsqueeze(1), frame[1].unsqueeze(2)
    grid = torch.stack(torch.broadcast_tensors(across, down), dim=-1)  # (B K, H, W, 2)
    with in_float32(x):
        out = functional.grid_sample(
            x.float().flatten(0, 1).unsqueeze(1), grid.float(), padding_mode="border", align_corners=False
        )
    inside = (across.abs() <= 1) & (down.abs() <= 1)
    return (out.squeeze(1) * inside).unflatten(0, x.shape[:2])
