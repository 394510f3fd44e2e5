"""Training with `--compile`: the layers compile as a whole and give the gradients and losses of eager training."""

import json
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from torch import nn

from hodor.config.execution import Execution
from hodor.models.base import build_method
from hodor.training.gradients import Gradients
from hodor.training.trainer import train
from tests.models.test_conformance import SMALL
from tests.training.small import OPTIONS, make_stamp

# As published but narrow: dropout, dropped paths, AdamW and its learning rate.
STAGE = {
    "steps": 3,
    "log_every": 1,
    "learning_rate": 1e-4,
    "warmup_steps": 1,
    "optimiser": "adamw",
    "weight_decay": 0.01,
}
COCO = STAGE | {"padding_multiple": 96, "max_objects": 1}  # one size, which compiles once
CYCLIC = STAGE | {
    "kind": "sparse-video",
    "sources": [{"dataset": "youtube-vos", "split": "train", "max_distance": 2}],
    "pixels": None,
    "short_side": 64,
}
SWIN = {"backbone": "swin", "backbone_width": 32, "backbone_depths": (1, 2, 1, 1), "drop_path": 0.2}
PUBLISHED = OPTIONS | SWIN | {"encoder_layers": 2, "decoder_layers": 2}


@pytest.fixture
def trained(world, monkeypatch, tmp_path):
    """Train compiled by this backend or, with None, eagerly; return losses and the gradients of the first step."""
    compile_module, compute = nn.Module.compile, Gradients.compute

    def run(options: dict, stage: dict, backend: str | None) -> tuple[list[float], dict[str, torch.Tensor]]:
        compiled, found = set(), {}

        def compile_whole(module: nn.Module) -> None:
            compiled.add(module)
            compile_module(module, backend=backend, fullgraph=True)

        def compute_and_keep(self: Gradients, *arguments) -> dict[str, torch.Tensor]:
            values = compute(self, *arguments)
            if not found:
                found.update((n, p.grad.clone()) for n, p in self.method.named_parameters() if p.grad is not None)
                assert compiled == set(self.method.compilable() if backend else ())
            return values

        monkeypatch.setattr(nn.Module, "compile", compile_whole)
        monkeypatch.setattr(Gradients, "compute", compute_and_keep)
        torch._dynamo.reset()
        out: Path = tmp_path / str(backend)
        datasets = [source["dataset"] for source in stage.get("sources", [{"dataset": "coco"}])]
        made = make_stamp(options=options, stage=stage, datasets=datasets)
        # Dropout draws torch's own numbers instead of those of inductor's code.
        with torch._inductor.config.patch(fallback_random=True):
            train(made, world, out, execution=Execution(compile=backend is not None))
        return [json.loads(line)["loss"] for line in (out / "train.jsonl").read_text().splitlines()], found

    return run


def assert_same_training(trained, options: dict, stage: dict, backend: str) -> None:
    (losses, gradients), (expected, exact) = trained(options, stage, backend), trained(options, stage, None)
    assert losses == pytest.approx(expected, abs=1e-4)
    # aot_eager runs the same operators; inductor's round differently.
    rounding = 1e-5 if backend == "aot_eager" else 1e-3
    scale = max(gradient.abs().max() for gradient in exact.values())
    for name, gradient in exact.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=100 * rounding, atol=rounding * scale.item(), msg=name
        )


def test_a_compiled_step_follows_an_eager_one(trained):
    assert_same_training(trained, OPTIONS, COCO | {"steps": 1}, "aot_eager")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("stage", [COCO, CYCLIC], ids=["coco", "cyclic"])
@pytest.mark.parametrize("attention", ["soft", "hard", "none"])
def test_every_row_of_table_1_compiles(trained, attention, stage, backend):
    assert_same_training(trained, OPTIONS | {"attention": attention}, stage, backend)


@pytest.mark.long
def test_clips_of_several_sizes_compile(trained):
    assert_same_training(trained, OPTIONS, STAGE | {"steps": 4}, "inductor")


@pytest.mark.long
def test_the_published_backbone_compiles(trained):
    assert_same_training(trained, PUBLISHED, COCO, "aot_eager")


def test_only_hodor_names_layers_to_compile():
    assert {name for name, _, options in SMALL if build_method(name, options).compilable()} == {"hodor"}
