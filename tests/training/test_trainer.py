"""Training: resumption bit for bit, bad losses, full disks, starting weights."""

import json
import signal
from pathlib import Path

import pytest
import torch

from hodor.config.stages import StageOptions
from hodor.errors import Stopped
from hodor.models.base import build_method, load_model, read_weights
from hodor.models.hodor.method import Hodor
from hodor.training.distributed import StopRequest
from hodor.training.trainer import Trainer, train
from tests.refused import refused
from tests.training.small import OPTIONS, STAGE, make_stamp


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "model.safetensors")[0]


def assert_same_weights(ours: Path, theirs: Path) -> None:
    ours, theirs = weights_of(ours), weights_of(theirs)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def stop_after_a_step(stamp: dict, data: Path, out: Path, monkeypatch) -> None:
    monkeypatch.setattr(StopRequest, "number", signal.SIGTERM)
    with pytest.raises(Stopped):
        train(stamp, data, out)
    monkeypatch.undo()


def test_a_run_that_was_stopped_ends_like_an_unbroken_one(world, tmp_path, monkeypatch, capsys):
    broken, unbroken, short = tmp_path / "broken", tmp_path / "unbroken", make_stamp(stage={"steps": 6})
    for _ in range(2):
        stop_after_a_step(short, world, broken, monkeypatch)
    assert not (broken / "model.safetensors").exists()
    (broken / "checkpoints" / "train.jsonl").open("a").write('{"step": 3, "lo')  # half a line, as after a kill
    train(short, world, broken)
    assert "continues after step 2" in capsys.readouterr().out
    train(short, world, unbroken)
    assert_same_weights(broken, unbroken)
    steps = [line["step"] for line in log_of(broken)]
    assert steps == sorted(set(steps)) and set(steps) >= {line["step"] for line in log_of(unbroken)}
    losses = [{line["step"]: line["alpha"] for line in log_of(folder)} for folder in (broken, unbroken)]
    assert losses[0].items() >= losses[1].items()
    assert not (broken / "checkpoints").exists()


def test_record_names_settings_inputs_and_cost(world, tmp_path):
    made = make_stamp(stage={"steps": 4})
    train(made, world, tmp_path)
    record = json.loads((tmp_path / "train.json").read_text())
    assert record["stamp"] == made["sha256"] and "sha256" not in record["stamp_content"]
    assert set(record["inputs"]) == {"coco.json"} and record["steps"] == 4
    _, method = load_model(tmp_path / "model.safetensors")
    assert record["parameters"] == sum(p.numel() for p in method.parameters())
    assert record["time_s"] > 0 and record["peak_memory_mib"] > 50 and record["machine"]["cores"] >= 1
    log = log_of(tmp_path)
    assert log[-1]["step"] == log[-1]["steps"] == 4
    assert len(log[0]["alpha"]) == 1 and len(log[0]["alpha"][0]) == 8
    assert log[-1]["alpha"] != log[0]["alpha"]  # they learn


def test_other_settings_or_recipes_never_continue_old_weights(world, tmp_path, monkeypatch, capsys):
    changed = make_stamp(stage={"learning_rate": 0.002, "steps": 4})
    train(changed, world, tmp_path / "fresh")
    stop_after_a_step(make_stamp(stage={"steps": 4}), world, tmp_path / "changed", monkeypatch)
    capsys.readouterr()
    train(changed, world, tmp_path / "changed")
    lines = [line for line in capsys.readouterr().err.splitlines() if "checkpoint" in line]
    assert len(lines) == 1 and "other settings, recipe versions or data" in lines[0]
    assert_same_weights(tmp_path / "changed", tmp_path / "fresh")


def test_a_loss_that_is_not_finite_stops_with_step_row_and_checkpoint(world, tmp_path, monkeypatch):
    loss, short = Hodor.loss, make_stamp(stage={"steps": 8})

    def poisoned(self, clip, step):
        values = loss(self, clip, step)
        return {**values, "loss": values["loss"] * (float("nan") if step == 6 else 1)}

    monkeypatch.setattr(Hodor, "loss", poisoned)
    message = refused("a-row seed 0", train, short, world, tmp_path)
    assert "step 7" in message and "step-00000006.pt" in message
    assert (tmp_path / "checkpoints" / "step-00000006.pt").exists() and not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(Hodor, "loss", loss)
    train(short, world, tmp_path)  # nothing is lost: it goes on
    assert (tmp_path / "model.safetensors").exists()


def test_cyclic_stage_starts_from_the_weights_of_its_row(world, tmp_path):
    train(make_stamp(stage={"steps": 2}), world, tmp_path / "coco")
    stage = {
        "kind": "sparse-video",
        "sources": [
            {"dataset": "youtube-vos", "split": "train", "share": 0.75, "max_distance": 2},
            {"dataset": "davis", "split": "train", "share": 0.25, "max_distance": 2},
        ],
        "steps": 2,
        "pixels": None,
        "short_side": 64,
    }
    cyclic = make_stamp(stage=stage, datasets=["youtube-vos", "davis"], init={"row": "hodor-soft-coco"})
    weights = tmp_path / "coco" / "model.safetensors"
    refused("starts from the weights of hodor-soft-coco", train, cyclic, world, tmp_path / "without")
    still = make_stamp(stage=stage | {"steps": 0}, datasets=["youtube-vos", "davis"], init={"row": "hodor-soft-coco"})
    train(still, world, tmp_path / "still", init=weights)
    assert_same_weights(tmp_path / "still", tmp_path / "coco")
    wide = make_stamp(options=OPTIONS | {"dim": 64}, init={"row": "a"})
    refused("do not fit", train, wide, world, tmp_path / "wide", init=weights)
    train(cyclic, world, tmp_path / "cyclic", init=weights)
    inputs = json.loads((tmp_path / "cyclic" / "train.json").read_text())["inputs"]
    assert set(inputs) == {"davis.json", "youtube-vos.json", "init"}
    ours, theirs = weights_of(tmp_path / "cyclic"), weights_of(tmp_path / "coco")
    assert all(not torch.equal(ours[k], theirs[k]) for k in ours if k.endswith("q_proj.weight"))


def test_untrained_rows_are_the_network_as_it_starts(world, tmp_path):
    made = make_stamp(datasets=[])
    made["settings"]["stage"] = None
    train(made, world, tmp_path)
    torch.manual_seed(0)
    fresh = build_method("hodor", OPTIONS).state_dict()
    assert all(torch.equal(fresh[key], value) for key, value in weights_of(tmp_path).items())
    assert json.loads((tmp_path / "train.json").read_text())["steps"] == 0
    assert (tmp_path / "train.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("decay", "optimiser", "factor", "expected", "within"),
    [
        (True, "adamw", 1.0, 32 * 0.9, 0.03),
        (True, "adamw", 0.5, 32 * 0.95, 0.03),
        (False, "adamw", 1.0, 32, 0.03),
        (True, "adam", 1.0, 32 - 1e-4, 2e-5),
        (True, "adam", 50.0, 32 - 5e-3, 2e-5),
    ],
)
def test_rate_and_weight_decay_of_alpha(decay, optimiser, factor, expected, within, world, tmp_path):
    """With a tiny learning rate, AdamW's huge decay alone moves a weight noticeably; Adam's only turns the step."""
    stage = {"steps": 1, "learning_rate": 1e-4, "warmup_steps": 0, "weight_decay": 1000.0, "optimiser": optimiser}
    stage["alpha_factor"] = factor
    options = OPTIONS | {"decay_alpha": decay}
    train(make_stamp(stage=stage, options=options), world, tmp_path)
    alpha = weights_of(tmp_path)["network.encoder.layers.0.cross_attention.alpha"]
    assert alpha[0].item() == pytest.approx(expected, abs=within)


def test_bfloat16_trains_close_to_float32(world, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        train(make_stamp(stage={"steps": 4}, precision=precision), world, tmp_path / precision)
        losses[precision] = [line["loss"] for line in log_of(tmp_path / precision)]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05) and losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of GPU memory; set a smaller `micro_batch`"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "loads data was killed.*`workers`"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory"), "out of memory; run fewer jobs"),
        (MemoryError(), "out of memory; run fewer jobs"),
    ],
)
def test_a_training_without_memory_names_the_remedy(fault, message, world, tmp_path, monkeypatch):
    def fail(*arguments):
        raise fault

    monkeypatch.setattr(Hodor, "loss", fail)
    refused(f"a-row seed 0: .*{message}", train, make_stamp(), world, tmp_path)


def test_the_micro_batch_is_tried_with_the_largest_clips(world, tmp_path):
    options = StageOptions(**STAGE)
    trainer = Trainer(None, options, world, tmp_path, title="a run", identity="", seed=0, device=torch.device("cpu"))
    largest, clips = trainer._largest(), list(trainer._clips(0))
    most = max(clip.objects for clip in clips)
    assert largest.objects == most and len(largest) == options.batch
    assert largest.frames.numel() == max(clip.frames.numel() for clip in clips if clip.objects == most)
