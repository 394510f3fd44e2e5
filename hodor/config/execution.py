"""Settings of a training that change its results by rounding only, or not at all.

Workers, micro-batches and compilation keep the global batch. These settings are in no stamp, so that a run may resume
with others; `train.json` records them.
"""

import argparse
import os
from collections.abc import Mapping
from typing import Self

from pydantic import Field, ValidationError

from hodor.config.validation import Strict
from hodor.errors import HodorError


class Execution(Strict):
    """Key `execution` of config/config.yaml, and flags of `hodor train`."""

    processes: int = Field(
        1, ge=1, le=1024, description="data-parallel workers of one training, a GPU each; divides the batch"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="clips that a worker computes at a time; default: its part of the batch; on a GPU, the largest number that fits",
    )
    compile: bool = Field(False, description="compile the layers that gain by it with torch.compile (GPU)")
    deterministic: bool = Field(False, description="deterministic operators only, on a GPU (docs/determinism.md)")
    tensorboard: bool = Field(
        False, description="write the training log as event files too, to tensorboard/ of the run"
    )

    @classmethod
    def of_arguments(cls, options: argparse.Namespace) -> Self:
        """Return what the command line sets; HodorError names the flag of a number out of range."""
        try:
            return cls(**{name: getattr(options, name) for name in cls.model_fields})
        except ValidationError as error:
            fault = error.errors()[0]
            flag = str(fault["loc"][0]).replace("_", "-")
            raise HodorError(f"--{flag} {fault['input']}: {fault['msg']}") from None

    def arguments(self) -> str:
        """Return the equivalent flags of `hodor train`; begins with a space unless empty."""
        flags = [f"--processes {self.processes}"] if self.processes > 1 else []
        flags += [f"--micro-batch {self.micro_batch}"] if self.micro_batch else []
        flags += [f"--{name}" for name in ("compile", "deterministic", "tensorboard") if getattr(self, name)]
        return "".join(f" {flag}" for flag in flags)


def place(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """Return rank, number of workers and local rank from the variables of `torchrun`; 0, 1, 0 without it."""
    defaults = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    rank, workers, local_rank = (int(environment.get(name) or default) for name, default in defaults.items())
    return rank, workers, local_rank
