"""A job that is told to stop (a preempted node, a time limit): trainings save, and the same command goes on."""

import json
import os
import signal

import pytest
from safetensors.numpy import load_file

from tests.faults.runs import LIMIT_S, Run

TARGET = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
STEPS = 30


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_job_that_is_told_to_stop_saves_and_goes_on(checkout, processes):
    settings = ["overrides=" + json.dumps({"stages.images.steps": STEPS, "stages.images.checkpoint_every": 5})]
    settings += ["execution=" + json.dumps({"processes": processes})] if processes > 1 else []
    what = ["snakemake", "--cores", "1", "--config", *settings, "--", TARGET]
    (checkout.path / TARGET).unlink()
    run = Run(checkout, *what)
    assert run.wait_for("hodor-soft-coco seed 0: step 7 "), run.output
    os.killpg(run.process.pid, signal.SIGTERM)  # as Slurm sends it to every process of a job
    assert run.process.wait(LIMIT_S) != 0
    log = (checkout.path / "runs/tiny/logs/train-hodor-soft-coco-seed0.log").read_text()
    told = [line for line in log.splitlines() if line.startswith("hodor train: ")]
    assert len(told) == 1 and "stopped by SIGTERM after step" in told[0] and "Traceback" not in log
    step = int(told[0].partition("after step ")[2].partition(",")[0])
    assert (checkout.path / TARGET).with_name("checkpoints").joinpath(f"step-{step:08d}.pt").exists()

    output = checkout.run(*what).stdout
    assert f"continues after step {step}" in output and f"step {STEPS} of {STEPS}" in output
    assert load_file(checkout.path / TARGET)
    record = json.loads((checkout.path / TARGET).with_name("train.json").read_text())
    assert record["execution"]["processes"] == processes


def test_a_step_that_is_killed_says_what_to_do(checkout):
    """As the kernel does it where memory runs out."""
    checkout.edit("hodor/cli/main.py", "options.command(options)", "os.kill(os.getpid(), 9)")
    target = "runs/tiny/copy-first-mask/seed0/davis2017-val/score.json"
    (checkout.path / target).unlink()
    done = checkout.run("snakemake", "--cores", "1", "--", target, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("score: the step was killed")]
    assert done.returncode == 1 and len(told) == 1 and "memory" in told[0] and "--cores" in told[0]
    assert told[0] in (checkout.path / "runs/tiny/logs/score-copy-first-mask-seed0-davis2017-val.log").read_text()


def test_how_a_training_is_executed_reaches_its_command_and_makes_nothing_due(checkout):
    settings = 'execution={"processes": 2, "micro_batch": 1}'
    assert checkout.due("--config", settings) == {}
    (checkout.path / TARGET).unlink()
    output = checkout.dry_run("--printshellcmds", "--config", settings, "--", TARGET)
    assert "--processes 2 --micro-batch 1 2>&1" in output
    done = checkout.run("snakemake", "-n", "--config", 'execution={"processes": 0}', check=False)
    assert done.returncode == 1 and "execution.processes" in done.stdout and "Traceback" not in done.stdout
