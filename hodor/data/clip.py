"""A training example: a few frames with labels, batched. The one input of every method's `loss`."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Clip:
    """A batch of clips with the same number of objects. Frame 0 is the reference frame.

    frames: uint8 RGB (B, T, 3, H, W), H and W multiples of 32.
    labels: uint8 (B, T, H, W): 0 background, 1..objects; all 0 in frames without annotation. An object may be in no
        pixel of any frame. Static clips of data sets with void pixels (PASCAL VOC) hold 255 there, in every frame: as
        an input such a pixel is background, as a target it counts in no loss. No other clip holds 255.
    valid: bool (B, T, H, W): False where a warp or the padding shows no image, or where it is hidden; a method shows
        the mean colour there.
    objects: number of objects K of every clip of the batch.
    annotated: for each of the T frames whether `labels` holds its truth.
    """

    frames: Tensor
    labels: Tensor
    valid: Tensor
    objects: int
    annotated: tuple[bool, ...]

    def to(self, device: str) -> "Clip":
        """The same clip on another device."""
        move = {"device": device, "non_blocking": True}
        return Clip(
            self.frames.to(**move),
            self.labels.to(**move),
            self.valid.to(**move),
            self.objects,
            self.annotated,
        )
