"""`kill -9` of everything at a random moment: the same command goes on and ends with the same weights."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.numpy import load_file

TARGET = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
STEPS = 40


def command(steps: int) -> list[str]:
    """Trains one row for so many steps."""
    overrides = {"stages.images.steps": steps, "stages.images.checkpoint_every": 5}
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "1"]
    return [*snakemake, "--config", "overrides=" + json.dumps(overrides), "--", TARGET]


COMMAND = command(STEPS)


def start(checkout, what: list[str] = COMMAND) -> subprocess.Popen:
    log = open(checkout.path / "killed.txt", "wb")
    return subprocess.Popen(what, cwd=checkout.path, stdout=log, stderr=log, start_new_session=True)


def wait_for(checkout, text: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while text not in (checkout.path / "killed.txt").read_text():
        assert process.poll() is None and time.monotonic() < until, (checkout.path / "killed.txt").read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_killed_run_goes_on(checkout, kills):
    unbroken = checkout.run(*COMMAND).stdout
    assert f"step {STEPS} of {STEPS}" in unbroken and "continues" not in unbroken
    expected = load_file(checkout.path / TARGET)
    (checkout.path / TARGET).unlink()

    for _ in range(kills):
        process = start(checkout)
        wait_for(checkout, "hodor-soft-coco seed 0: step ", process)
        time.sleep(random.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (checkout.path / TARGET).exists()
        assert list((checkout.path / ".snakemake/locks").iterdir())

    output = checkout.run(*COMMAND).stdout
    assert "its marks on this folder are removed" in output
    assert f"step {STEPS} of {STEPS}" in output
    weights = load_file(checkout.path / TARGET)
    assert weights.keys() == expected.keys()
    assert all(weights[name].tobytes() == expected[name].tobytes() for name in expected)
    log = (checkout.path / TARGET).with_name("train.jsonl").read_text().splitlines()
    assert {json.loads(line).get("step") for line in log} >= set(range(1, STEPS + 1))


def test_a_run_that_is_alive_keeps_others_out(checkout):
    (checkout.path / TARGET).unlink()
    endless = command(20_000)  # it has to be alive until the end, on a fast machine too
    process = start(checkout, endless)
    try:
        wait_for(checkout, "hodor-soft-coco seed 0: step 1 ", process)
        done = checkout.run(*endless, check=False)
        assert done.returncode == 1 and "cannot be locked" in done.stdout
        # Snakemake alone dies, its training lives on: still nobody else may write there.
        process.kill()
        process.wait()
        done = checkout.run(*endless, check=False)
        assert done.returncode == 1 and "cannot be locked" in done.stdout
    finally:
        os.killpg(process.pid, signal.SIGKILL)
