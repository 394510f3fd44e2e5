"""A workflow that is stopped or killed while a row trains: the same command goes on and ends with the same weights."""

import json
import os
import shutil
import signal

import pytest

from tests.faults.runs import LIMIT_S, Run

TARGET = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
STEPS = 30
OVERRIDES = json.dumps({"stages.images.steps": STEPS, "stages.images.checkpoint_every": 5})
COMMAND = ["snakemake", "--cores", "1", "--config", f"overrides={OVERRIDES}"]


@pytest.fixture(scope="module")
def expected(finished, tmp_path_factory) -> bytes:
    """The weights of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("unbroken") / "checkout"
    shutil.copytree(finished.path, folder, symlinks=True)
    output = type(finished)(folder).run(*COMMAND, "--", TARGET).stdout
    assert f"step {STEPS} of {STEPS}" in output and "continues" not in output
    return (folder / TARGET).read_bytes()


@pytest.mark.parametrize(
    ("stop", "processes"), [("TERM", 1), ("KILL", 1), pytest.param("TERM", 2, marks=pytest.mark.long)]
)
def test_the_same_command_goes_on(checkout, expected, stop, processes):
    weights, log = checkout.path / TARGET, checkout.path / "runs/tiny/logs/train-hodor-soft-coco-seed0.log"
    weights.unlink()
    command = [*COMMAND, "execution=" + json.dumps({"processes": processes}), "--", TARGET]
    run = Run(checkout, *command)
    assert run.wait_for("hodor-soft-coco seed 0: step 7 "), run.output
    if stop == "KILL":
        run.kill()
        assert list((checkout.path / ".snakemake/locks").iterdir())
        step = 5
    else:
        os.killpg(run.process.pid, signal.SIGTERM)  # as Slurm sends it to every process of a job
        assert run.process.wait(LIMIT_S) != 0
        messages = [line for line in log.read_text().splitlines() if line.startswith("hodor train: ")]
        assert (
            len(messages) == 1 and "stopped by SIGTERM after step" in messages[0] and "Traceback" not in log.read_text()
        )
        step = int(messages[0].partition("after step ")[2].partition(",")[0])
        assert weights.with_name("checkpoints").joinpath(f"step-{step:08d}.pt").exists()
    assert not weights.exists()

    output = checkout.run(*command).stdout
    assert ("its locks on this folder were removed" in output) == (stop == "KILL")
    continued = int(output.partition("continues after step ")[2].split()[0].strip(",;:"))
    assert continued >= step and f"step {STEPS} of {STEPS}" in output
    assert weights.read_bytes() == expected or processes > 1
    steps = [json.loads(line).get("step") for line in weights.with_name("train.jsonl").read_text().splitlines()]
    assert set(steps) >= set(range(1, STEPS + 1))
    assert json.loads(weights.with_name("train.json").read_text())["execution"]["processes"] == processes
