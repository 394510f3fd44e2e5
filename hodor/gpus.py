"""Which GPU a process computes on: jobs that run beside each other take distinct ones.

Snakemake counts GPUs (`--resources gpu=2`) and never says which, so that jobs which start together would all choose the
first. Here a job takes a GPU by a lock of the operating system, which its process holds until it ends and which dies
with it (also by `kill -9`), and hides the others from CUDA. Only what CUDA_VISIBLE_DEVICES shows is taken, as set by a
person or by a cluster.

GPUs are known by their UUIDs: within a cluster's job every first GPU is number 0. Jobs of several users of a machine
share the locks. All that a job needs is taken at once or not at all, so that jobs never wait for each other in a circle.
Processes of one job (`torchrun`: LOCAL_WORLD_SIZE of them, started by one parent) take GPUs together: the first to come
takes as many as there are processes, the others join it.
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
from collections.abc import Iterator
from pathlib import Path

from hodor.errors import HodorError

FAKE = "HODOR_GPUS"
"""Environment variable: ids, separated by commas, that are taken to be the machine's GPUs (for tests)."""

FOLDER = "HODOR_GPU_LOCKS"
"""Environment variable: folder of the locks instead of `hodor-gpus` in the folder for temporary files."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

_taken: list[str] = []
_descriptors: list[int] = []  # open, and so locked, until the process ends
_PAUSE_S = 0.5


def take(*, mend: str = "") -> list[str]:
    """Takes the GPUs that this process computes on and sets CUDA_VISIBLE_DEVICES to them; call it before CUDA starts.

    One GPU, or under `torchrun` as many as it started processes here, in the same order for each of them, so that
    LOCAL_RANK says which is its own. Waits, and says so, while there are not enough free ones. A second call changes
    nothing.

    Args:
        mend: what the message of a wait adds.

    Returns:
        Ids of the GPUs; none where no GPU is found (whoever needs one says so).

    Raises:
        HodorError: there are fewer GPUs than processes, or the locks cannot be made.
    """
    if _taken:
        return list(_taken)
    ids = visible()
    count = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if not ids:
        return []
    if count > len(ids):
        raise HodorError(f"{count} processes want a GPU each, and {len(ids)} can be seen: start {len(ids)} processes")
    try:
        chosen = _wait_for(ids, count, mend)
    except OSError as error:
        raise HodorError(
            f"{error.filename or _folder()}: GPUs cannot be locked there ({error.strerror}); name another folder with "
            f"the environment variable {FOLDER}"
        ) from error
    _taken.extend(chosen)
    os.environ[VISIBLE] = ",".join(chosen)
    return chosen


def visible() -> list[str]:
    """Ids of the GPUs that CUDA_VISIBLE_DEVICES shows, of all if it is not set; [] if there are none.

    A UUID where the driver tells (of a part, on a GPU that is cut into parts by MIG), else what the variable holds.
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
                break  # as CUDA does: what follows an entry that does not exist is not seen
            found.append(known[int(entry)])
        elif entry.startswith("-"):
            break
        else:  # a UUID may be shortened
            found.append(next((id for id in known if id.startswith(entry)), entry))
    return list(dict.fromkeys(found))


def _installed() -> list[str]:
    """UUIDs of the machine's GPUs in the order of their places on the bus, by NVIDIA's tool; [] without it."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_list(done.stdout) if done.returncode == 0 else []


def parse_list(text: str) -> list[str]:
    """UUIDs in the output of `nvidia-smi -L`; for a GPU that MIG cuts into parts those of its parts."""
    found: list[list[str]] = []
    for line in text.splitlines():
        uuid = re.search(r"\(UUID: ([^)\s]+)\)", line)
        if uuid and line.startswith("GPU "):
            found.append([uuid[1]])
        elif uuid and found:
            found[-1].append(uuid[1])
    return [id for gpu in found for id in (gpu[1:] or gpu)]


def _wait_for(ids: list[str], count: int, mend: str) -> list[str]:
    folder, told = _folder(), False
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, 0o1777)  # whoever uses this machine
    claim = folder / _job_name() if count > 1 else None
    while True:
        with _gate(folder):
            chosen = _join(folder, claim) if claim else None
            chosen = chosen or _try(folder, ids, count, claim)
        if chosen:
            return chosen
        if not told:
            free = f"{count} of {len(ids)} GPUs" if count > 1 or len(ids) > 1 else "the GPU"
            print(f"waiting for {free}: other jobs hold them{mend}", file=sys.stderr, flush=True)
            told = True
        time.sleep(_PAUSE_S)


def _try(folder: Path, ids: list[str], count: int, claim: Path | None) -> list[str] | None:
    """Locks `count` of the GPUs; None, and no lock, if fewer are free."""
    chosen: dict[str, int] = {}
    for id in ids:
        descriptor = _open(folder / _lock_name(id))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        chosen[id] = descriptor
        if len(chosen) == count:
            break
    if len(chosen) < count:
        for descriptor in chosen.values():
            os.close(descriptor)
        return None
    # Shared from now on, for the other processes of the job; nobody takes it meanwhile, because we hold the gate.
    for descriptor in chosen.values():
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    _descriptors.extend(chosen.values())
    if claim:
        _remove_dead(folder)
        descriptor = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        os.write(descriptor, json.dumps(list(chosen)).encode())
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _descriptors.append(descriptor)
    return list(chosen)


def _join(folder: Path, claim: Path) -> list[str] | None:
    """Shares the GPUs that another process of this job has taken; None if none has."""
    _remove_dead(folder)
    try:
        descriptor = _open(claim, make=False)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    chosen = json.loads(os.read(descriptor, 1 << 16))
    _descriptors.append(descriptor)
    for id in chosen:
        _descriptors.append(_open(folder / _lock_name(id)))
        fcntl.flock(_descriptors[-1], fcntl.LOCK_SH)
    return chosen


def _remove_dead(folder: Path) -> None:
    """Removes what jobs have left that are no more: nobody holds their files."""
    for claim in folder.glob("job-*"):
        with contextlib.suppress(OSError):  # another user's, or alive
            descriptor = _open(claim, make=False)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                claim.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _gate(folder: Path) -> Iterator[None]:
    """Only one process at a time looks and takes."""
    descriptor = _open(folder / "gate")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, make: bool = True) -> int:
    """A file to lock. It may be another user's, so that it is opened for reading alone, and made where it is not there."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        if not make:
            raise
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _folder() -> Path:
    return Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "hodor-gpus")


def _lock_name(id: str) -> str:
    return "gpu-" + re.sub(r"[^A-Za-z0-9-]", "_", id)


def _job_name() -> str:
    """Name for the processes of one job: that of their parent, with the time of its start, for numbers come again."""
    parent = os.getppid()
    try:
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        began = "0"
    return f"job-{parent}-{began}"
