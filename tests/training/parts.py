"""Gradients of every method for a batch whose clips all differ, whole or in parts."""

import copy
from pathlib import Path

import numpy as np
import torch

from hodor.data.clip import Clip
from hodor.models.base import Method, build_method
from hodor.training.distributed import World
from hodor.training.micro_batches import Gradients
from hodor.training.signals import StopRequest
from tests.models.test_conformance import SMALL

LEARNING = [case for case in SMALL if case[0] != "copy"]
BATCH, OBJECTS, SIZE = 4, 2, (64, 96)
# A late step: losses that begin with all pixels take the hardest alone by then. Odd: two frames of history in HODOR.
STEP = 60_001


def names() -> list[str]:
    return ["-".join(filter(None, case[:2])) for case in LEARNING]


def built(index: int) -> Method:
    """A small network in training, without dropout."""
    name, _, options = LEARNING[index]
    torch.manual_seed(index)
    return build_method(name, options).train()


def batch() -> Clip:
    """Clips with objects of other places and sizes, some of them hidden, and with other parts beside the image."""
    rng = np.random.default_rng(7)
    frames = rng.integers(0, 256, (BATCH, 3, 3, *SIZE), dtype=np.uint8)
    labels = np.zeros((BATCH, 3, *SIZE), np.uint8)
    valid = np.ones((BATCH, 3, *SIZE), bool)
    for i in range(BATCH):
        for t in range(3):
            for k in range(OBJECTS if i or t != 2 else 1):
                top, left = rng.integers(0, 24), rng.integers(0, 20) + 48 * k
                labels[i, t, top : top + 16 + 6 * i, left : left + 20] = k + 1
            valid[i, t, : 5 * i] = False
    return Clip(torch.from_numpy(frames), torch.from_numpy(labels), torch.from_numpy(valid), OBJECTS, (True,) * 3)


def gradients(method: Method, world: World, micro_batch: int | None) -> tuple[dict, dict]:
    """Gradients by parameter, and the share of this process in each value of the loss."""
    whole = batch()
    each = BATCH // world.size
    computing = Gradients(
        method,
        world,
        micro_batch=micro_batch,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        title="a run",
    )
    values, _ = computing.compute(whole.part(world.rank * each, (world.rank + 1) * each), STEP, StopRequest())
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}, values


def sgd_step(method: Method) -> dict[str, torch.Tensor]:
    """Weights after one step of SGD with the gradients that the method has."""
    moved = copy.deepcopy(method)
    for ours, theirs in zip(method.parameters(), moved.parameters(), strict=True):
        theirs.grad = ours.grad
    torch.optim.SGD(moved.parameters(), lr=0.1).step()
    return moved.state_dict()


class Uneven(torch.nn.Module):
    """Uses `first` for the first half of a batch and `second` for the other; `neither` for none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.neither = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))

    def loss(self, clip: Clip, step: int) -> dict[str, torch.Tensor]:
        halves = [self.first if clip.first + i < clip.total / 2 else self.second for i in range(len(clip))]
        numbers = clip.frames.float().mean((1, 2, 3, 4))
        terms = [number * half.sum() for number, half in zip(numbers, halves, strict=True)]
        return {"loss": torch.stack(terms).mean()}


def save_where_one_lacks_memory(folder: Path) -> None:
    """Gradients of the first method, where the second process has room for one clip at a time; then of `Uneven`."""
    world, method = World.of_environment(), built(0)
    if world.rank == 1:
        plain = method.loss

        def loss(clip: Clip, step: int) -> dict[str, torch.Tensor]:
            if len(clip) > 1:
                plain(clip, step)["loss"].backward()
                raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(clip, step)

        method.loss = loss
    with world.joined(torch.device("cpu")):
        found, _ = gradients(method, world, None)
        uneven, _ = gradients(Uneven(), world, None)
    torch.save([found, uneven], folder / f"{world.rank}.pt")


def save_as_one_of_several(folder: Path, micro_batch: int | None) -> None:
    """What a process that trains with others has after a step, for each method."""
    torch.use_deterministic_algorithms(True)
    world = World.of_environment()
    with world.joined(torch.device("cpu")):
        for index in range(len(LEARNING)):
            method = built(index)
            found, values = gradients(method, world, micro_batch)
            values = {name: world.sum(value.clone()) for name, value in values.items()}
            content = {"gradients": found, "values": values, "weights": sgd_step(method)}
            torch.save(content, folder / f"{index}-{world.rank}.pt")
