"""`kill -9` while a row trains: the same command goes on after the last checkpoint and ends with the same weights."""

import json
import random
import time

from tests.faults.runs import Run

TARGET = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
STEPS = 20
OVERRIDES = json.dumps({"stages.images.steps": STEPS, "stages.images.checkpoint_every": 5})
COMMAND = ("snakemake", "--cores", "1", "--config", f"overrides={OVERRIDES}", "--", TARGET)


def test_a_killed_training_goes_on(checkout):
    unbroken = checkout.run(*COMMAND).stdout
    assert f"step {STEPS} of {STEPS}" in unbroken and "continues" not in unbroken
    expected = (checkout.path / TARGET).read_bytes()
    (checkout.path / TARGET).unlink()

    run = Run(checkout, *COMMAND)
    assert run.wait_for("hodor-soft-coco seed 0: step "), run.output
    time.sleep(random.uniform(0, 0.5))
    run.kill()
    assert not (checkout.path / TARGET).exists()
    assert list((checkout.path / ".snakemake/locks").iterdir())

    output = checkout.run(*COMMAND).stdout
    assert "its locks on this folder were removed" in output
    assert f"step {STEPS} of {STEPS}" in output
    assert (checkout.path / TARGET).read_bytes() == expected
    log = (checkout.path / TARGET).with_name("train.jsonl").read_text().splitlines()
    assert {json.loads(line).get("step") for line in log} >= set(range(1, STEPS + 1))
