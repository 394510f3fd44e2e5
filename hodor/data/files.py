"""Write large files and folders: free space, checksums, replacement as a whole."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from hodor.data.progress import Progress, format_bytes
from hodor.errors import HodorError


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
