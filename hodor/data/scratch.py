"""Packs of training data on the disk of the machine that trains: copied once, checked, and used again.

A training reads its packs many times over and in random order, which a shared disk of a cluster bears badly. Where the
setting `scratch` names a folder, a training copies its packs there first. Jobs on one machine share a copy; one that is
whole is used again by the next job, however it ended. Nothing depends on it: without room the packs are read where
they lie.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hodor.data.progress import Progress, format_bytes
from hodor.errors import PLACE_ERRORS, HodorError
from hodor.provenance import read_json, sha256_file, sha256_json

_BLOCK = 1 << 22
FOLDER = "hodor-packs"


def staged(data: Path, packs: Sequence[str], scratch: str) -> Path:
    """A folder that holds what `data` does, its packs of these names as copies in `scratch`.

    Args:
        data: folder of the data sets, packs in its folder `packed`.
        packs: names of packs.
        scratch: a folder, made where absent; environment variables in it (`$SLURM_TMPDIR`) are filled in here.

    Returns:
        A folder of links in `scratch`; `data` itself where there is no pack, or no room.

    Raises:
        HodorError: the folder cannot be used, or a pack differs from its manifest.
    """
    if not packs:
        return data
    folder = Path(os.path.expandvars(scratch))
    if "$" in str(folder):
        raise HodorError(
            f"scratch: '{scratch}' holds a variable that is not set on this machine; set it or name a folder"
        )
    folder = folder.absolute() / FOLDER
    digests = {name: sha256_file(data / "packed" / f"{name}.json") for name in packs}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copies = {}
        for name, digest in digests.items():
            with _alone(folder / f"{digest}.lock", name):
                copies[name] = _copy(data / "packed" / name, data / "packed" / f"{name}.json", folder / digest)
            if copies[name] is None:
                return data
        return _links(data, copies, folder / f"data-{sha256_json([str(data.absolute()), digests])[:16]}")
    except OSError as error:
        where = error.filename or folder
        raise HodorError(f"scratch: {where}: {error.strerror}; name another folder, or none (scratch=null)") from error


def _copy(pack: Path, manifest: Path, target: Path) -> Path | None:
    """The copy of a pack, made or found; None, and nothing left, where the disk has no room."""
    files = read_json(manifest)["files"]
    if target.is_dir() and all(_size(target / name) == entry["size"] for name, entry in files.items()):
        return target
    total = sum(entry["size"] for entry in files.values())
    free = shutil.disk_usage(target.parent).free
    if total > free:
        print(
            f"scratch: {target.parent}: {format_bytes(free)} are free, {pack.name} takes {format_bytes(total)}: it is read "
            f"where it lies, {pack}",
            file=sys.stderr,
            flush=True,
        )
        return None
    part = target.with_name(target.name + ".part")
    for left in (part, target):
        shutil.rmtree(left, ignore_errors=True)
    progress = Progress(f"scratch/{pack.name}", total)
    try:
        for name, entry in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            if _copy_file(pack / name, part / name, progress) != entry["sha256"]:
                raise HodorError(
                    f"{pack / name}: differs from {manifest}; pack the data set again with: "
                    f"snakemake --cores all --force -- {manifest}"
                )
        part.rename(target)
    except OSError as error:
        if error.errno not in PLACE_ERRORS[:2]:
            raise
        print(f"scratch: {target.parent}: {error.strerror}: {pack} is read where it lies", file=sys.stderr, flush=True)
        return None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    progress.close()
    return target


def _copy_file(source: Path, target: Path, progress: Progress) -> str:
    """Copies a file; sha256 of what was written."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(_BLOCK):
            writer.write(block)
            digest.update(block)
            progress.add(len(block))
    return digest.hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _links(data: Path, copies: dict[str, Path], view: Path) -> Path:
    """A folder of links: to what `data` holds, and to the copies."""
    wanted = {Path(path.name): path for path in data.absolute().iterdir() if path.name != "packed"}
    wanted |= {Path("packed") / path.name: path for path in (data.absolute() / "packed").iterdir()}
    wanted |= {Path("packed") / name: copy for name, copy in copies.items()}
    for name, path in wanted.items():
        link = view / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(link) == str(path):
                continue
        # Renamed into its place: another job may read there.
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.symlink_to(path)
        fresh.replace(link)
    return view


@contextlib.contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Only one process of this machine copies a pack; others wait for its copy."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"scratch: another job copies {name}, waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
