"""Freed memory stays with the process: the next use of it costs no page faults."""

import platform
import resource
import subprocess
import sys

import pytest

from hodor.allocator import keep_freed_memory

CODE = """
import resource, sys, torch
from hodor.device import prepare_device
if sys.argv[1] == "keep":
    prepare_device("cpu", 1)
def use():
    return torch.ones(20 * 2**20).sum().item()  # 80 MiB
for _ in range(10):  # until small things lie where they do not cut it
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, way], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_kept_memory_is_not_cleared_again():
    pages = 80 * 2**20 // resource.getpagesize()
    assert faults("keep") < pages / 10 < pages < faults("leave")


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory.cache_clear()
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
