"""Settings of STCN (no torch here: the workflow reads them at every start)."""

from typing import Literal

from pydantic import Field

from hodor.models.memory.options import MemoryOptions


class Options(MemoryOptions):
    """The defaults are the published network and loss of static training (baselines specification, section 3)."""

    memory_encoder: Literal["separate", "fused"] = "fused"
    others: bool = False
    key_dim: int = Field(64, ge=1)
    similarity: Literal["dot", "l2"] = "l2"
    decoder: Literal["stm", "stcn"] = "stcn"
    top_k: int = Field(20, ge=0)
    memory_previous: bool = False
    memory_depths: tuple[int, int, int] = (2, 2, 2)
    loss: Literal["cross-entropy", "bootstrapped"] = "bootstrapped"
