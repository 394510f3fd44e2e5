"""Gradients of a global batch: shared by data-parallel workers, computed in micro-batches that fit into memory.

The loss of every method is a mean over the clips of a batch, and no clip affects another's loss (there are no batch
statistics). So loss and gradients of a batch are means over its parts, weighted by their number of clips, for any number
of workers and any size of micro-batches.
"""

import gc
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

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
    """Compute the gradients of global batches; to be created after the workers are connected.

    Args:
        method: receives the gradients. Its weights become those of the first worker.
        world: the workers; each computes its part of the batch.
        micro_batch: clips at a time; None: all clips of a worker.
        seed: of the run.
        device: of this worker.
        precision: see `hodor.device.mixed`.
    """

    def __init__(
        self, method: Method, world: World, *, micro_batch: int | None, seed: int, device: torch.device, precision: str
    ) -> None:
        self.method, self.world, self.micro_batch = method, world, micro_batch
        self.seed, self.device, self.precision = seed, device, precision
        self.loss: Any = _Loss(method)
        if not world.alone:
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its successor is not in torch 2.11
            # Which parameters a loss uses varies over steps and clips.
            self.loss = DistributedDataParallel(self.loss, broadcast_buffers=False, find_unused_parameters=True)

    def compute(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Set the gradients of the global batch of a step, of which `clip` is this worker's part.

        Returns:
            This worker's share of each value of the loss; the sum over all workers is the value of the batch.
        """
        self.method.zero_grad()
        size = self.micro_batch or len(clip)
        total: dict[str, Tensor] = {}
        starts = range(0, len(clip), size)
        for start in starts:
            part = clip.part(start, min(start + size, len(clip)))
            share = len(part) / part.total
            seed_step(self.seed, step, part.first)
            # Gradients of the last micro-batch are exchanged together with those accumulated before.
            with nullcontext() if self.world.alone or start == starts[-1] else self.loss.no_sync():
                with mixed(self.device, self.precision):
                    values = self.loss(part, step)
                # DistributedDataParallel divides sums of gradients by the number of workers.
                (values["loss"] * (share * self.world.size)).backward()
            for name, value in values.items():
                value = value.detach() * share
                total[name] = total[name] + value if name in total else value
        return total

    def fit(self, clip: Clip, steps: Sequence[int]) -> None:
        """Halve `micro_batch` until the largest clips fit into every worker's GPU memory.

        Args:
            clip: this worker's part of a batch of the largest size and the largest number of objects.
            steps: steps whose losses are tried, as losses depend on the step.

        Raises:
            HodorError: a single clip does not fit.
        """
        whole = size = min(self.micro_batch or len(clip), len(clip))
        while size and not self._fits(clip.part(0, size), steps):
            size = -(-size // 2) if size > 1 else 0
        size = whole - self.world.maximum(whole - size)
        if size == 0:
            error = "one clip does not fit into the GPU's memory, so that `micro_batch` cannot help; set "
            self.world.fail(HodorError(error + "`precision: bfloat16` in the scale, or use a GPU with more memory"))
        if size < whole:
            self.micro_batch = size

    def _fits(self, clip: Clip, steps: Sequence[int]) -> bool:
        try:
            # As much as the optimiser's two moments and the buffers of DistributedDataParallel need.
            copies = 2 if self.world.alone else 3
            learned = [parameter for parameter in self.method.parameters() if parameter.requires_grad]
            reserved = [torch.empty_like(parameter) for parameter in learned for _ in range(copies)]
            for step in steps:
                with mixed(self.device, self.precision):
                    loss = self.method.loss(clip, step)["loss"]
                loss.backward()
            del reserved, loss
            return True
        except torch.OutOfMemoryError:
            return False
        finally:
            self.method.zero_grad()
            gc.collect()  # what the failed step left in cycles
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
