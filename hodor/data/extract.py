"""Safe extraction of zip and tar archives into one folder that appears whole or not at all.

Nothing is written outside the folder; links, devices, encrypted members and bombs are refused before the first byte.
Members are extracted as a stream, with their checksums compared, to `<folder>.part`, which is renamed when all
archives are in it. A killed extraction leaves the part; the next one clears it.
"""

import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hodor.data import tars
from hodor.data.progress import Progress, format_bytes
from hodor.errors import HodorError

_BLOCK = 1 << 20
# Notes that come with several archives of one data set in different versions; the first one is kept.
_NOTES = ("readme", "sources", "license", "licence")


Member = zipfile.ZipInfo | tars.TarMember


@dataclass(frozen=True)
class ExtractLimits:
    """What an archive may unpack to. Real data stay far below: JPEG and PNG barely compress, COCO's JSON about 5:1."""

    members: int = 5_000_000
    total: int = 1 << 40
    # An archive may grow to `ratio` times its size, or to `small` bytes if that is more.
    ratio: float = 100.0
    small: int = 1 << 26


_LIMITS = ExtractLimits()


def extract_all(archives: list[Path], out: Path, limits: ExtractLimits = _LIMITS) -> dict[str, str]:
    """Extracts zip and tar archives into the folder `out`, replacing it.

    Args:
        archives: files whose members together make the data set. The same member in two archives must have the
            same content, notes (README) excepted.
        out: folder to make; an older one is replaced at the end.

    Returns:
        Relative path -> sha256 of every file in `out`.

    Raises:
        HodorError: an archive is damaged, unsafe, too large, or disagrees with another. `out` is then as before.
    """
    plan = _plan(archives, limits)
    needed = sum(info.file_size for members in plan.values() for info in members.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise HodorError(f"{out.parent}: {format_bytes(free)} are free, {format_bytes(needed)} are needed; make room")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    progress = Progress(f"{archives[0].parent.name}: extracted", needed)
    digests = {}
    for path, members in plan.items():
        with tarfile.open(path) if tars.is_tar(path) else zipfile.ZipFile(path) as archive:
            for name, info in members.items():
                digests[name] = _extract_member(archive, info, path, part / name, progress)
    put_in_place(part, out)
    progress.close()
    return digests


def put_in_place(part: Path, out: Path) -> None:
    """Renames the folder `part` to `out`, which is replaced where it exists."""
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(part, out)
    shutil.rmtree(old, ignore_errors=True)


def _plan(archives: list[Path], limits: ExtractLimits) -> dict[Path, dict[str, Member]]:
    """Archive -> relative path -> member to extract, after all checks that need no decompression."""
    plan, seen, total = {}, {}, 0
    for path in archives:
        members = {}
        for name, info in _members(path, limits).items():
            if name not in seen:
                members[name] = seen[name] = info
            elif not _is_note(name) and _checksum(seen[name]) != _checksum(info):
                raise HodorError(f"{path}: {name} differs from the file of that name in another archive of the set")
        total += sum(info.file_size for info in members.values())
        if total > limits.total:
            raise HodorError(f"{path}: the archives unpack to more than {format_bytes(limits.total)}; is it a bomb?")
        plan[path] = members
    return plan


def _checksum(member: Member) -> object:
    """What two members with the same content share; nothing does for those of tars, which have no checksums."""
    return (member.CRC, member.file_size) if isinstance(member, zipfile.ZipInfo) else member


def _listed(path: Path) -> list[Member]:
    if tars.is_tar(path):
        return tars.list_members(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except FileNotFoundError:
        raise HodorError(f"{path}: no such archive; fetch it again") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error


def _members(path: Path, limits: ExtractLimits) -> dict[str, Member]:
    infos = _listed(path)
    if len(infos) > limits.members:
        raise HodorError(f"{path}: {len(infos)} members; is it a bomb?")
    size = sum(info.file_size for info in infos)
    if size > max(limits.small, limits.ratio * path.stat().st_size):
        raise HodorError(
            f"{path}: unpacks from {format_bytes(path.stat().st_size)} to {format_bytes(size)}; is it a bomb?"
        )
    members = {}
    for info in infos:
        name = _safe_name(path, info)
        if name is None:
            continue
        if name in members:
            raise HodorError(f"{path}: holds {name} twice; fetch it again or mend the archive")
        members[name] = info
    for name in members:
        if any(str(parent) in members for parent in PurePosixPath(name).parents):
            raise HodorError(f"{path}: {name} lies in a folder that is a file; fetch it again or mend the archive")
    return members


def _safe_name(path: Path, info: Member) -> str | None:
    """Relative path of a member, None for a folder or a file manager's litter; HodorError if it is unsafe."""
    name = _name(info)
    parts = PurePosixPath(name).parts
    unsafe = not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\\\0") or ":" in parts[0]
    if unsafe:
        raise HodorError(f"{path}: member {name!r} would be written outside the folder; do not use this archive")
    if isinstance(info, zipfile.ZipInfo):
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise HodorError(f"{path}: member {name!r} is a link or a device; do not use this archive")
        if info.flag_bits & 0x1:
            raise HodorError(f"{path}: member {name!r} is encrypted; get the archive without password")
        if info.is_dir():
            return None
    litter = parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db") or parts[-1].startswith("._")
    return None if litter else str(PurePosixPath(name))


def _name(info: Member) -> str:
    return info.filename if isinstance(info, zipfile.ZipInfo) else info.name


def _extract_member(
    archive: zipfile.ZipFile | tarfile.TarFile, info: Member, path: Path, target: Path, progress: Progress
) -> str:
    """Writes one member; returns its sha256."""
    digest, written = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as writer:
            source = _blocks if isinstance(info, zipfile.ZipInfo) else tars.blocks
            for block in source(archive, info, path, _BLOCK):
                writer.write(block)
                digest.update(block)
                written += len(block)
                progress.add(len(block))
    except OSError as error:
        raise HodorError(f"{target}: cannot be written ({error.strerror}); make room or mend the disk") from error
    if written != info.file_size:
        raise _damaged(path, f"{written} of {info.file_size} bytes", _name(info))
    return digest.hexdigest()


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, size: int) -> Iterator[bytes]:
    """The content of a member; HodorError where the archive is damaged."""
    try:
        with archive.open(info) as reader:
            while block := reader.read(size):
                yield block
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, error, info.filename) from error


def _is_note(name: str) -> bool:
    return PurePosixPath(name).stem.lower() in _NOTES


def _damaged(path: Path, error: object, member: str | None = None) -> HodorError:
    where = f"member {member}: " if member and str(member) not in str(error) else ""
    return HodorError(f"{path}: damaged archive ({where}{error}); delete it and fetch it again")
