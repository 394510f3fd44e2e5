"""Utilities of long steps: progress lines, free space, writing with checksums, locks, worker processes."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hodor.errors import HodorError


class Progress:
    """Counter that prints rate and remaining time to stderr, a plain line every few seconds.

    Args:
        label: first words of the line.
        total: expected amount, None if unknown.
        unit: "B" for bytes (printed as kB, MB, GB) or the name of what is counted.
        done: amount that existed before the start, left out of the rate.
    """

    EVERY_S = 5.0  # a step that ends sooner prints only its last line

    def __init__(self, label: str, total: int | None, unit: str = "B", done: int = 0):
        self.label, self.total, self.unit = label, total, unit
        self.count = self.first = done
        self.start = self.last = time.monotonic()

    def add(self, amount: int) -> None:
        self.count += amount
        if time.monotonic() - self.last >= self.EVERY_S:
            self.last = time.monotonic()
            self.show()

    def show(self) -> None:
        """Print the line, also at the end."""
        # One call with the line end: several threads may print at once.
        print(f"{self.line()}\n", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-3)
        rate = (self.count - self.first) / seconds
        done = self._amount(self.count)
        if self.total:
            done = f"{100 * self.count / self.total:.0f} %, {done} of {self._amount(self.total)}"
        left = self.total - self.count if self.total else 0
        under_way = self.count > 0 and left > 0 and rate > 0
        time_text = f"{duration(left / rate)} left" if under_way else duration(seconds)
        return f"{self.label}: {done}, {self._amount(rate)}/s, {time_text}"

    def _amount(self, amount: float) -> str:
        return format_bytes(amount) if self.unit == "B" else f"{amount:.0f} {self.unit}"


def format_bytes(amount: float) -> str:
    """Format a number of bytes: `1.2 MB`."""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def duration(seconds: float) -> str:
    """Format a duration: `4.5 s`, `12 min`, `3.1 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def require_room(folder: Path, needed: float, what: str) -> None:
    """Raise HodorError if the disk of `folder` has less than `needed` bytes free."""
    if needed > (free := shutil.disk_usage(folder).free):
        amounts = f"{format_bytes(free)} are free, {format_bytes(needed)} are needed"
        raise HodorError(f"{folder}: {amounts} for {what}; make room")


def write_blocks(blocks: Iterable[bytes], target: Path, progress: Progress) -> str:
    """Write a new file and make its folder; return the sha256 of what was written."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as writer:
        for block in blocks:
            writer.write(block)
            digest.update(block)
            progress.add(len(block))
    return digest.hexdigest()


def file_blocks(path: Path) -> Iterator[bytes]:
    """Read a file in blocks."""
    with open(path, "rb") as reader:
        while block := reader.read(1 << 20):
            yield block


def put_in_place(part: Path, out: Path) -> None:
    """Rename the folder `part` to `out`, which is replaced where it exists."""
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(part, out)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold a lock on a folder, or on a file, which is created if absent; the lock ends with its process.

    If another process holds it, wait for it, or raise HodorError with the message `busy` if given.
    """
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise HodorError(busy) from error
        yield
    finally:
        os.close(descriptor)


def in_processes(call: Callable[..., Any], tasks: Iterable[tuple], jobs: int) -> Iterator[Any]:
    """Yield `call(*task)` of every task in order, from `jobs` processes, few at a time; HodorError if one is killed."""
    if jobs < 2:
        yield from (call(*task) for task in tasks)
        return
    waiting: deque = deque()
    # Not fork: locks of the caller's threads would stay locked in a forked child.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        for task in tasks:
            waiting.append(pool.submit(call, *task))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise HodorError("a process was killed (out of memory?); give it fewer `jobs`") from error
    finally:
        pool.shutdown(cancel_futures=True)
