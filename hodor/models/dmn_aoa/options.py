"""Settings of DMN+AOA, re-interpreted (no torch here: the workflow reads them at every start)."""

from typing import Literal

from pydantic import Field, model_validator

from hodor.models.memory.options import EncoderOptions, LossOptions


class Options(EncoderOptions, LossOptions):
    """The defaults are those of baselines specification, section 4.3; `docs/dmn-aoa.md` says why."""

    # Channels of features and templates; what the decoder reads is four times as wide.
    dim: int = Field(256, ge=8)
    decoder_dim: int = Field(256, ge=8)
    # A region has so many cells on a side, whatever its size in the frame.
    roi_size: int = Field(24, ge=2)
    # Bilinear samples of a map on a side of a cell.
    roi_samples: int = Field(2, ge=1)
    # A region is the box of the last mask, enlarged so often; in training by a factor of this range.
    box_scale: float = Field(1.75, ge=1)
    training_scales: tuple[float, float] = (1.5, 2.0)
    # In training a region is shifted by up to this part of what it leaves beside the object, and this part of the
    # regions is the whole frame.
    training_shift: float = Field(0.5, ge=0, le=1)
    training_lost: float = Field(0.1, ge=0, le=1)
    # A region is at least so many cells of the coarsest map wide and high.
    box_cells: int = Field(4, ge=1)

    # As STCN trains.
    loss: Literal["cross-entropy", "bootstrapped"] = "bootstrapped"

    @model_validator(mode="after")
    def _ranges(self) -> "Options":
        least, most = self.training_scales
        if not 1 <= least <= most:
            raise ValueError("`training_scales` are two factors, at least 1, the smaller first")
        return self

    @property
    def decoder(self) -> str:
        """Kind of the shared decoder."""
        return "stcn"

    @property
    def value_dim(self) -> int:
        """Width of each of the decoder's two inputs: the region's own values, and both templates together."""
        return 2 * self.dim
