"""Training: resumption bit for bit, bad losses, full disks, starting weights."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from hodor.data.dataset import PlannedClips
from hodor.errors import HodorError
from hodor.models.base import build_method, load_model, read_weights
from hodor.models.hodor.method import Hodor
from hodor.training.checkpoints import Checkpoints
from hodor.training.run import train


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "model.safetensors")[0]


def assert_same_weights(ours: Path, theirs: Path) -> None:
    ours, theirs = weights_of(ours), weights_of(theirs)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def train_slowly(stamp: dict, data: Path, out: Path) -> None:
    """A training whose steps take long enough for a kill to fall between two of them."""
    loss = Hodor.loss

    def slow(self, clip, step):
        time.sleep(0.1)
        return loss(self, clip, step)

    Hodor.loss = slow
    train(stamp, data, out)


def kill_after(checkpoint: str, stamp: dict, data: Path, out: Path) -> None:
    """Start a training and kill it once a checkpoint is there."""
    process = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(stamp, data, out))
    process.start()
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / checkpoint).exists():
        assert process.is_alive() and time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_run_ends_like_an_unbroken_one(world, stamp, tmp_path, capsys):
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    kill_after("step-00000003.pt", stamp(), world, broken)
    kill_after("step-00000009.pt", stamp(), world, broken)
    assert not (broken / "model.safetensors").exists()
    train(stamp(), world, broken)
    assert "continues after step" in capsys.readouterr().out
    train(stamp(), world, unbroken)
    assert_same_weights(broken, unbroken)
    steps = [line["step"] for line in log_of(broken)]
    assert steps == sorted(set(steps)) == [line["step"] for line in log_of(unbroken)]
    strip = [{k: v for k, v in line.items() if k != "examples_per_second"} for line in log_of(broken)]
    assert strip == [{k: v for k, v in line.items() if k != "examples_per_second"} for line in log_of(unbroken)]
    assert not (broken / "checkpoints").exists()


def test_seeds_and_workers(world, stamp, tmp_path):
    """The number of workers changes nothing, the seed everything."""
    for name, made in {
        "a": stamp(),
        "workers": stamp(stage={"workers": 2}),
        "seed": stamp(seed=1),
    }.items():
        train(made, world, tmp_path / name)
    assert_same_weights(tmp_path / "a", tmp_path / "workers")
    ours, theirs = weights_of(tmp_path / "a"), weights_of(tmp_path / "seed")
    assert all(not torch.equal(ours[k], theirs[k]) for k in ours if k.endswith("conv1.weight"))


def test_record_names_settings_inputs_and_cost(world, stamp, tmp_path):
    made = stamp()
    train(made, world, tmp_path)
    record = json.loads((tmp_path / "train.json").read_text())
    assert record["stamp"] == made["sha256"] and "sha256" not in record["stamp_content"]
    assert set(record["inputs"]) == {"coco.json"} and record["steps"] == 12
    _, method = load_model(tmp_path / "model.safetensors")
    assert record["parameters"] == sum(p.numel() for p in method.parameters())
    assert record["time_s"] > 0 and record["peak_memory_mib"] > 50 and record["machine"]["cores"] >= 1
    log = log_of(tmp_path)
    assert log[-1]["step"] == log[-1]["steps"] == 12
    assert len(log[0]["alpha"]) == 1 and len(log[0]["alpha"][0]) == 8
    assert log[-1]["alpha"] != log[0]["alpha"]  # they learn


def test_other_settings_never_continue_old_weights(world, stamp, tmp_path, capsys):
    kill_after("step-00000003.pt", stamp(), world, tmp_path / "changed")
    changed = stamp(stage={"learning_rate": 0.002})
    train(changed, world, tmp_path / "changed")
    assert "of other settings or data" in capsys.readouterr().err
    train(changed, world, tmp_path / "fresh")
    assert_same_weights(tmp_path / "changed", tmp_path / "fresh")


def test_a_broken_checkpoint_falls_back_to_the_one_before(world, stamp, tmp_path, capsys):
    kill_after("step-00000009.pt", stamp(), world, tmp_path / "broken")
    newest = sorted((tmp_path / "broken" / "checkpoints").glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    train(stamp(), world, tmp_path / "broken")
    told = capsys.readouterr()
    assert "broken checkpoint" in told.err and "continues after step" in told.out
    train(stamp(), world, tmp_path / "fresh")
    assert_same_weights(tmp_path / "broken", tmp_path / "fresh")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_step_row_and_checkpoint(world, stamp, tmp_path, monkeypatch, value):
    loss = Hodor.loss

    def poisoned(self, clip, step):
        values = loss(self, clip, step)
        return {**values, "loss": values["loss"] * (value if step == 6 else 1)}

    monkeypatch.setattr(Hodor, "loss", poisoned)
    with pytest.raises(HodorError) as error:
        train(stamp(), world, tmp_path)
    message = str(error.value)
    assert "a-row seed 0" in message and "step 7" in message and "step-00000006.pt" in message
    assert (tmp_path / "checkpoints" / "step-00000006.pt").exists() and not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(Hodor, "loss", loss)
    train(stamp(), world, tmp_path)  # nothing is lost: it goes on
    assert (tmp_path / "model.safetensors").exists()


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "me")
    checkpoints.save(1, {"value": torch.ones(3)})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(HodorError, match="No space left.*continues from the checkpoint before"):
        checkpoints.save(2, {"value": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert Checkpoints(tmp_path, "me").load()["step"] == 1


def test_checkpoints_keep_the_newest_two(tmp_path):
    checkpoints = Checkpoints(tmp_path, "me")
    for step in range(5):
        checkpoints.save(step, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003.pt", "step-00000004.pt"]
    assert checkpoints.load()["step"] == 4 and Checkpoints(tmp_path, "another").load() is None


def test_cyclic_stage_starts_from_the_weights_of_its_row(world, stamp, tmp_path):
    train(stamp(), world, tmp_path / "coco")
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
    cyclic = stamp(stage=stage, datasets=["youtube-vos", "davis"], init={"row": "hodor-soft-coco"})
    weights = tmp_path / "coco" / "model.safetensors"
    with pytest.raises(HodorError, match="starts from the weights of hodor-soft-coco"):
        train(cyclic, world, tmp_path / "without")
    still = stamp(stage=stage | {"steps": 0}, datasets=["youtube-vos", "davis"], init={"row": "hodor-soft-coco"})
    train(still, world, tmp_path / "still", init=weights)
    assert_same_weights(tmp_path / "still", tmp_path / "coco")
    train(cyclic, world, tmp_path / "cyclic", init=weights)
    assert set(json.loads((tmp_path / "cyclic" / "train.json").read_text())["inputs"]) == {
        "davis.json",
        "youtube-vos.json",
        "init",
    }
    ours, theirs = weights_of(tmp_path / "cyclic"), weights_of(tmp_path / "coco")
    assert all(not torch.equal(ours[k], theirs[k]) for k in ours if k.endswith("q_proj.weight"))


def test_starting_weights_of_another_network_are_refused(world, stamp, tmp_path):
    train(stamp(stage=None) | {}, world, tmp_path / "coco")
    wide = stamp(options={**stamp()["settings"]["options"], "dim": 64}, init={"row": "a"})
    with pytest.raises(HodorError, match="do not fit"):
        train(wide, world, tmp_path / "wide", init=tmp_path / "coco" / "model.safetensors")


def test_untrained_rows_are_the_network_as_it_starts(world, stamp, tmp_path):
    made = stamp()
    made["settings"]["stage"] = None
    made["settings"]["datasets"] = []
    train(made, world, tmp_path)
    torch.manual_seed(0)
    fresh = build_method("hodor", made["settings"]["options"]).state_dict()
    assert all(torch.equal(fresh[key], value) for key, value in weights_of(tmp_path).items())
    assert json.loads((tmp_path / "train.json").read_text())["steps"] == 0
    assert (tmp_path / "train.jsonl").read_text() == ""


def test_no_gpu_is_one_clear_error(world, stamp, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HodorError, match="torch sees none"):
        train(stamp(device="cuda"), world, tmp_path)


def test_alpha_decays_unless_it_is_exempt(world, stamp, tmp_path):
    """With a tiny learning rate and a huge decay, only decay moves a weight noticeably."""
    stage = {"steps": 1, "learning_rate": 1e-4, "warmup_steps": 0, "weight_decay": 1000.0}
    key = "network.encoder.layers.0.cross_attention.alpha"
    for decay, expected in ((True, 0.9), (False, 1.0)):
        out = tmp_path / str(decay)
        options = stamp()["settings"]["options"] | {"decay_alpha": decay}
        train(stamp(stage=stage, options=options), world, out)
        assert weights_of(out)[key][0].item() == pytest.approx(32.0 * expected, rel=1e-3)


def test_adam_takes_decay_into_the_gradient(world, stamp, tmp_path):
    """AdamW's decay shrinks a weight in proportion; Adam's only turns the step, which keeps its size."""
    stage = {"steps": 1, "learning_rate": 1e-4, "warmup_steps": 0, "weight_decay": 1000.0, "optimiser": "adam"}
    train(stamp(stage=stage), world, tmp_path)
    alpha = weights_of(tmp_path)["network.encoder.layers.0.cross_attention.alpha"]
    assert alpha[0].item() == pytest.approx(32.0 - 1e-4, abs=2e-5)


def test_bfloat16_trains_close_to_float32(world, stamp, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        train(stamp(stage={"steps": 6}, precision=precision), world, tmp_path / precision)
        losses[precision] = [line["loss"] for line in log_of(tmp_path / precision)]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05) and losses["bfloat16"] != losses["float32"]


def test_learning_lowers_the_loss(world, stamp, tmp_path):
    train(stamp(stage={"steps": 60, "learning_rate": 0.003, "checkpoint_every": 100}), world, tmp_path)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_clips_of_a_step_do_not_depend_on_the_steps_before(world, stamp):
    from hodor.config.stages import StageOptions
    from hodor.data.clips_image import ImageClips

    options = StageOptions(**stamp()["settings"]["stage"])
    source = ImageClips(options, world)
    clips = PlannedClips(source.plan(0), source.make, seed=0, multiple=32)
    late = clips[7]
    _ = clips[2]
    assert torch.equal(late.frames, clips[7].frames) and torch.equal(late.labels, clips[7].labels)
    assert not torch.equal(late.frames.float().mean((0, 1)), clips[8].frames.float().mean((0, 1)))
