"""Training with `--compile`: the layers compile as a whole and give the losses of eager training."""

import pytest
import torch
import torch._inductor.config

from hodor.models.base import build_method
from tests.models.test_conformance import SMALL
from tests.training import parts

SWIN = {"backbone": "swin", "backbone_width": 32, "backbone_depths": (1, 2, 1, 1), "drop_path": 0.2}
# Every architecture of table 1 and, where it differs, its published backbone.
TRAINED = {"-".join(filter(None, case[:2])): case for case in SMALL if case[0] == "hodor"}
TRAINED["hodor-soft-swin"] = ("hodor", "", dict(TRAINED["hodor-soft"][2]) | SWIN)


def losses(case: tuple, backend: str | None) -> list[float]:
    """Losses of three steps with the paper's dropout, compiled or, with `backend` None, eager."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    name, _, options = case
    method = build_method(name, options | {"dropout": 0.1, "encoder_layers": 1, "decoder_layers": 1}).train()
    if backend:
        assert method.compilable()
        for module in method.compilable():
            module.compile(backend=backend, fullgraph=True)
    # Small clips: compiling takes the time. Plain gradient descent: Adam magnifies rounding where a gradient is zero.
    clip, optimiser, found = parts.batch().part(0, 2), torch.optim.SGD(method.parameters(), lr=0.01), []
    for step in range(3):
        torch.manual_seed(step)
        loss = method.loss(clip, parts.STEP + step)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


@pytest.mark.long
@pytest.mark.parametrize("case", TRAINED.values(), ids=TRAINED)
def test_inductor_trains_as_eager_does(case, monkeypatch):
    # Dropout draws torch's own numbers instead of those of the generated code.
    monkeypatch.setattr(torch._inductor.config, "fallback_random", True)
    assert losses(case, "inductor") == pytest.approx(losses(case, None), abs=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "hodor-soft" else pytest.mark.long) for n in TRAINED]
)
def test_compiled_training_follows_eager_training(name):
    assert losses(TRAINED[name], "aot_eager") == pytest.approx(losses(TRAINED[name], None), abs=1e-4)


def test_only_these_methods_name_layers_to_compile():
    named = {"-".join(filter(None, case[:2])) for case in SMALL if build_method(case[0], case[2]).compilable()}
    assert named == TRAINED.keys() - {"hodor-soft-swin"}
