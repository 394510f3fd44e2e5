"""Locks that assign GPUs to concurrent jobs.

Snakemake counts GPUs (`--resources gpu=2`) but does not assign them, so that every job would use the first one. Here a
job locks GPUs among those of CUDA_VISIBLE_DEVICES and hides the others from CUDA, in itself and in the workers that it
starts. The locks are the operating system's, which end with the process, even by `kill -9`. They are named by UUID,
because every cluster job counts its GPUs from 0, and shared by all users of a machine.
"""

import contextlib
import fcntl
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hodor.errors import HodorError

FAKE = "HODOR_GPUS"
"""Environment variable for tests: ids, separated by commas, instead of the machine's GPUs."""

FOLDER = "HODOR_GPU_LOCKS"
"""Environment variable: folder of the locks instead of `hodor-gpus` in the folder for temporary files."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

_taken: dict[str, int] = {}  # id -> descriptor, which is open, and so locked, until the process ends
_PAUSE_S = (0.3, 0.7)


def take(count: int = 1, *, advice: str = "") -> list[str]:
    """Lock GPUs for this process and set CUDA_VISIBLE_DEVICES to them; call it before CUDA starts.

    Waits until enough GPUs are free. A second call changes nothing.

    Args:
        count: number of GPUs.
        advice: end of the message that is printed while waiting.

    Returns:
        Ids of the GPUs; an empty list without a GPU.

    Raises:
        HodorError: fewer visible GPUs than `count`, or a folder that cannot hold locks.
    """
    if _taken or not (ids := visible()):
        return list(_taken)
    if count > len(ids):
        raise HodorError(f"{count} workers need a GPU each, but {len(ids)} are visible; set `processes` to {len(ids)}")
    folder, waited = Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "hodor-gpus"), False
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o1777)  # for all users of this machine
        while not (locked := _lock(folder, ids, count)):
            if not waited:
                free = f"{count} of {len(ids)} GPUs" if len(ids) > 1 else "the GPU"
                print(f"waiting for {free}: other jobs use them{advice}", file=sys.stderr, flush=True)
            waited = True
            time.sleep(random.uniform(*_PAUSE_S))  # two jobs that try in step could disturb each other for long
    except OSError as error:
        raise HodorError(
            f"{error.filename or folder}: cannot lock GPUs there ({error.strerror}); set the environment variable "
            f"{FOLDER} to another folder"
        ) from error
    _taken.update(locked)
    os.environ[VISIBLE] = ",".join(locked)
    return list(locked)


def visible() -> list[str]:
    """Return the ids of the GPUs in CUDA_VISIBLE_DEVICES, or of all GPUs if it is not set.

    An id is the UUID of a GPU or, if it is partitioned, of a MIG device; without a driver, the entry of the variable.
    """
    fake = os.environ.get(FAKE)
    known = fake.split(",") if fake else _installed()
    wanted = os.environ.get(VISIBLE)
    if wanted is None:
        return known
    found = []
    for entry in filter(None, map(str.strip, wanted.split(","))):
        if re.fullmatch(r"\d+", entry) and known:
            if int(entry) >= len(known):
                break  # CUDA ignores all entries after one that does not exist
            found.append(known[int(entry)])
        elif entry.startswith("-"):
            break
        else:  # a UUID may be abbreviated
            found.append(next((id for id in known if id.startswith(entry)), entry))
    return list(dict.fromkeys(found))


def _installed() -> list[str]:
    """Return the UUIDs of the machine's GPUs in bus order, from nvidia-smi; [] without it."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_list(done.stdout) if done.returncode == 0 else []


def parse_list(text: str) -> list[str]:
    """Return the UUIDs in the output of `nvidia-smi -L`; of a partitioned GPU those of its MIG devices."""
    found: list[list[str]] = []
    for line in text.splitlines():
        uuid = re.search(r"\(UUID: ([^)\s]+)\)", line)
        if uuid and line.startswith("GPU "):
            found.append([uuid[1]])
        elif uuid and found:
            found[-1].append(uuid[1])
    return [id for gpu in found for id in (gpu[1:] or gpu)]


def _lock(folder: Path, ids: list[str], count: int) -> dict[str, int]:
    """Lock `count` GPUs and return id -> open descriptor; if fewer are free, lock none."""
    locked: dict[str, int] = {}
    for id in ids:
        descriptor = _open(folder / ("gpu-" + re.sub(r"[^A-Za-z0-9-]", "_", id)))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        locked[id] = descriptor
        if len(locked) == count:
            return locked
    for descriptor in locked.values():  # two jobs that each kept half of their GPUs would wait forever
        os.close(descriptor)
    return {}


def _open(path: Path) -> int:
    """Open a file to lock it, for reading only because it may be another user's."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
