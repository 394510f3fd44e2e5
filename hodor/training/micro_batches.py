"""Gradients of a batch, computed a few clips at a time.

Every method's loss is a mean over the clips of a batch, all of one size and with the same number of objects, and nothing
in a network depends on the other clips of a batch: there is no batch norm with statistics of the batch
(tests/models/test_parts_of_batches.py holds every method to it). So the loss of a batch is the mean of the losses of
its parts, weighted by their clips, and gradients of parts add up to those of the whole.
"""

import gc

import torch
from torch import Tensor, nn

from hodor.data.clip import Clip
from hodor.device import mixed
from hodor.errors import HodorError
from hodor.models.base import Method
from hodor.training.distributed import World
from hodor.training.randomness import seed_step
from hodor.training.signals import StopRequest


class Gradients:
    """Computes the gradients of whole batches, in parts that fit into memory.

    Args:
        method: gets the gradients.
        world: the processes; each computes its part of the batch.
        micro_batch: clips at a time; None: all of a process's part. Halved when a GPU runs out of memory.
        seed: of the run.
        precision: see `mixed`.
        title: of the run, for messages.
    """

    def __init__(
        self,
        method: Method,
        world: World,
        *,
        micro_batch: int | None,
        seed: int,
        device: torch.device,
        precision: str,
        title: str,
    ) -> None:
        self.method, self.world, self.micro_batch = method, world, micro_batch
        self.seed, self.device, self.precision, self.title = seed, device, precision, title
        self.parameters: list[nn.Parameter] = [p for p in method.parameters() if p.requires_grad]

    def compute(self, clip: Clip, step: int, stop: StopRequest) -> tuple[dict[str, Tensor], int]:
        """Set the gradients of the step's whole batch, of which `clip` is this process's part.

        Returns:
            This process's share of each value that the loss gives: over all processes they add up to the batch's. And
            the signal that asked any process to stop, or 0.

        Raises:
            HodorError: one clip at a time is too much for a GPU.
        """
        while True:
            values = self._try(clip, step)
            used = [int(parameter.grad is not None) for parameter in self.parameters]
            failed, number, *used = self.world.agree([int(values is None), stop.number, *used])
            if not failed:
                self.world.sum_gradients(self.parameters, used)
                return values, number
            values = None
            self._halve(min(self.micro_batch or len(clip), len(clip)), step)

    def _try(self, clip: Clip, step: int) -> dict[str, Tensor] | None:
        """This process's gradients; None if the GPU's memory did not last."""
        for parameter in self.parameters:
            parameter.grad = None
        size, total = self.micro_batch or len(clip), {}
        try:
            for start in range(0, len(clip), size):
                part = clip.part(start, min(start + size, len(clip)))
                for name, value in self._part(part, step).items():
                    total[name] = total[name] + value if name in total else value
        except torch.OutOfMemoryError:
            return None
        return total

    def _part(self, part: Clip, step: int) -> dict[str, Tensor]:
        seed_step(self.seed, step, part.first)
        with mixed(self.device, self.precision):
            values = self.method.loss(part, step)
        share = len(part) / part.total
        if share != 1:
            values = {name: value * share for name, value in values.items()}
        values["loss"].backward()
        return {name: value.detach() for name, value in values.items()}

    def _halve(self, size: int, step: int) -> None:
        """Half as many clips at a time from now on, in every process."""
        for parameter in self.parameters:
            parameter.grad = None
        if size == 1:
            self.world.fail(
                HodorError(
                    f"{self.title}: step {step + 1}: the GPU's memory does not hold one clip; take a GPU with more of it"
                    " or `precision: bfloat16`. Earlier checkpoints stay: the same command goes on from them"
                )
            )
        self.micro_batch = -(-size // 2)
        gc.collect()  # what the failed step left in cycles
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.world.leads:
            print(
                f"{self.title}: step {step + 1}: out of GPU memory with {size} clips at a time, goes on with "
                f"{self.micro_batch} (the batch stays the same)",
                flush=True,
            )
