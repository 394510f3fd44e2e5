"""Preprocess frames and masks for a network (normalise, resize, pad) and map its output back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hodor.config.stages import InferenceOptions
from hodor.device import constant
from hodor.errors import HodorError
from hodor.models.base import Frame, Masks, check_masks

# ImageNet's mean and standard deviation of RGB in 0..255, with which every image is normalised.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def normalise(frames: Tensor, valid: Tensor | None = None) -> Tensor:
    """Normalise uint8 RGB frames (..., 3, H, W); pixels outside `valid` (..., H, W) become 0, the mean colour."""
    mean, std = (constant(values, frames.device).view(3, 1, 1) for values in (MEAN, STD))
    x = (frames.float() - mean) / std
    return x if valid is None else x * valid.unsqueeze(-3)


@dataclass(frozen=True)
class Geometry:
    """Sizes (height, width) of a frame: original, resized and padded."""

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]
    corner: tuple[int, int] = (0, 0)  # position of the resized frame's upper left pixel in the padded frame

    @staticmethod
    def of(
        size: tuple[int, int], options: InferenceOptions, *, multiple: int = 32, centred: bool = False
    ) -> "Geometry":
        """Scale the short side to `options.short_side`, or less so that the long side is at most `options.long_side`.

        Sides are padded to multiples of `multiple`, on the right and at the bottom, or on all sides if `centred`.
        """
        scale = min(options.short_side / min(size), options.long_side / max(size))
        resized = (round(size[0] * scale), round(size[1] * scale))
        padding = (-resized[0] % multiple, -resized[1] % multiple)
        padded = (resized[0] + padding[0], resized[1] + padding[1])
        corner = (padding[0] // 2, padding[1] // 2) if centred else (0, 0)
        return Geometry((size[0], size[1]), resized, padded, corner)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the resized frame in the padded one."""
        (top, left), (height, width) = self.corner, self.resized
        return slice(top, top + height), slice(left, left + width)

    def restore(self, x: Tensor) -> Tensor:
        """Crop (B, C, padded) and resize it bilinearly to (B, C, original)."""
        x = x[(..., *self.window)]
        if self.resized == self.original:
            return x
        return functional.interpolate(x, size=self.original, mode="bilinear", align_corners=False)


def fit_frames(
    frames: Sequence[np.ndarray], geometry: Geometry, device: torch.device, *, interpolation: int = cv2.INTER_LINEAR
) -> tuple[Tensor, Tensor]:
    """Resize and pad uint8 frames (H, W, 3) to (B, 3, padded); also return which pixels are valid, bool (B, padded)."""
    height, width = geometry.resized
    out = np.zeros((len(frames), *geometry.padded, 3), np.uint8)
    for target, frame in zip(out, frames, strict=True):
        if frame.shape[:2] != geometry.resized:
            frame = cv2.resize(frame, (width, height), interpolation=interpolation)
        target[geometry.window] = frame
    valid = torch.zeros((len(frames), *geometry.padded), dtype=torch.bool)
    valid[(..., *geometry.window)] = True
    return torch.from_numpy(out).to(device).permute(0, 3, 1, 2), valid.to(device)


def split(maps: Any, size: int) -> list[Any]:
    """Divide a named tuple of maps (N size, ...) of a batch of frames into N named tuples of `size` frames each."""
    return [maps._make(parts) for parts in zip(*(x.split(size) for x in maps), strict=True)]


def fit_masks(masks: Sequence[np.ndarray], geometry: Geometry, device: torch.device) -> Tensor:
    """Resize binary masks (H, W) bilinearly, threshold at 0.5 and pad with 0: float (1, K, padded)."""
    fitted = []
    for mask in masks:  # one at a time: in float32, those of a large frame need gigabytes
        x = torch.from_numpy(mask.astype(np.float32)).to(device)[None, None]
        if geometry.resized != geometry.original:
            x = functional.interpolate(x, size=geometry.resized, mode="bilinear", align_corners=False)
        fitted.append((x > 0.5).float())
    (top, left), (height, width), (rows, columns) = geometry.corner, geometry.resized, geometry.padded
    return functional.pad(torch.cat(fitted, dim=1), (left, columns - width - left, top, rows - height - top))


def new_objects(
    ids: list[int], frame: Frame, masks: Masks | None, geometry: Geometry, device: torch.device, *, stride: int = 1
) -> Tensor | None:
    """Return binary masks (1, K', H, W), on the padded frame, of objects that are not among `ids`, and append their ids.

    Objects without a pixel at `stride` are ignored; None if no object remains.

    Raises:
        HodorError: an id outside 1..254 or a mask of another size than the frame.
    """
    masks = masks or {}
    check_masks(frame, masks)
    new = sorted(masks.keys() - set(ids))
    if not new:
        return None
    fitted = fit_masks([masks[i] for i in new], geometry, device)
    size = [side // stride for side in geometry.padded]
    coarse = functional.interpolate(fitted, size=size, mode="bilinear", align_corners=False)
    seen = (coarse > 0.5).flatten(2).any(2)[0]
    ids += [i for i, keep in zip(new, seen.tolist(), strict=True) if keep]
    return fitted[:, seen] if seen.any() else None


def first_objects(
    ids: list[int], frame: Frame, masks: Masks, geometry: Geometry, device: torch.device, *, stride: int = 1
) -> Tensor:
    """Return the masks of a video's first objects, as `new_objects`; raise HodorError if no object is visible."""
    reference = new_objects(ids, frame, masks, geometry, device, stride=stride)
    if reference is None:
        raise HodorError(f"objects {sorted(masks)}: none is large enough in the first frame; use a larger short_side")
    return reference
