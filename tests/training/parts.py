"""Gradients of every method for a batch of different clips, whole or in parts; data-parallel workers without a launcher."""

import copy
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from hodor.data.clip import Clip
from hodor.models.base import Method, build_method
from hodor.training.distributed import World
from hodor.training.gradients import Gradients
from tests.models.test_conformance import SMALL

LEARNING = [case for case in SMALL if case[0] != "copy"]
BATCH, OBJECTS, SIZE = 4, 2, (64, 96)
# A late step, in which bootstrapped losses use the hardest pixels only; odd, so that HODOR has two frames of history.
STEP = 60_001
LIMIT_S = 180


def names() -> list[str]:
    return ["-".join(filter(None, case[:2])) for case in LEARNING]


def built(index: int) -> Method:
    """Build a small network in training mode, without dropout."""
    name, _, options = LEARNING[index]
    torch.manual_seed(index)
    return build_method(name, options).train()


def batch() -> Clip:
    """Return clips with objects of different positions and sizes, some hidden, and with different invalid borders."""
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


def make_gradients(method: torch.nn.Module, world: World | None = None, micro_batch: int | None = None) -> Gradients:
    device = torch.device("cpu")
    return Gradients(method, world or World(), micro_batch=micro_batch, seed=0, device=device, precision="float32")


def gradients(method: torch.nn.Module, world: World, micro_batch: int | None) -> tuple[dict, dict]:
    """Return gradients by parameter, and this worker's share of each value of the loss."""
    each = BATCH // world.size
    part = batch().part(world.rank * each, (world.rank + 1) * each)
    values = make_gradients(method, world, micro_batch).compute(part, STEP)
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}, values


def sgd_step(method: Method) -> dict[str, torch.Tensor]:
    """Return the weights after one step of SGD with the method's gradients."""
    moved = copy.deepcopy(method)
    for ours, theirs in zip(method.parameters(), moved.parameters(), strict=True):
        theirs.grad = ours.grad
    torch.optim.SGD(moved.parameters(), lr=0.1).step()
    return moved.state_dict()


class Uneven(torch.nn.Module):
    """A loss that uses `first` for the first clip, `second` for the last one, `both` for the others, `neither` never."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.both, self.neither = (torch.nn.Parameter(torch.ones(3)) for _ in range(4))

    def loss(self, clip: Clip, step: int) -> dict[str, torch.Tensor]:
        used = {0: self.first, BATCH - 1: self.second}
        weights = [used.get(clip.first + i, self.both) for i in range(len(clip))]
        numbers = clip.frames.float().mean((1, 2, 3, 4))
        return {"loss": torch.stack([n * w.sum() for n, w in zip(numbers, weights, strict=True)]).mean()}


def save_as_one_of_several(folder: Path) -> None:
    """Save a worker's results of a step of each method and of `Uneven`, and the micro-batch that fits all workers."""
    torch.use_deterministic_algorithms(True)
    world = World.of_environment()
    with world.joined(torch.device("cpu")):
        for index in range(len(LEARNING)):
            method = built(index)
            found, values = gradients(method, world, micro_batch=1)
            values = {name: world.sum(value.clone()) for name, value in values.items()}
            content = {"gradients": found, "values": values, "weights": sgd_step(method)}
            torch.save(content, folder / f"{index}-{world.rank}.pt")
        uneven = [gradients(Uneven(), world, size)[0] for size in (None, 1)]
        limited = make_gradients(Limited(4 - 3 * world.rank), world)
        limited.fit(batch(), (0, 1))
        torch.save({"uneven": uneven, "micro_batch": limited.micro_batch}, folder / f"{world.rank}.pt")


def leave_often(ports: list[int]) -> None:
    """Join and leave a process group on one port after another, each time with a gradient exchange just over."""
    world = World.of_environment()
    for port in ports:
        os.environ["MASTER_PORT"] = str(port)
        with world.joined(torch.device("cpu")):
            computing = make_gradients(Limited(BATCH), world)
            computing.compute(batch().part(2 * world.rank, 2 * world.rank + 2), STEP)


class Limited(torch.nn.Module):
    """A loss on a simulated GPU with memory for `clips` clips; for more it fails after the backward pass began."""

    def __init__(self, clips: int) -> None:
        super().__init__()
        self.clips, self.seen = clips, []
        self.weight = torch.nn.Parameter(torch.ones(1))

    def loss(self, clip: Clip, step: int) -> dict[str, torch.Tensor]:
        self.seen.append(len(clip))
        loss = clip.frames.float().mean() * self.weight.sum()
        if len(clip) > self.clips:
            loss.backward()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"loss": loss}


def free_ports(count: int) -> list[int]:
    """Return different ports that nothing listens on."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in found:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in found]


def together(function: Callable[..., None], *arguments, size: int = 2) -> None:
    """Call `function(*arguments)`, picklable by name, in `size` processes that are connected as under torchrun."""
    (port,) = free_ports(1)
    context = get_context("spawn")
    processes = [context.Process(target=_run, args=(r, size, port, function, arguments)) for r in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT_S)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * size, codes


def _run(rank: int, size: int, port: int, function: Callable[..., None], arguments: tuple) -> None:
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    torch.set_num_threads(1)
    function(*arguments)
