"""What may happen to a training, by its real command: each time the same command resumes, and nothing is lost.

Signals, a broken checkpoint, a loss that is not finite, a full disk; on one process and on two.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from hodor.models.base import read_weights
from tests.training.small import command, make_stamp

LIMIT_S = 180
# Far more steps than a test waits for, and a checkpoint before anything happens. Without dropout the losses of any number
# of processes agree but for rounding.
LONG = {"steps": 24, "checkpoint_every": 4, "log_every": 1, "learning_rate": 1e-4}
OPTIONS = make_stamp()["settings"]["options"] | {"dropout": 0.0}


@dataclass
class Training:
    """A training in `out`, and what it printed."""

    world: Path
    out: Path
    stamp: dict
    output: str = field(default="", init=False)

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.out / "checkpoints").glob("step-*.pt"))

    @property
    def log(self) -> list[dict]:
        return [json.loads(line) for line in (self.out / "train.jsonl").read_text().splitlines()]

    def start(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
        whole = [*before, *command(self.stamp, self.world, self.out, *arguments)]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(whole, text=True, start_new_session=True, **pipe)

    def run(self, *arguments: str, before: tuple[str, ...] = (), status: int = 0) -> str:
        """Output of a training until its end."""
        process = self.start(*arguments, before=before)
        self.output = process.communicate(timeout=LIMIT_S)[0]
        assert process.returncode == status, self.output[-3000:]
        return self.output

    def stopped(self, number: signal.Signals, *arguments: str, at: str = "step 5 of", group: bool = False) -> str:
        """Output of a training that gets a signal once it has printed `at`; it must end by itself, as asked."""
        process = self.start(*arguments)
        timer, lines = time.monotonic(), []
        for line in process.stdout:
            lines.append(line)
            if at in line:
                (os.killpg if group else os.kill)(process.pid, number)
            assert time.monotonic() - timer < LIMIT_S
        assert process.wait(LIMIT_S) == 128 + number, "".join(lines)
        self.output = "".join(lines)
        return self.output


@pytest.fixture
def training(world, tmp_path):
    """Makes a training in a folder; keywords as for a stamp."""

    def make(name: str = "run", **settings) -> Training:
        settings["stage"] = LONG | settings.get("stage", {})
        return Training(world, tmp_path / name, make_stamp(options=OPTIONS, **settings))

    return make


@pytest.fixture(scope="module")
def unbroken(world, tmp_path_factory) -> Training:
    """A training of one process that nothing happened to."""
    whole = Training(world, tmp_path_factory.mktemp("unbroken") / "run", make_stamp(options=OPTIONS, stage=LONG))
    whole.run()
    return whole


def assert_same_weights(ours: Training, theirs: Training) -> None:
    ours, theirs = (read_weights(run.out / "model.safetensors")[0] for run in (ours, theirs))
    assert ours.keys() == theirs.keys() and [k for k in ours if not torch.equal(ours[k], theirs[k])] == []


def assert_one_line(output: str, start: str) -> str:
    """The only line of that kind; nothing of Python is shown."""
    lines = [line for line in output.splitlines() if line.startswith("hodor train: ")]
    assert len(lines) == 1 and lines[0].startswith(f"hodor train: {start}"), output[-3000:]
    assert "Traceback" not in output
    return lines[0]


def test_sigterm_saves_and_the_same_command_goes_on(training, unbroken):
    """To the whole group, as a preempted job gets it, with worker processes that load data."""
    run = training(stage={"workers": 2})
    line = assert_one_line(run.stopped(signal.SIGTERM, group=True), "a-row seed 0: stopped by SIGTERM after step ")
    step = int(line.partition("after step ")[2].partition(",")[0])
    assert run.checkpoints[-1].name == f"step-{step:08d}.pt" and 5 <= step < LONG["steps"]
    assert "the same command resumes" in line and not (run.out / "model.safetensors").exists()
    assert f"continues after step {step}" in run.run()
    assert_same_weights(run, unbroken)
    assert [entry["step"] for entry in run.log] == list(range(1, LONG["steps"] + 1))


@pytest.mark.parametrize(
    ("first", "then", "micro_batch"), [("2", "1", 1), pytest.param("1", "2", None, marks=pytest.mark.long)]
)
def test_a_run_goes_on_with_another_number_of_processes(training, unbroken, first, then, micro_batch):
    run = training()
    output = run.stopped(signal.SIGTERM, "--processes", first, group=first == "2")
    assert_one_line(output, "a-row seed 0: stopped by SIGTERM after step ")
    output = run.run("--processes", then, *([f"--micro-batch={micro_batch}"] if micro_batch else []))
    assert output.count("continues after step") == 1  # one process prints it
    assert [entry["step"] for entry in run.log] == list(range(1, LONG["steps"] + 1))
    ours, theirs = ([entry["loss"] for entry in of.log] for of in (run, unbroken))
    assert ours == pytest.approx(theirs, rel=1e-3)
    record = json.loads((run.out / "train.json").read_text())
    assert record["execution"]["processes"] == int(then) and record["execution"]["micro_batch"] == micro_batch
    assert record["stamp"] == json.loads((unbroken.out / "train.json").read_text())["stamp"]
    assert not (run.out / "checkpoints").exists()


@pytest.mark.parametrize("launcher", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_process_that_is_killed_ends_the_others(training, launcher):
    """As the system does it where memory is short; nothing waits for the one that is gone."""
    run = training()
    process = run.start("--processes", "2")
    for line in process.stdout:
        if "step 5 of" in line:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(process.pid if launcher else int(children[-1]), signal.SIGKILL)
            break
    rest = process.communicate(timeout=LIMIT_S)[0]  # until the last process has closed the pipe
    if launcher:  # it holds the locks of the GPUs
        assert process.returncode == -signal.SIGKILL and not (run.out / "model.safetensors").exists()
        return
    assert process.returncode == 128 + signal.SIGKILL
    assert "was ended by SIGKILL" in rest and "memory ran out" in rest and "Traceback" not in rest
    assert run.checkpoints


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": {"batch": 3}}, "error: a-row seed 0: 2 processes cannot share a batch of 3 clips"),
        # Both have this fault, before they know each other.
        pytest.param({"device": "cuda"}, "error: ", marks=pytest.mark.long),
    ],
)
def test_a_fault_of_two_processes_is_one_line(training, settings, message):
    if "device" in settings and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = assert_one_line(training(**settings).run("--processes", "2", status=1), message)
    assert "GPU" in line or "clips" in line


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(training, unbroken, processes):
    """The run folder lies on a file system that one checkpoint fits on and two do not. Of two processes, one writes."""
    run = training()
    run.out.mkdir()
    size = 3 * (unbroken.out / "model.safetensors").stat().st_size  # weights and two moments
    mount = f'mount -t tmpfs -o size={int(1.7 * size)} none {run.out} && "$@"; status=$?; '
    keep = f"cp -r {run.out}/. {run.out}.kept; exit $status"
    inside = ("unshare", "-m", "sh", "-c", mount + keep, "sh")
    line = assert_one_line(run.run("--processes", processes, before=inside, status=1), "error: ")
    assert "could not write the checkpoint" in line and "run the same command again" in line
    assert "step 5 of" in run.output and "step 9 of" not in run.output
    kept = Path(f"{run.out}.kept")
    assert [path.name for path in kept.glob("checkpoints/step-*.pt")] == ["step-00000004.pt"]
    shutil.copytree(kept, run.out, dirs_exist_ok=True)  # there is room again
    assert "continues after step 4" in run.run()
    if processes == "1":
        assert_same_weights(run, unbroken)
