"""The processes that train together: each computes its part of every batch, then gradients are summed over all.

Not torch's DistributedDataParallel, whose collectives run inside the backward pass: where one process runs out of
memory there, the others wait for it until their time is over. Here a step is computed first, then all processes agree
(through the processors, no GPU is waited for) on whether it succeeded and which parameters have a gradient at all, and
then one sum goes over the network.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hodor.config.execution import place
from hodor.errors import HodorError


@dataclass(frozen=True)
class World:
    """This process (`rank`, from 0) among `size`, and its place on its machine (`local_rank`). Alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def of_environment() -> "World":
        """What `torchrun` set up.

        Raises:
            HodorError: variables that contradict each other.
        """
        return World(*place())

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this process logs, saves and writes results."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The GPU of this process, where the training runs on GPUs.

        Raises:
            HodorError: fewer GPUs than processes.
        """
        if self.alone or device.type != "cuda":
            return device
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            raise HodorError(
                f"{self.local_rank + 1} or more processes on this machine and {count} GPUs: start fewer (processes)"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Within it, processes can reach each other: through gloo, and for tensors on GPUs through NCCL."""
        if self.alone:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        try:
            yield
        finally:
            dist.destroy_process_group()

    def agree(self, flags: Sequence[int]) -> list[int]:
        """The largest of each flag (0..255) over all processes."""
        if self.alone:
            return list(flags)
        tensor = torch.tensor(flags, dtype=torch.uint8)
        with _others_alive():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def share(self, thing: Any) -> Any:
        """What the leading process gives; the others' argument is ignored."""
        if self.alone:
            return thing
        box = [thing]
        with _others_alive():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; changes the tensor."""
        if not self.alone:
            with _others_alive():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[nn.Parameter], used: Sequence[int]) -> None:
        """Make each gradient the sum over all processes.

        `used` says which parameters have a gradient in any process (`agree`). One that a process lacks counts as 0; one
        that all lack stays absent, as it does in a process alone, where the optimiser passes over it.
        """
        if self.alone:
            return
        taking_part = [p for p, flag in zip(parameters, used, strict=True) if flag]
        for parameter in taking_part:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in taking_part]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.sum(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def fail(self, error: HodorError) -> NoReturn:
        """Ends all processes for a reason that all of them have: one tells it.

        Raises:
            HodorError: in the leading process; the others exit silently with the same status.
        """
        if self.leads:
            raise error
        raise SystemExit(getattr(error, "status", 1))


@contextmanager
def _others_alive() -> Iterator[None]:
    """Around what all processes do together: where one of them has ended, it has said why, and this one just ends too."""
    try:
        yield
    except RuntimeError:  # gloo and NCCL tell a lost connection so
        raise SystemExit(1) from None
