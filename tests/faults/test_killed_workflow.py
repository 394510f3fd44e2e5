"""`kill -9` of Snakemake and all that it started, at random moments: the plain command goes on to the same bytes.

The moments follow from a seed that is printed; HODOR_FAULT_SEED=<seed> repeats them (as far as the machine's speed lets
them fall on the same work).
"""

import os
import random
import secrets
import time

import pytest

from tests.faults.runs import LIMIT_S, Run, jobs

ROWS = ("hodor-soft-coco", "hodor-soft-cyclic")
KILLS = 20
COMMAND = ("snakemake", "--cores", "1", "--config", f"rows={','.join(ROWS)}", "--", "tables")


@pytest.mark.long
def test_a_killed_workflow_ends_with_the_same_bytes_and_repeats_nothing(checkout, fresh, capsys):
    checkout.run(*COMMAND)  # everything is there but the tables of these rows alone
    expected = checkout.results(*ROWS)
    assert sum(path.endswith("model.safetensors") for path in expected) == 2
    assert sum("/masks/" in path for path in expected) == 20 and "results/tiny/claims.json" in expected

    seed = int(os.environ.get("HODOR_FAULT_SEED") or secrets.randbelow(2**32))
    with capsys.disabled():
        print(f"\nseed of the moments: {seed}")
    chance = random.Random(seed)
    left, reached = KILLS, []
    while left:  # the more kills, the more whole runs they fall on
        broken, done = fresh(), []
        while left:
            run = Run(broken, *COMMAND)
            if run.wait_for("    jobid: ", chance.randint(1, 5)):
                time.sleep(chance.uniform(0, 2))
            if run.ended:  # before the moment came
                assert run.process.returncode == 0, run.output
                break
            run.kill()
            left -= 1
            done += _check(run.output, done)
            reached.append(len(done))
        else:
            run = Run(broken, *COMMAND)
            assert run.process.wait(LIMIT_S) == 0, run.output
        done += _check(run.output, done)
        assert broken.due(*COMMAND[3:]) == {}
        made = broken.results(*ROWS)
        assert made.keys() == expected.keys()
        assert [path for path in made if made[path] != expected[path]] == [], f"seed {seed}"
        assert len(set(done)) == len(done) >= 20
    with capsys.disabled():
        print(f"jobs done at each kill: {reached}")


def _check(output: str, done: list[str]) -> list[str]:
    """Jobs that Snakemake recorded as done in one call, none of which it had recorded before."""
    started, finished = jobs(output)
    assert not set(started) & set(done), "done again"
    assert "Traceback" not in output, output[-3000:]
    return finished


def test_a_run_that_is_alive_keeps_others_out(checkout):
    target = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
    (checkout.path / target).unlink()
    # It has to be alive until the end, on a fast machine too.
    endless = ("snakemake", "--cores", "1", "--config", 'overrides={"stages.images.steps": 20000}', "--", target)
    run = Run(checkout, *endless)
    try:
        assert run.wait_for("hodor-soft-coco seed 0: step 1 "), run.output
        done = checkout.run(*endless, check=False)
        assert done.returncode == 1 and "cannot be locked" in done.stdout
        # Snakemake alone dies, its training lives on: still nobody else may write there.
        run.process.kill()
        run.process.wait()
        done = checkout.run(*endless, check=False)
        assert done.returncode == 1 and "cannot be locked" in done.stdout
    finally:
        run.kill()
