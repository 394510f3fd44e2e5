"""Remove the lock files of a Snakemake that was killed.

Snakemake locks its working directory with files. If it is killed they stay, and the next call asks for `--unlock`. Here
every Snakemake and every step also holds a lock of the operating system, which ends with its process: if no other
process holds one, the files are stale.
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
    """Remove Snakemake's lock files if no other process holds the lock; return their number."""
    try:
        fcntl.flock(_held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        stale = list(folder.glob("*.lock"))
        for file in stale:
            file.unlink(missing_ok=True)
        return len(stale)
    except BlockingIOError:
        return 0
    finally:
        # After a failure too, because trying to upgrade a lock releases it.
        fcntl.flock(_held[0], fcntl.LOCK_SH)
