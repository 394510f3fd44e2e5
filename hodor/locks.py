"""Locks of the operating system, which end with their process.

Snakemake locks its working directory with files. If it is killed they stay, and the next call asks for `--unlock`. Here
every Snakemake and every step also holds a lock of the operating system: if no other process holds one, the files are
stale.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hodor.errors import HodorError

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


@contextlib.contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold a lock on a folder, or on a file, which is created if absent.

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
