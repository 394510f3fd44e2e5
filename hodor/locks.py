"""Distinguish a running workflow from one that was killed.

Snakemake marks a folder as in use by files, which a killed Snakemake leaves behind: the next call stops and asks for
`--unlock`. Here every Snakemake and every step in a folder holds a lock of the operating system, which ends with its
process. If nobody holds one, the files are stale and are removed.
"""

import fcntl
import os
from pathlib import Path

_FILE = Path("runs") / ".lock"
_held: list[int] = []


def hold() -> None:
    """Hold a shared lock of the working directory until this process ends."""
    if not _held:
        _FILE.parent.mkdir(exist_ok=True)
        _held.append(os.open(_FILE, os.O_RDWR | os.O_CREAT, 0o666))
        fcntl.flock(_held[0], fcntl.LOCK_SH)


def remove_left_over(folder: Path = Path(".snakemake") / "locks") -> int:
    """Remove Snakemake's marks if no process but this one holds the lock; return the number of removed files."""
    try:
        fcntl.flock(_held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        marks = list(folder.glob("*.lock"))
        for mark in marks:
            mark.unlink(missing_ok=True)
        return len(marks)
    except BlockingIOError:
        return 0  # another process works here
    finally:
        # Also after a failure: the attempt to upgrade a lock releases it.
        fcntl.flock(_held[0], fcntl.LOCK_SH)
