"""Members of tar archives (PASCAL VOC, SBD), with the checks that `extract` makes for zip archives."""

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hodor.errors import HodorError

ENDINGS = (".tar", ".tgz", ".tar.gz")
_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError)


@dataclass(frozen=True)
class TarMember:
    """A file in an archive: `name`, size in bytes, and its entry. A tar has no checksums."""

    name: str
    file_size: int
    entry: tarfile.TarInfo


def is_tar(path: Path) -> bool:
    """Whether an archive is a tar by its name."""
    return path.name.endswith(ENDINGS)


def list_members(path: Path) -> list[TarMember]:
    """All files of an archive in its order, folders left out.

    Raises:
        HodorError: a damaged or missing archive, a link or a device in it.
    """
    try:
        with tarfile.open(path) as archive:
            entries = archive.getmembers()
            end = archive.offset
        # A tar ends with empty blocks; one cut off between two members lacks them and reads without an error.
        if not entries or (path.suffix == ".tar" and path.stat().st_size <= end):
            raise tarfile.ReadError("unexpected end of data")
    except FileNotFoundError:
        raise HodorError(f"{path}: no such archive; fetch it again") from None
    except _ERRORS as error:
        raise HodorError(f"{path}: damaged archive ({error}); delete it and fetch it again") from error
    for entry in entries:
        if not (entry.isfile() or entry.isdir()):
            raise HodorError(f"{path}: member {entry.name!r} is a link or a device; do not use this archive")
    return [TarMember(str(PurePosixPath(e.name)), e.size, e) for e in entries if e.isfile()]


def blocks(archive: tarfile.TarFile, member: TarMember, path: Path, size: int) -> Iterator[bytes]:
    """The content of a member in blocks of `size` bytes; HodorError where the archive is damaged."""
    try:
        with archive.extractfile(member.entry) as reader:
            while block := reader.read(size):
                yield block
    except _ERRORS as error:
        message = f"{path}: damaged archive (member {member.name}: {error}); delete it and fetch it again"
        raise HodorError(message) from error
