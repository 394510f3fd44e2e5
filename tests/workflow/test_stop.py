"""A job that is told to stop (a preempted node, a time limit): trainings save, and the same command goes on."""

import json
import os
import signal

import pytest
from safetensors.numpy import load_file

from tests.workflow.test_kill import TARGET, command, start, wait_for

STEPS = 60


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_job_that_is_told_to_stop_saves_and_goes_on(checkout, processes):
    what = command(STEPS)
    if processes > 1:
        what[what.index("--config") + 1 : what.index("--config") + 1] = [f'execution={{"processes": {processes}}}']
    (checkout.path / TARGET).unlink()
    process = start(checkout, what)
    wait_for(checkout, "hodor-soft-coco seed 0: step 7 ", process)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm tells every process of a job
    assert process.wait(120) != 0
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


def test_how_a_training_is_executed_reaches_its_command_and_makes_nothing_due(checkout):
    settings = 'execution={"processes": 2, "micro_batch": 1}'
    assert checkout.due("--config", settings) == {}
    (checkout.path / TARGET).unlink()
    output = checkout.run("snakemake", "--dry-run", "--printshellcmds", "--config", settings, "--", TARGET).stdout
    assert "--processes 2 --micro-batch 1 2>&1" in output
    done = checkout.run("snakemake", "-n", "--config", 'execution={"processes": 0}', check=False)
    assert done.returncode == 1 and "execution.processes" in done.stdout and "Traceback" not in done.stdout
