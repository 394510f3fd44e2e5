"""Locks that assign GPUs to concurrent jobs.

Snakemake counts GPUs (`--resources gpu=2`) but does not assign them, so that every job would use the first one. Here a
job locks GPUs among those of CUDA_VISIBLE_DEVICES and hides the others from CUDA. The locks are the operating system's,
which end with the process, even by `kill -9`. They are named by UUID, because every cluster job counts its GPUs from 0,
and shared by all users of a machine. Of the workers of one job (`torchrun`) local rank 0 locks a GPU for each, all or
none, and the others read its choice from a file.
"""

import contextlib
import fcntl
import json
import os
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

_taken: list[str] = []
_descriptors: list[int] = []  # open, and so locked, until the process ends
_PAUSE_S = 0.5


def take(*, advice: str = "") -> list[str]:
    """Lock GPUs for this process and set CUDA_VISIBLE_DEVICES to them; call it before CUDA starts.

    Locks one GPU, or under `torchrun` one for each worker on this machine, in the same order for all workers. Waits until
    enough GPUs are free. A second call changes nothing.

    Args:
        advice: end of the message that is printed while waiting.

    Returns:
        Ids of the GPUs; an empty list without a GPU.

    Raises:
        HodorError: fewer GPUs than workers, or a folder that cannot hold locks.
    """
    if _taken or not (ids := visible()):
        return list(_taken)
    count, rank = (
        int(os.environ.get(name) or default) for name, default in (("LOCAL_WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if count > len(ids):
        raise HodorError(f"{count} workers need a GPU each, but {len(ids)} are visible; set `processes` to {len(ids)}")
    folder, waited = Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "hodor-gpus"), False
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o1777)  # for all users of this machine
        while not (chosen := _lock(folder, ids, count) if rank == 0 else _choice_of_first(folder)):
            if not waited and rank == 0:
                free = f"{count} of {len(ids)} GPUs" if len(ids) > 1 else "the GPU"
                print(f"waiting for {free}: other jobs use them{advice}", file=sys.stderr, flush=True)
            waited = True
            time.sleep(_PAUSE_S)
    except OSError as error:
        raise HodorError(
            f"{error.filename or folder}: cannot lock GPUs there ({error.strerror}); set the environment variable "
            f"{FOLDER} to another folder"
        ) from error
    _taken.extend(chosen)
    os.environ[VISIBLE] = ",".join(chosen)
    return chosen


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


def _lock(folder: Path, ids: list[str], count: int) -> list[str]:
    """Lock `count` GPUs and publish them to the other workers; if fewer are free, lock none and return []."""
    gate, chosen = _open(folder / "gate"), {}
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # two jobs that each lock half of their GPUs would wait forever
        for id in ids:
            descriptor = _open(folder / ("gpu-" + re.sub(r"[^A-Za-z0-9-]", "_", id)))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            chosen[id] = descriptor
            if len(chosen) == count:
                _descriptors.extend(chosen.values())
                if count > 1:
                    _publish(folder, list(chosen))
                return list(chosen)
        for descriptor in chosen.values():
            os.close(descriptor)
        return []
    finally:
        os.close(gate)


def _publish(folder: Path, chosen: list[str]) -> None:
    for old in folder.glob("job-*"):
        if not Path("/proc", old.name.split("-")[1]).exists():  # the job has ended
            with contextlib.suppress(OSError):  # another user's
                old.unlink()
    path = folder / _job_name()
    part = path.with_name(f"part-{path.name}")
    part.write_text(json.dumps(chosen))
    part.replace(path)


def _choice_of_first(folder: Path) -> list[str]:
    try:
        return json.loads((folder / _job_name()).read_text())
    except FileNotFoundError:
        return []


def _job_name() -> str:
    """Return a name that the workers of one job share: process id and start time of their parent."""
    parent = os.getppid()
    try:
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        began = "0"
    return f"job-{parent}-{began}"


def _open(path: Path) -> int:
    """Open a file to lock it, for reading only because it may be another user's."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
