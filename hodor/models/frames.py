"""From a video's frames to a network's input and back: resize, pad, undo both."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hodor.config.inference import InferenceOptions

MULTIPLE = 32


@dataclass(frozen=True)
class Geometry:
    """Sizes (height, width) in pixels: of the video, after resizing, after padding.

    `corner` is where the resized frame's upper left pixel lies in the padded one.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]
    corner: tuple[int, int] = (0, 0)

    @staticmethod
    def of(
        size: tuple[int, int], options: InferenceOptions, *, multiple: int = MULTIPLE, centred: bool = False
    ) -> "Geometry":
        """Scale the short side to `options.short_side` unless the long side would pass `options.long_side`.

        Sides are padded to multiples of `multiple`: right and below, or `centred`, an odd pixel right and below.
        """
        scale = min(options.short_side / min(size), options.long_side / max(size))
        resized = (round(size[0] * scale), round(size[1] * scale))
        padded = tuple(side + -side % multiple for side in resized)
        corner = tuple((p - r) // 2 for p, r in zip(padded, resized, strict=True)) if centred else (0, 0)
        return Geometry(tuple(size), resized, padded, corner)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the padded frame that show the resized one."""
        (top, left), (height, width) = self.corner, self.resized
        return slice(top, top + height), slice(left, left + width)

    def restore(self, x: Tensor) -> Tensor:
        """(B, C, padded) -> (B, C, original), bilinear."""
        x = x[(..., *self.window)]
        if self.resized == self.original:
            return x
        return functional.interpolate(x, size=self.original, mode="bilinear", align_corners=False)


def fit_frames(
    frames: Sequence[np.ndarray],
    geometry: Geometry,
    device: torch.device,
    *,
    interpolation: int = cv2.INTER_LINEAR,
) -> tuple[Tensor, Tensor]:
    """Frames uint8 (H, W, 3) of one video -> uint8 (B, 3, padded) and which pixels show the image, bool (B, padded)."""
    height, width = geometry.resized
    out = np.zeros((len(frames), *geometry.padded, 3), np.uint8)
    for target, frame in zip(out, frames, strict=True):
        if frame.shape[:2] != geometry.resized:
            frame = cv2.resize(frame, (width, height), interpolation=interpolation)
        target[geometry.window] = frame
    valid = torch.zeros((len(frames), *geometry.padded), dtype=torch.bool)
    valid[(..., *geometry.window)] = True
    return torch.from_numpy(out).to(device).permute(0, 3, 1, 2), valid.to(device)


def fit_masks(masks: Sequence[np.ndarray], geometry: Geometry, device: torch.device) -> Tensor:
    """Binary masks (H, W) -> (1, K, padded) float: bilinear resize, above one half, padded with 0."""
    if not masks:
        return torch.zeros((1, 0, *geometry.padded), device=device)
    x = torch.from_numpy(np.stack(masks).astype(np.float32)).to(device).unsqueeze(0)
    if geometry.resized != geometry.original:
        x = functional.interpolate(x, size=geometry.resized, mode="bilinear", align_corners=False)
    x = (x > 0.5).float()
    (top, left), (height, width), (rows, columns) = geometry.corner, geometry.resized, geometry.padded
    return functional.pad(x, (left, columns - width - left, top, rows - height - top))
