"""The workflow on a real Slurm of one node, by profiles/slurm and Snakemake's executor for it."""

import importlib.util
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkouts import Checkout, set_yaml
from tests.cluster.slurm import Slurm, missing
from tests.faults.runs import Run

pytestmark = pytest.mark.long

PLUGIN = "snakemake_executor_plugin_slurm"
ROWS = ("hodor-soft-coco", "hodor-soft-cyclic")
# The profile as it is, but for waits that a real cluster needs and for as many jobs at once as a small machine bears.
PROFILE = ("--workflow-profile", "profiles/slurm", "--jobs", "2", "--latency-wait", "20", "--slurm-no-account")
PROFILE += ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2")
PROFILE += ("--seconds-between-status-checks", "1")


@dataclass(frozen=True)
class ClusterCheckout(Checkout):
    """A checkout whose commands see Slurm and the plugin."""

    served = False
    variables: tuple[tuple[str, str], ...] = ()

    def environment(self) -> dict[str, str]:
        environment = super().environment() | dict(self.variables)
        return environment | {"PATH": os.pathsep.join([environment["SRUN"], environment["PATH"]])}


@pytest.fixture(scope="module")
def slurm(root: Path):
    """A Slurm that runs, and the folder of the plugin ("" where the environment has it)."""
    if why := missing():
        pytest.skip(why)
    plugins = "" if importlib.util.find_spec(PLUGIN) else str(root / ".venv" / "cluster")
    if plugins and not (Path(plugins) / PLUGIN).is_dir():
        pytest.skip(f"{PLUGIN} is neither in the environment nor in .venv/cluster: `make test-long` puts it there")
    slurm = Slurm()
    try:
        slurm.start()
        yield slurm, plugins
    finally:
        slurm.stop()


@pytest.fixture
def on_cluster(slurm, fresh):
    """A checkout in which nothing was run yet, on the cluster."""
    running, plugins = slurm
    variables = {"SLURM_CONF": running.environment["SLURM_CONF"], "SRUN": str(running.folder / "bin")}
    return ClusterCheckout(fresh().path, tuple((variables | {"PYTHONPATH": plugins}).items()))


def slurm_jobs(output: str) -> dict[str, str]:
    """Number of a job in Slurm -> name of its rule."""
    return {number: rule for rule, number in re.findall(r"/slurm_logs/rule_(\w+)/(?:\S*/)?(\d+)\.log\)", output)}


def test_the_workflow_gives_what_it_gives_without_a_cluster(slurm, on_cluster, fresh):
    chosen = (f"rows={','.join(ROWS)}",)
    targets = ("--", "tables")
    output = on_cluster.run("snakemake", *PROFILE, "--config", *chosen, *targets).stdout
    rules = list(slurm_jobs(output).values())
    assert {rule: rules.count(rule) for rule in ("prepare", "train", "segment", "score", "claims")} == {
        "prepare": 3,
        "train": 2,
        "segment": 2,
        "score": 2,
        "claims": 1,
    }
    # Downloads and copies run where Snakemake does.
    assert not [rule for rule in rules if rule.startswith(("fetch", "publish"))]
    assert len(re.findall(r"^localrule (?:fetch|publish\w*):", output, re.MULTILINE)) == 3 + 5
    done = slurm[0].run("squeue", "--states=all", "--noheader", "--format=%T %l").stdout.split("\n")
    assert {line.split()[0] for line in done if line} == {"COMPLETED"}
    assert sum(line.endswith("1-00:00:00") for line in done) == 2, "the trainings asked for a day"
    assert "Nothing to be done" in on_cluster.run("snakemake", *PROFILE, "--config", *chosen, *targets).stdout

    local = fresh()
    local.snakemake("--config", *chosen, *targets)
    made, expected = on_cluster.results(*ROWS), local.results(*ROWS)
    assert made.keys() == expected.keys()
    assert [path for path in made if made[path] != expected[path]] == []


def test_a_training_that_is_asked_to_stop_resumes_in_another_job(slurm, on_cluster, fresh):
    """SIGTERM to the steps of a job, as at the end of its time (`--signal=TERM@120`) or before it is preempted."""
    target = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
    # No checkpoint but that of the signal.
    overrides = {"stages.images.steps": 400, "stages.images.checkpoint_every": 1000}
    command = ("--config", f"overrides={json.dumps(overrides)}", "--", target)
    run = Run(on_cluster, "snakemake", *PROFILE, *command)
    log = on_cluster.path / "runs" / "tiny" / "logs" / "train-hodor-soft-coco-seed0.log"
    try:
        until = time.monotonic() + 300
        while not (log.is_file() and "step 20 of" in log.read_text()):
            assert not run.ended and time.monotonic() < until, run.output
            time.sleep(0.1)
        (number,) = [number for number, rule in slurm_jobs(run.output).items() if rule == "train"]
        asked = slurm[0].run("scontrol", "show", "job", number).stdout
        assert "TimeLimit=1-00:00:00" in asked and "Requeue=1" in asked
        slurm[0].run("scancel", "--signal=TERM", number)
        assert run.process.wait(300) == 0, run.output
    except subprocess.TimeoutExpired:
        raise AssertionError(run.output) from None
    finally:
        run.kill()
    assert len([rule for rule in slurm_jobs(run.output).values() if rule == "train"]) == 2
    assert "Trying to restart job" in run.output
    step = int(re.search(r"continues after step (\d+)", log.read_text())[1])
    assert 20 <= step < 400
    local = fresh()
    local.snakemake(*command)
    assert (on_cluster.path / target).read_bytes() == (local.path / target).read_bytes()


def test_before_its_time_limit_a_training_is_asked_to_stop_and_resumes_in_another_job(slurm, on_cluster):
    """By the profile's own `--signal`; Slurm may send it up to a minute early."""
    set_yaml(on_cluster.path / "profiles/slurm/config.yaml", "set-resources.train.runtime", 4)
    # It ends by its time alone, and writes no checkpoint but that of the signal.
    overrides = {"stages.images.steps": 1000000, "stages.images.checkpoint_every": 1000000}
    target = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
    run = Run(on_cluster, "snakemake", *PROFILE, "--config", f"overrides={json.dumps(overrides)}", "--", target)
    log = on_cluster.path / "runs" / "tiny" / "logs" / "train-hodor-soft-coco-seed0.log"
    try:
        until = time.monotonic() + 400
        while not (log.is_file() and "continues after step" in log.read_text()):
            assert not run.ended and time.monotonic() < until, run.output
            time.sleep(0.5)
    finally:
        run.kill()
        slurm[0].run("scancel", "--user=root")
    trainings = [number for number, rule in slurm_jobs(run.output).items() if rule == "train"]
    assert len(trainings) == 2
    first = slurm[0].run("squeue", "--states=all", "--noheader", "--format=%T", "--jobs", trainings[0]).stdout
    assert first.strip() == "FAILED", "it ended by itself, not by its limit"
