"""Formats of archives and checkpoints: their first bytes, their members, their end.

`zipfile` and `tarfile` raise many kinds of errors on damaged or hostile files, and some headers of a tar make `tarfile`
read without bound; here each of them is one `HodorError`.
"""

import contextlib
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hodor.errors import HodorError

HEAD = 512  # number of first bytes that `wrong_head` needs
_TAR_MODES = {".tar": "r:", ".tgz": "r:gz", ".tar.gz": "r:gz"}
_ZIP = b"PK\3\4"
_GZIP = b"\x1f\x8b"
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_HEADS = {".zip": (_ZIP,), ".tgz": (_GZIP,), ".tar.gz": (_GZIP,), ".pth": (_ZIP, *_PICKLES)}
_CONTENTS = (
    (rb"$", "nothing"),
    (rb"\s*<(!doctype html|html|head)", "a web page"),
    (rb"\s*<", "XML"),
    (rb"\s*[\[{]", "JSON"),
    (rb"PK", "a zip archive"),
    (rb"\x1f\x8b", "gzip"),
    (rb"[\s\x20-\x7e]{16}", "text"),
    (rb"", "another kind of file"),
)
# Records of a tar for long names or pax attributes, which hold a path or a few numbers, and their greatest size.
_RECORDS, _LONGEST_RECORD = b"xgXLK", 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Member(NamedTuple):
    """A file in an archive. `name`: with forward slashes; `crc`: None in tars, which have no checksums of files."""

    name: str
    size: int
    crc: int | None
    entry: zipfile.ZipInfo | tarfile.TarInfo


def wrong_head(head: bytes, name: str) -> str | None:
    """Return what is wrong with the first bytes of a file for an archive or checkpoint of that name, or None."""
    heads = _HEADS.get(_ending(name))
    if heads is None and _ending(name) != ".tar":
        return None
    if head.startswith(heads) if heads else _is_tar_header(head):
        return None
    content = next(text for pattern, text in _CONTENTS if re.match(pattern, head, re.IGNORECASE))
    return f"holds {content} where a {_ending(name)} file is expected"


def find_damage(path: Path, name: str, *, thorough: bool = False) -> str | None:
    """Check, from its content alone, whether a file is a complete archive of the format that its name implies.

    Args:
        path: the file.
        name: the archive's name, whose ending determines the format.
        thorough: compare the checksums of all members of a zip archive, not only read the list at its end, which a
            truncated one lost. A tar has no checksums; a gzip is always read to its end.

    Returns:
        What is wrong, or None; a checkpoint that is no zip may still be truncated (`shows_its_end`).
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if fault := wrong_head(head, name):
        return fault
    try:
        with _opened(path, name, head) as archive:
            if isinstance(archive, zipfile.ZipFile):
                if not archive.infolist():
                    return "an archive without members"
                if thorough and (broken := archive.testzip()):
                    return f"damaged (member {broken})"
            elif archive is not None:
                for _ in _entries(archive):
                    pass
    except Exception as error:  # the type depends on the damage
        return f"truncated or damaged ({_summary(error)})"
    if _ending(name) == ".tar" and path.stat().st_size % tarfile.BLOCKSIZE:
        return "truncated or damaged (a tar is made of blocks of 512 bytes)"
    return None


def shows_its_end(path: Path, name: str) -> bool:
    """Return whether `find_damage` detects that the end of a file is missing."""
    with open(path, "rb") as file:
        return file.read(len(_ZIP)) == _ZIP or _ending(name) in _TAR_MODES


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """Open a zip or tar archive, by its name; HodorError if it is missing or damaged."""
    with _naming(path):
        archive = _opened(path, path.name, _ZIP)
    with archive:
        yield archive


def list_members(path: Path, most: int) -> list[Member]:
    """List the files of an archive in its order; HodorError for more than `most` members, links, devices and damage."""
    members = []
    with open_archive(path) as archive, _naming(path):
        is_zip = isinstance(archive, zipfile.ZipFile)
        for number, entry in enumerate(archive.infolist() if is_zip else _entries(archive)):
            if number >= most:
                raise HodorError(f"{path}: more than {most} members; do not use this archive, it looks like a bomb")
            members.append(_zip_member(path, entry) if is_zip else _tar_member(path, entry))
        members = [member for member in members if member]
        if not members:
            raise ValueError("no members")
    return members


def read_member(archive: zipfile.ZipFile | tarfile.TarFile, member: Member, path: Path) -> Iterator[bytes]:
    """Read one file of an archive in blocks; HodorError if the archive is damaged."""
    with _naming(path, member.name):
        is_zip = isinstance(archive, zipfile.ZipFile)
        with archive.open(member.entry) if is_zip else archive.extractfile(member.entry) as reader:
            read = 0
            while block := reader.read(1 << 20):
                read += len(block)
                yield block
        if read != member.size:
            raise ValueError(f"{read} of {member.size} bytes")


def _zip_member(path: Path, info: zipfile.ZipInfo) -> Member | None:
    """Return a file as a member, None for a folder."""
    name = info.filename.replace("\\", "/")  # as some Windows tools write it
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise HodorError(f"{path}: member {name!r} is a link or a device; do not use this archive")
    if info.flag_bits & 0x1:
        raise HodorError(f"{path}: member {name!r} is encrypted; get the archive without password")
    if name.endswith("/"):
        return None
    if info.compress_type not in _METHODS:
        method = "Deflate64" if info.compress_type == 9 else f"method {info.compress_type}"
        raise HodorError(
            f"{path}: member {name!r} is compressed with {method} (Windows Explorer does so above 2 GB), which Python "
            f"cannot read; repack it: 7z x -ofiles {path.name} && (cd files && zip -r ../new.zip .), and use new.zip"
        )
    return Member(name, info.file_size, info.CRC, info)


def _tar_member(path: Path, entry: tarfile.TarInfo) -> Member | None:
    if not (entry.isfile() or entry.isdir()) or entry.issparse():
        kind = "sparse" if entry.issparse() else "a link or a device"
        raise HodorError(f"{path}: member {entry.name!r} is {kind}; do not use this archive")
    return Member(entry.name.replace("\\", "/"), entry.size, None, entry) if entry.isfile() else None


def _entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for entry in archive:
        if entry.size < 0:  # from its pax attributes; tarfile would go back and read the same header forever
            raise tarfile.ReadError(f"negative size {entry.size}")
        yield entry
    while archive.fileobj.read(1 << 20):  # gzip has its checksum at the end
        pass


class _Header(tarfile.TarInfo):
    """A header of a tar, checked before tarfile acts on it."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise  # the empty block at the end
        except tarfile.HeaderError as error:  # tarfile would interpret it as the end
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:
            raise tarfile.ReadError(f"negative size {header.size}")
        if ord(header.type) in _RECORDS and header.size > _LONGEST_RECORD:
            raise tarfile.ReadError(f"a record of {header.size} bytes")
        return header


def _opened(path: Path, name: str, head: bytes) -> zipfile.ZipFile | tarfile.TarFile | contextlib.nullcontext:
    if mode := _TAR_MODES.get(_ending(name)):
        return tarfile.open(path, mode, tarinfo=_Header)
    return zipfile.ZipFile(path) if head.startswith(_ZIP) else contextlib.nullcontext()


@contextlib.contextmanager
def _naming(path: Path, member: str = "") -> Iterator[None]:
    """Turn any error of reading an archive into a HodorError that names it."""
    try:
        yield
    except HodorError:
        raise
    except FileNotFoundError:
        raise HodorError(f"{path}: no such archive; fetch it again") from None
    except Exception as error:  # the type depends on the damage
        where = f"member {member}: " if member and member not in str(error) else ""
        raise HodorError(f"{path}: damaged archive ({where}{_summary(error)}); delete it and get it again") from error


def _summary(error: Exception) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__)[:200]


def _ending(name: str) -> str:
    return next((ending for ending in (*_HEADS, ".tar") if name.endswith(ending)), "")


def _is_tar_header(head: bytes) -> bool:
    try:
        _Header.frombuf(head[: tarfile.BLOCKSIZE], tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:
        return False
    return True
