"""Gradients of a global batch: shared by data-parallel workers, computed in micro-batches that fit into memory.

The loss of every method is a mean over the clips of a batch, and no clip affects another's loss (no batch norm with
batch statistics). So the loss of a batch is the mean over its parts, weighted by their number of clips, and the same
holds for gradients, whatever the number of workers and the size of the micro-batches.
"""

import gc
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hodor.data.clip import Clip
from hodor.device import mixed
from hodor.errors import HodorError
from hodor.models.base import Method
from hodor.training.distributed import World
from hodor.training.optim import seed_step


class _Loss(nn.Module):
    """A module whose forward pass is a method's training loss, as DistributedDataParallel needs it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, clip: Clip, step: int) -> dict[str, Tensor]:
        return self.method.loss(clip, step)


class Gradients:
    """Compute the gradients of global batches; create it after the workers are connected.

    Args:
        method: receives the gradients. Its weights become those of the first worker.
        world: the workers; each computes its part of the batch.
        micro_batch: clips at a time; None: all clips of a worker.
        seed: of the run.
        precision: see `hodor.device.mixed`.
    """

    def __init__(
        self, method: Method, world: World, *, micro_batch: int | None, seed: int, device: torch.device, precision: str
    ) -> None:
        self.method, self.world, self.micro_batch = method, world, micro_batch
        self.seed, self.device, self.precision = seed, device, precision
        self.parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
        self.loss: nn.Module = _Loss(method)
        if not world.alone:
            # Which parameters a loss uses varies over steps and clips.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its successor is not in torch 2.11
            self.loss = DistributedDataParallel(self.loss, broadcast_buffers=False, find_unused_parameters=True)

    def compute(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Set the gradients of the global batch of a step, of which `clip` is this worker's part.

        Returns:
            This worker's share of each value of the loss: their sum over all workers is the value of the batch.
        """
        self._clear()
        size, total = self.micro_batch or len(clip), {}
        starts = range(0, len(clip), size)
        for start in starts:
            part = clip.part(start, min(start + size, len(clip)))
            # Gradients of the last micro-batch are exchanged together with those accumulated before.
            with nullcontext() if self.world.alone or start == starts[-1] else self.loss.no_sync():
                for name, value in self._backward(part, step).items():
                    total[name] = total[name] + value if name in total else value
        return total

    def _backward(self, part: Clip, step: int) -> dict[str, Tensor]:
        seed_step(self.seed, step, part.first)
        with mixed(self.device, self.precision):
            values = self.loss(part, step)
        share = len(part) / part.total
        # DistributedDataParallel divides sums of gradients by the number of workers.
        (values["loss"] * (share * self.world.size)).backward()
        return {name: value.detach() * share for name, value in values.items()}

    def fit(self, clip: Clip, steps: Sequence[int]) -> None:
        """Halve `micro_batch` until the largest clips fit into the GPU's memory; the smallest result holds for all.

        Args:
            clip: this worker's part of a batch, at the largest size and with the largest number of objects.
            steps: steps whose losses are tried, where the loss depends on the step.

        Raises:
            HodorError: a single clip does not fit.
        """
        whole = size = min(self.micro_batch or len(clip), len(clip))
        while size and not self._fits(clip.part(0, size), steps):
            size = -(-size // 2) if size > 1 else 0
        size = whole - self.world.largest(whole - size)
        if size == 0:
            self.world.fail(
                HodorError(
                    "one clip does not fit into the GPU's memory, so that `micro_batch` cannot help; set "
                    "`precision: bfloat16` in the scale, or use a GPU with more memory"
                )
            )
        if size < whole:
            self.micro_batch = size

    def _fits(self, clip: Clip, steps: Sequence[int]) -> bool:
        try:
            # As much as the optimiser's two moments and the buffers of DistributedDataParallel will take.
            copies = 2 if self.world.alone else 3
            reserved = [torch.empty_like(parameter) for parameter in self.parameters for _ in range(copies)]
            for step in steps:
                with mixed(self.device, self.precision):
                    loss = self.method.loss(clip, step)["loss"]
                loss.backward()
            del reserved, loss
            return True
        except torch.OutOfMemoryError:
            return False
        finally:
            self._clear()
            gc.collect()  # what the failed step left in cycles
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
