"""Jobs that run beside each other lock distinct GPUs. The devices are simulated, the processes and locks are real."""

import os
import subprocess
import sys
import time

import pytest

from hodor import gpus
from hodor.errors import HodorError

JOB = r"""
import sys
from hodor import gpus
sys.stdout.write(",".join(gpus.take()) + "\n")  # at once: processes of a job share the pipe
sys.stdout.flush()
sys.stdin.read()
"""
# A job of several processes, as torchrun starts them: their parent waits and computes nothing.
LAUNCHER = f"""
import os, subprocess, sys
count = int(sys.argv[1])
workers = []
for rank in range(count):
    environment = os.environ | {{"LOCAL_WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}}
    workers.append(subprocess.Popen([sys.executable, "-c", {JOB!r}], env=environment, stdin=subprocess.PIPE))
sys.stdin.read()
for worker in workers:
    worker.kill()
    worker.wait()
"""


@pytest.fixture
def start(root, tmp_path):
    """Return a function that starts a job on simulated GPUs; all end with the test."""
    begun: list[subprocess.Popen] = []

    def run(*arguments: str, devices: str = "a,b", program: str = JOB, **environment: str) -> subprocess.Popen:
        folders = {"HODOR_GPUS": devices, "HODOR_GPU_LOCKS": str(tmp_path / "locks"), "PYTHONPATH": str(root)}
        base = {name: value for name, value in os.environ.items() if name not in (gpus.VISIBLE, "LOCAL_WORLD_SIZE")}
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                env=base | folders | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def test_jobs_get_distinct_gpus_and_the_third_waits_for_a_killed_one(start):
    first, second = start(), start()
    assert {first.stdout.readline(), second.stdout.readline()} == {"a\n", "b\n"}
    third = start()
    assert third.stderr.readline() == "waiting for 1 of 2 GPUs: other jobs use them\n"
    time.sleep(1)
    os.set_blocking(third.stdout.fileno(), False)
    assert not third.stdout.readline()
    os.set_blocking(third.stdout.fileno(), True)
    second.kill()  # -9: no handler of the process runs
    assert third.stdout.readline() in ("a\n", "b\n")
    assert first.poll() is None


def test_only_visible_gpus_are_taken(start):
    assert start(CUDA_VISIBLE_DEVICES="1").stdout.readline() == "b\n"
    assert start().stdout.readline() == "a\n"
    waiting = start(CUDA_VISIBLE_DEVICES="1")
    assert waiting.stderr.readline() == "waiting for the GPU: other jobs use them\n"
    # Another number for the same GPU, as in a cluster's job, that sees only one.
    assert start(CUDA_VISIBLE_DEVICES="0", devices="b").stderr.readline().startswith("waiting")


def test_processes_of_one_job_take_their_gpus_together_and_jobs_do_not_wait_in_a_circle(start):
    """Two jobs need three of four GPUs each: if they locked one by one, both might keep two forever."""
    jobs = [start("3", devices="a,b,c,d", program=LAUNCHER) for _ in range(2)]
    one = start(devices="a,b,c,d")
    mine = one.stdout.readline().strip()
    lines = []
    deadline = time.monotonic() + 60
    while len(lines) < 3:
        assert time.monotonic() < deadline
        for job in jobs:
            os.set_blocking(job.stdout.fileno(), False)
            lines += [(job, line.strip()) for line in job.stdout.readlines()]
        time.sleep(0.05)
    (winner,) = {job for job, _ in lines}
    (taken,) = {line for _, line in lines}  # the same in the same order for each process
    assert set(taken.split(",")) == set("abcd") - {mine}
    (other,) = set(jobs) - {winner}
    winner.stdin.close()  # ends its processes
    os.set_blocking(other.stdout.fileno(), True)
    assert {other.stdout.readline() for _ in range(3)} == {taken + "\n"}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Simulate three GPUs, of which this process has locked none."""
    monkeypatch.setenv(gpus.FAKE, "a,b,c")
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path / "locks"))
    monkeypatch.setattr(gpus, "_taken", [])
    monkeypatch.setattr(gpus, "_descriptors", held := [])
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["a", "b", "c"]),
        ("2,0", ["c", "a"]),
        ("", []),
        ("-1", []),
        ("1,7,0", ["b"]),
        ("1,1", ["b"]),
        ("b", ["b"]),
    ],
)
def test_visible_gpus_are_those_of_cuda(machine, wanted, found):
    if wanted is not None:
        machine.setenv(gpus.VISIBLE, wanted)
    assert gpus.visible() == found
    assert gpus.take() == found[:1]
    if found:
        assert os.environ[gpus.VISIBLE] == found[0]
        assert gpus.take() == found[:1], "a second call changes nothing"


def test_what_cannot_be_taken(machine, tmp_path):
    machine.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(HodorError, match="4 workers need a GPU each, but 3 are visible"):
        gpus.take()
    machine.delenv("LOCAL_WORLD_SIZE")
    (tmp_path / "file").touch()
    machine.setenv(gpus.FOLDER, str(tmp_path / "file" / "locks"))
    with pytest.raises(HodorError, match=f"file/locks: .*{gpus.FOLDER}"):
        gpus.take()
    machine.delenv(gpus.FAKE)
    machine.setattr(gpus, "_installed", list)
    assert gpus.take() == [] and gpus.VISIBLE not in os.environ


def test_the_list_of_the_driver():
    text = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  0: (UUID: MIG-33333333-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  1: (UUID: MIG-44444444-aaaa-bbbb-cccc-000000000000)
"""
    assert [id[:7] for id in gpus.parse_list(text)] == ["GPU-111", "MIG-333", "MIG-444"]
    assert gpus.parse_list("No devices were found\n") == []
