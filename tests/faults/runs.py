"""Workflows that are started, killed with all that they started, and asked which jobs they had done."""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tests.checkouts import Checkout

LIMIT_S = 300


class Run:
    """A command that runs in a checkout, in a session of its own; its output goes to a file."""

    def __init__(self, checkout: Checkout, *command: str) -> None:
        self.log = checkout.path / "run.txt"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=checkout.path,
                env=checkout.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait_for(self, text: str, times: int = 1, limit_s: float = LIMIT_S) -> bool:
        """Wait until a text was printed so often; False if the command ended before."""
        until = time.monotonic() + limit_s
        while self.output.count(text) < times:
            if self.ended:
                return self.output.count(text) >= times
            assert time.monotonic() < until, self.output
            time.sleep(0.05)
        return True

    def kill(self) -> None:
        """SIGKILL for the command and for every process that it started, however deep, in whatever session."""
        family = set(_family(self.process.pid))
        self.process.kill()  # first: it must not start anything in place of what dies
        until = time.monotonic() + 10
        while True:
            alive = _processes().items()
            left = [pid for pid, (parent, session) in alive if session == self.process.pid or {pid, parent} & family]
            if not left:
                break
            assert time.monotonic() < until, f"processes {left} do not die"
            family.update(left)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.process.wait()


def _processes() -> dict[int, tuple[int, int]]:
    """Process -> (parent, session), of those that are no zombies."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, _, session = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            except OSError:
                continue
            if state not in "ZX":
                found[int(folder.name)] = (int(parent), int(session))
    return found


def _family(pid: int) -> list[int]:
    """A process and its descendants, parents first."""
    processes, family = _processes(), [pid]
    for member in family:
        family += [child for child, (parent, _) in processes.items() if parent == member]
    return family


def jobs(output: str) -> tuple[list[str], list[str]]:
    """Logs of the jobs that Snakemake started, and of those that it recorded as done, by what it printed.

    A job is known by its log, which no other job has. Snakemake says `Finished` after it has written its metadata.
    """
    started: list[str] = []
    done: list[str] = []
    names: dict[str, str] = {}
    log = ""
    for line in output.splitlines():
        if found := re.fullmatch(r"    log: (\S+).*", line):
            log = found[1]
        elif found := re.fullmatch(r"    jobid: (\d+)", line):
            if log:
                names[found[1]] = log
                started.append(log)
            log = ""
        elif found := re.match(r"Finished jobid: (\d+) ", line):
            if found[1] in names:
                done.append(names[found[1]])
    return started, done
