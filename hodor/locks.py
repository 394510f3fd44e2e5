"""Telling a workflow that runs from one that was killed.

Snakemake marks a folder as in use by files, which a killed Snakemake leaves behind: the next call stops and asks for
`--unlock`. Here every Snakemake and every step that works in a folder holds a lock of the operating system, which
dies with its process. Where none is held the files are left over, and are removed.
"""

import fcntl
import os
from pathlib import Path

_FILE = Path("runs") / ".lock"
_held: list[int] = []


def hold() -> None:
    """Holds the lock of the working directory, beside others, until this process ends."""
    if not _held:
        _FILE.parent.mkdir(exist_ok=True)
        _held.append(os.open(_FILE, os.O_RDWR | os.O_CREAT, 0o666))
        fcntl.flock(_held[0], fcntl.LOCK_SH)


def remove_left_over(folder: Path = Path(".snakemake") / "locks") -> int:
    """Removes Snakemake's marks if no other process holds the lock, which this one must; returns how many."""
    try:
        fcntl.flock(_held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        marks = list(folder.glob("*.lock"))
        for mark in marks:
            mark.unlink(missing_ok=True)
        return len(marks)
    except BlockingIOError:
        return 0  # somebody works here
    finally:
        # Also after a failure: an attempt to get more loses what was held.
        fcntl.flock(_held[0], fcntl.LOCK_SH)
