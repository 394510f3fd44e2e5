"""Whether a file is the whole archive that is expected: by size and checksums, and by its content alone."""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from pathlib import Path

from hodor.errors import HodorError
from hodor.provenance import sha256_file

HEAD = 64
"""Bytes of a file's beginning that `is_web_page` looks at."""

_BLOCK = 1 << 20
_GZIP = (".tgz", ".tar.gz")
_ERRORS = (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, EOFError, RuntimeError, zlib.error)


def is_web_page(head: bytes) -> bool:
    """Whether a file that should be an archive or a checkpoint begins like a page of HTML."""
    return head.lstrip().lower().startswith((b"<!doctype", b"<html"))


def is_whole(path: Path, name: str, *, thorough: bool = False) -> bool | None:
    """Looks whether a file is whole.

    Args:
        path: the file.
        name: the archive's name, whose ending says what it must be.
        thorough: read all members of a zip archive and compare their checksums; without it the list of members at its
            end, which a truncated one lost, is enough. A tar has no checksums; a gzip is always read to its end.

    Returns:
        False for a damaged or truncated file; None where the format does not tell (old checkpoints).
    """
    try:
        if name.endswith(".zip") or (name.endswith(".pth") and _begins_like_zip(path)):
            with zipfile.ZipFile(path) as archive:
                return bool(archive.infolist()) and not (thorough and archive.testzip())
        if name.endswith(".tar"):
            return tarfile.is_tarfile(path) and _ends_empty(path)
        if name.endswith(_GZIP):
            with gzip.open(path) as reader:
                some = bool(reader.read(1))
                while reader.read(_BLOCK):
                    pass
            return some
    except _ERRORS:
        return False
    return None


def damage(
    part: Path,
    name: str,
    size: int | None,
    sha256: str | None,
    md5: str | None,
    *,
    joined: bool,
    endless: bool,
) -> tuple[str | None, str]:
    """What is wrong with a downloaded file, or None, and its sha256.

    Args:
        part: the file, name: what it will be called.
        size, sha256, md5: what it must have, None where unknown.
        joined: it was put together from several tries, so that only its content tells whether they belong together.
        endless: the server announced no length.

    Raises:
        HodorError: nothing tells whether the file is whole.
    """
    length = part.stat().st_size
    if size is not None and length != size:
        return f"{length} bytes arrived where {size} are expected", ""
    digest = sha256_file(part)
    if sha256 is not None and digest != sha256:
        return f"sha256 {digest} where {sha256} is expected", digest
    if md5 is not None and (found := md5_file(part)) != md5:
        return f"md5 {found} where {md5} is expected", digest
    if sha256 or md5:
        return None, digest
    whole = is_whole(part, name, thorough=joined)
    if whole is False:
        return "what arrived is not a whole " + ("zip archive" if name.endswith(".zip") else "file"), digest
    if whole is None and endless and size is None:
        raise HodorError(
            f"{part}: the server announced no length and no checksum is known, so that nothing tells whether the file "
            f"is whole; compare it with its source and rename it to {name}, or give a mirror"
        )
    return None, digest


def md5_file(path: Path) -> str:
    """Hexadecimal md5 of a file's bytes, for publishers who state no other checksum."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _begins_like_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _ends_empty(path: Path) -> bool:
    """A tar is made of blocks of 512 bytes and ends with empty ones, which one that is cut off lacks."""
    with open(path, "rb") as file:
        start = file.seek(-512, 2)
        return start % 512 == 0 and not any(file.read())
