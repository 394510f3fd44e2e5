"""Jobs that run beside each other lock distinct GPUs. The devices are simulated, the processes and locks are real."""

import os
import select
import subprocess
import sys
import time

import pytest

from hodor import gpus
from tests.refused import refused

JOB = """
import sys
from hodor import gpus
print(",".join(gpus.take(int(sys.argv[1]))), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(root, tmp_path):
    """Return a function that starts a job on simulated GPUs; all end with the test."""
    begun: list[subprocess.Popen] = []

    def run(count: int = 1, devices: str = "a,b", **environment: str) -> subprocess.Popen:
        folders = {"HODOR_GPUS": devices, "HODOR_GPU_LOCKS": str(tmp_path / "locks"), "PYTHONPATH": str(root)}
        base = {name: value for name, value in os.environ.items() if name != gpus.VISIBLE}
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", JOB, str(count)],
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


def test_a_job_takes_all_of_its_gpus_or_none(start):
    """Two jobs need three of four GPUs each: if they kept what they got, both might keep two forever."""
    jobs = [start(3, devices="a,b,c,d") for _ in range(2)]
    mine = start(devices="a,b,c,d").stdout.readline().strip()
    found, _, _ = select.select([job.stdout for job in jobs], [], [], 60)
    (winner,) = [job for job in jobs if job.stdout in found]
    (other,) = [job for job in jobs if job is not winner]
    taken = winner.stdout.readline()
    assert set(taken.strip().split(",")) == set("abcd") - {mine}
    assert other.stderr.readline() == "waiting for 3 of 4 GPUs: other jobs use them\n"
    winner.kill()
    assert other.stdout.readline() == taken


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Simulate three GPUs, of which this process has locked none."""
    monkeypatch.setenv(gpus.FAKE, "a,b,c")
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path / "locks"))
    monkeypatch.setattr(gpus, "_taken", taken := {})
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    yield monkeypatch
    for descriptor in taken.values():
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
    refused("4 workers need a GPU each, but 3 are visible", gpus.take, 4)
    (tmp_path / "file").touch()
    machine.setenv(gpus.FOLDER, str(tmp_path / "file" / "locks"))
    refused(f"file/locks: .*{gpus.FOLDER}", gpus.take)
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
