"""How a training is executed: settings that are no part of what it computes (no torch here).

The same global batch in other parts, on other processes or compiled gives the same training but for rounding. So these
settings are in no stamp: a run may be broken off and go on under others. `train.json` records them.
"""

import argparse
import os
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hodor.errors import HodorError


class Execution(BaseModel):
    """Key `execution` of config/config.yaml, and flags of `hodor train`."""

    model_config = ConfigDict(extra="forbid")

    processes: int = Field(1, ge=1, description="of one training, on a GPU each where there are any; divides the batch")
    micro_batch: int | None = Field(
        None, ge=1, description="clips that a process computes at a time, gradients are summed; null: all of its part"
    )
    compile: bool = Field(False, description="torch.compile for the layers that gain by it (GPU)")
    deterministic: bool = Field(False, description="deterministic operators alone, on a GPU (docs/determinism.md)")

    @classmethod
    def of_arguments(cls, options: argparse.Namespace) -> Self:
        """What the command line says.

        Raises:
            HodorError: a number below 1.
        """
        try:
            return cls(**{name: getattr(options, name) for name in cls.model_fields})
        except ValidationError as error:
            fault = error.errors()[0]
            flag = str(fault["loc"][0]).replace("_", "-")
            raise HodorError(f"--{flag} {fault['input']}: must be at least 1") from None

    def arguments(self) -> str:
        """The flags of `hodor train` that say the same; begins with a space unless empty."""
        flags = [f"--processes {self.processes}"] if self.processes > 1 else []
        flags += [f"--micro-batch {self.micro_batch}"] if self.micro_batch else []
        flags += [f"--{name}" for name in ("compile", "deterministic") if getattr(self, name)]
        return "".join(f" {flag}" for flag in flags)


def place(environment: dict[str, str] | Any = os.environ) -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as `torchrun` tells them; 0, 1, 0 without it.

    Raises:
        HodorError: some of the variables are set and others not, or they contradict each other.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [name for name in names if environment.get(name)]
    if not given:
        return 0, 1, 0
    told = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
    mend = "start the training with torchrun, or unset these variables"
    if len(given) < len(names):
        raise HodorError(f"environment: {told}: all three or none must be set; {mend}")
    try:
        rank, size, local = (int(environment[name]) for name in names)
    except ValueError:
        raise HodorError(f"environment: {told}: must be numbers; {mend}") from None
    if not (0 <= rank < size and local >= 0):
        raise HodorError(f"environment: {told}: a rank must be below the number of processes; {mend}")
    return rank, size, local
