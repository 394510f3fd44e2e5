"""In a training step nothing waits for the GPU: no value is read from it, and no constant is sent to it.

The calls that would wait are watched on any device; on a GPU, torch's synchronisation debugger is used too.
"""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from hodor.config.stages import StageOptions
from hodor.device import mixed
from hodor.training.optim import build_optimiser
from tests.training import parts
from tests.training.small import STAGE

READING = {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "__bool__", "__int__", "__float__"}
SENDING = {"tensor", "as_tensor", "new_tensor", "from_numpy"}


class Waiting(TorchFunctionMode):
    """Recorder of the names of calls that wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READING | SENDING:
            self.calls.append(name)
        if name == "__getitem__":
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(key, torch.Tensor) and key.dtype == torch.bool for key in keys):
                self.calls.append("index by bool")
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits():
    with Waiting() as watch:
        x = torch.tensor([1.0, 2.0])
        x.sum().item(), x[x > 1], x.tolist(), x.new_tensor([1.0]), bool(x[0] > 0)
    assert {"tensor", "item", "index by bool", "tolist", "new_tensor", "__bool__"} <= set(watch.calls)


@pytest.mark.parametrize("index", range(len(parts.LEARNING)), ids=parts.names())
def test_the_loss_waits_for_nothing(index):
    method, clip = parts.built(index), parts.batch()
    method.loss(clip, 0)  # cached constants are created
    with Waiting() as watch:
        for step in (parts.STEP - 1, parts.STEP):
            method.loss(clip, step)["loss"].backward()
    assert watch.calls == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("index", range(len(parts.LEARNING)), ids=parts.names())
def test_a_whole_step_waits_for_nothing_on_a_gpu(index, precision):
    device = torch.device("cuda")
    method, clip = parts.built(index).to(device), parts.batch().to(device)
    optimiser = build_optimiser(method, StageOptions(**STAGE), device)

    def step() -> None:
        with mixed(device, precision):
            loss = method.loss(clip, parts.STEP)["loss"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
