"""The same seed gives the same bits: on a CPU always, on a GPU with `--deterministic` where operators allow it."""

import random
import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hodor.errors import Stopped
from hodor.models.base import build_method
from hodor.training.distributed import StopRequest
from hodor.training.optim import use_deterministic_algorithms
from hodor.training.trainer import train
from tests.models.test_conformance import DMN_AOA, HODOR, MEMORY
from tests.training import parts
from tests.training.small import make_stamp

# Operators that have no deterministic form on CUDA, by the documentation of torch.use_deterministic_algorithms or by its
# warning ...
WITHOUT = set(
    "adaptive_avg_pool2d_backward bincount cumsum embedding_bag_backward grid_sampler_2d_backward histc median put_ "
    "max_pool2d_with_indices_backward reflection_pad2d_backward scatter_reduce".split()
)
# ... and those that have one.
WITH = set(
    "gather index_add index_put index_select repeat_interleave scatter scatter_ scatter_add nll_loss2d_forward "
    "upsample_bilinear2d_backward".split()
)
# The published backbones, narrow.
RESNET = {"backbone": "resnet", "backbone_width": 8, "backbone_depths": (1, 1, 1)}
PUBLISHED = {
    "hodor": HODOR | {"backbone": "swin", "backbone_width": 32, "drop_path": 0.1, "dropout": 0.1},
    **dict.fromkeys(("stm", "kmn", "stcn"), MEMORY | RESNET),
    "dmn-aoa": DMN_AOA | RESNET,
}


class Operators(TorchDispatchMode):
    """Recorder of the names of all operators, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operators(name: str) -> set[str]:
    torch.manual_seed(0)
    method = build_method(name, PUBLISHED[name]).train()
    with Operators() as run:
        for step in (parts.STEP - 1, parts.STEP):
            method.loss(parts.batch(), step)["loss"].backward()
    return run.names


def test_the_page_names_every_operator_without_a_deterministic_form(root):
    page = (root / "docs/determinism.md").read_text()
    for name in PUBLISHED:
        used = operators(name)
        assert used & WITH, "nothing was recorded"
        row = re.search(rf"^\| `{name}` \|([^|]*)\|([^|]*)\|", page, re.MULTILINE)
        assert row is not None, name
        assert set(re.findall(r"`(\w+)`", row[1])) == used & WITHOUT, name
        assert set(re.findall(r"`(\w+)`", row[2])) == used & WITH, name


def test_the_same_seed_gives_the_same_checkpoints_and_weights(world, tmp_path, monkeypatch):
    """After other random numbers and with any number of data workers; with dropout."""
    states, files = [], []
    for i, workers in enumerate((0, 2)):
        torch.manual_seed(i), np.random.seed(i), random.seed(i)
        made, out = make_stamp(stage={"workers": workers, "steps": 6, "checkpoint_every": 4}), tmp_path / str(i)
        monkeypatch.setattr(StopRequest, "number", 15)  # asked to stop from the start: after the first step
        with pytest.raises(Stopped) as stop:
            train(made, world, out)
        assert stop.value.status == 143
        monkeypatch.setattr(StopRequest, "number", 0)
        path = next((out / "checkpoints").glob("step-00000001.pt"))
        states.append(torch.load(path, weights_only=True))
        train(made, world, out)
        files.append((out / "model.safetensors").read_bytes())
    first, second = states
    assert all(torch.equal(first["weights"][k], second["weights"][k]) for k in first["weights"])
    for ours, theirs in zip(*(s["optimiser"]["state"].values() for s in states), strict=True):
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert first.keys() == second.keys() == {"identity", "step", "weights", "optimiser", "seconds"}
    assert files[0] == files[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("index", range(len(parts.LEARNING)), ids=parts.names())
def test_on_a_gpu_gradients_are_the_same_bits_where_operators_allow_it(index):
    use_deterministic_algorithms(True)
    try:
        found = []
        for _ in range(2):
            method = parts.built(index).cuda()
            with Operators() as run:
                method.loss(parts.batch().to("cuda"), parts.STEP)["loss"].backward()
            found.append([p.grad for p in method.parameters() if p.grad is not None])
    finally:
        use_deterministic_algorithms(False)
    same = all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert same or run.names & WITHOUT
