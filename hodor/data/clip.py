"""A training example: a few frames with labels, batched. The one input of every method's `loss`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Clip:
    """A batch of clips with the same number of objects, or a part of one. Frame 0 is the reference frame.

    Attributes:
        frames: uint8 RGB (B, T, 3, H, W), H and W multiples of 32.
        labels: uint8 (B, T, H, W): 0 background, 1..objects; all 0 in frames without annotation. An object may cover no
            pixel. Only static clips of data sets with void pixels (PASCAL VOC) hold 255: as an input such a pixel is
            background, as a target it counts in no loss.
        valid: bool (B, T, H, W): False where warp or padding show no image, or where it is hidden; a method shows the
            mean colour there.
        objects: number of objects K of every clip of the batch.
        annotated: for each of the T frames whether `labels` holds its ground truth.
        first, whole: for a part of a batch, the index of its first clip and the size of the batch (None: the part is
            the batch). A method that draws random numbers draws for the whole batch and uses its part.
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
        part = self._replaced(lambda tensor: tensor[start:stop])
        return replace(part, first=self.first + start, whole=self.total)

    def masks(self, frame: int) -> Tensor:
        """Return the binary masks (B, K, H, W) of a frame, float."""
        ids = torch.arange(1, self.objects + 1, device=self.labels.device).view(1, -1, 1, 1)
        return (self.labels[:, frame : frame + 1] == ids).float()

    def to(self, device: str | torch.device) -> "Clip":
        """Return the same clip on another device; from pinned memory without waiting."""
        return self._replaced(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Clip":
        """Return the same clip in pinned memory (torch's loader calls this)."""
        return self._replaced(Tensor.pin_memory)

    def _replaced(self, change: Callable[[Tensor], Tensor]) -> "Clip":
        return replace(self, frames=change(self.frames), labels=change(self.labels), valid=change(self.valid))
