"""Settings of KMN (no torch here: the workflow reads them at every start)."""

from pydantic import Field

from hodor.models.memory.options import MemoryOptions


class Options(MemoryOptions):
    """STM with a Gaussian kernel at readout (baselines specification, section 2.1); hiding is a matter of the stage."""

    kernel_sigma: float | None = Field(7.0, gt=0)
