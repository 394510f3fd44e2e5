"""A training example: a few frames with labels, batched. The one input of every method's `loss`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Clip:
    """A batch of clips with the same number of objects, or a part of one. Frame 0 is the reference frame.

    Attributes:
        frames: uint8 RGB (B, T, 3, H, W), H and W multiples of 32.
        labels: uint8 (B, T, H, W): 0 background, 1..objects; all 0 in frames without annotation. An object may be in no
            pixel of any frame. Static clips of data sets with void pixels (PASCAL VOC) hold 255 there, in every frame:
            as an input such a pixel is background, as a target it counts in no loss. No other clip holds 255.
        valid: bool (B, T, H, W): False where a warp or the padding shows no image, or where it is hidden; a method shows
            the mean colour there.
        objects: number of objects K of every clip of the batch.
        annotated: for each of the T frames whether `labels` holds its ground truth.
        first, whole: of a part of a batch, the place of its first clip in the batch and the number of clips of that;
            None: these are all. A method that draws random numbers draws for the whole and uses its part.
    """

    frames: Tensor
    labels: Tensor
    valid: Tensor
    objects: int
    annotated: tuple[bool, ...]
    first: int = 0
    whole: int | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def total(self) -> int:
        """Number of clips of the whole batch."""
        return self.whole or len(self)

    def part(self, start: int, stop: int) -> "Clip":
        """Return the clips `start` to `stop` - 1 of this part."""
        if (start, stop) == (0, len(self)):
            return self
        parts = {name: getattr(self, name)[start:stop] for name in ("frames", "labels", "valid")}
        return replace(self, **parts, first=self.first + start, whole=self.total)

    def masks(self, frame: int) -> Tensor:
        """Return the binary masks (B, K, H, W) of a frame, float."""
        ids = torch.arange(1, self.objects + 1, device=self.labels.device).view(1, -1, 1, 1)
        return (self.labels[:, frame : frame + 1] == ids).float()

    def to(self, device: str) -> "Clip":
        """Return the same clip on another device; from pinned memory without waiting for it."""
        move = {"device": device, "non_blocking": True}
        return replace(self, frames=self.frames.to(**move), labels=self.labels.to(**move), valid=self.valid.to(**move))

    def pin_memory(self) -> "Clip":
        """Return the same clip in pinned memory (torch's loader calls this)."""
        tensors = {name: getattr(self, name).pin_memory() for name in ("frames", "labels", "valid")}
        return replace(self, **tensors)
