"""Packs on the local disk of the machine that trains: copied once, checked, and used again.

A training reads its packs many times over and in random order, which is slow on the shared disk of a cluster. Where the
setting `scratch` names a folder, a training copies its packs there first. Jobs on one machine share a copy; a complete one
is used again by the next job, however it ended. Without room the packs are read from their own folder.
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

FOLDER = "hodor-packs"


def staged(data: Path, packs: Sequence[str], scratch: str) -> Path:
    """Copy packs to a local disk and return a folder that holds what `data` does, with those copies.

    Args:
        data: folder of the data sets, packs in its folder `packed`.
        packs: names of packs.
        scratch: a folder, made where absent; environment variables in it (`$SLURM_TMPDIR`) are expanded here.

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
    folder, packed = folder.absolute() / FOLDER, data.absolute() / "packed"
    digests = {name: sha256_file(packed / f"{name}.json") for name in packs}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        links = {Path(path.name): path for path in data.absolute().iterdir() if path.name != "packed"}
        links |= {Path("packed") / path.name: path for path in packed.iterdir()}
        for name, digest in digests.items():
            with _alone(folder / f"{digest}.lock", name):
                if not _copy(packed / name, packed / f"{name}.json", folder / digest):
                    return data
            links[Path("packed") / name] = folder / digest
        view = folder / f"data-{sha256_json([str(data.absolute()), digests])[:16]}"
        for name, target in links.items():
            _link(view / name, target)
        return view
    except OSError as error:
        where = error.filename or folder
        raise HodorError(f"scratch: {where}: {error.strerror}; name another folder, or none (scratch=null)") from error


def _copy(pack: Path, manifest: Path, target: Path) -> bool:
    """Copy a pack unless a complete copy exists; return False, and leave nothing, where the disk has no room."""
    files = read_json(manifest)["files"]
    with contextlib.suppress(OSError):
        if all((target / name).stat().st_size == entry["size"] for name, entry in files.items()):
            return True
    total, free = sum(entry["size"] for entry in files.values()), shutil.disk_usage(target.parent).free
    if total > free:
        return _no_room(target, f"{format_bytes(free)} are free, {pack.name} takes {format_bytes(total)}", pack)
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
        return _no_room(target, error.strerror, pack)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    progress.close()
    return True


def _no_room(target: Path, reason: str, pack: Path) -> bool:
    print(f"scratch: {target.parent}: {reason}; it is read from {pack}", file=sys.stderr, flush=True)
    return False


def _copy_file(source: Path, target: Path, progress: Progress) -> str:
    """Copy a file; return the sha256 of what was written."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(1 << 22):
            writer.write(block)
            digest.update(block)
            progress.add(len(block))
    return digest.hexdigest()


def _link(link: Path, target: Path) -> None:
    """Make a link, or correct it; renamed into its place, because another job may read there."""
    with contextlib.suppress(FileNotFoundError):
        if os.readlink(link) == str(target):
            return
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(link)


@contextlib.contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock, so that one process of this machine copies a pack and others wait for its copy."""
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
