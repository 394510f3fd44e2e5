"""Safe extraction of zip and tar archives into one folder that appears complete or not at all.

Nothing is written outside the folder; links, devices, encrypted members and bombs are refused before the first byte.
Members are extracted to `<folder>.part`, which is renamed when all archives are in it. A killed extraction leaves the
part; the next one deletes it.
"""

import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from hodor.data.archives import Member, list_members, open_archive, read_member
from hodor.data.files import put_in_place, require_room, write_blocks
from hodor.data.progress import Progress, format_bytes
from hodor.errors import HodorError

# Limits of what archives unpack to: members, bytes, and bytes of one archive, MOST_RATIO times its size or SMALL if that
# is more. JPEG and PNG barely compress, COCO's JSON about 5:1.
MOST_MEMBERS, MOST_BYTES, MOST_RATIO, SMALL = 5_000_000, 1 << 40, 100, 1 << 26
# Notes that differ between the archives of one data set; the first one is kept.
_NOTES = ("readme", "sources", "license", "licence")


def extract_all(archives: list[Path], out: Path, folders: Collection[str] = ()) -> dict[str, str]:
    """Extract zip and tar archives into the folder `out`, replacing it.

    Args:
        archives: files whose members together make the data set. A member of two archives must have the same content
            in both, except notes (README).
        out: folder, replaced at the end.
        folders: uppermost folders of the data set; an archive that holds one of them in a further folder is refused.

    Returns:
        Relative path -> sha256 of every file in `out`.

    Raises:
        HodorError: an archive is damaged, unsafe, too large, or disagrees with another. `out` is then as before.
    """
    plan = _plan(archives, folders)
    needed = sum(member.size for members in plan.values() for member in members.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    require_room(out.parent, needed, out.name)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    progress = Progress(f"{archives[0].parent.name}: extracted", needed)
    digests = {}
    for path, members in plan.items():
        with open_archive(path) as archive:
            for name, member in members.items():
                try:
                    digests[name] = write_blocks(read_member(archive, member, path), part / name, progress)
                except OSError as error:
                    reason = f"cannot be written ({error.strerror}); make room or repair the disk"
                    raise HodorError(f"{part / name}: {reason}") from error
    put_in_place(part, out)
    progress.show()
    return digests


def _plan(archives: list[Path], folders: Collection[str]) -> dict[Path, dict[str, Member]]:
    """Return archive -> relative path -> member to extract, after all checks that need no decompression."""
    plan: dict[Path, dict[str, Member]] = {}
    seen: dict[str, Member] = {}
    for path in archives:
        plan[path] = {}
        for name, member in safe_members(path).items():
            _refuse_folder_above(path, PurePosixPath(name).parts, folders)
            if name not in seen:
                plan[path][name] = seen[name] = member
            elif PurePosixPath(name).stem.lower() not in _NOTES and (
                member.crc is None or (seen[name].crc, seen[name].size) != (member.crc, member.size)
            ):
                raise HodorError(f"{path}: {name} differs from the file of that name in another archive of the set")
        if sum(member.size for member in seen.values()) > MOST_BYTES:
            raise HodorError(f"{path}: the archives unpack to more than {format_bytes(MOST_BYTES)}; is it a bomb?")
    return plan


def safe_members(path: Path) -> dict[str, Member]:
    """Return relative path -> member of an archive, without files of file managers; HodorError if it is unsafe."""
    listed = list_members(path, MOST_MEMBERS)
    size, packed = sum(member.size for member in listed), path.stat().st_size
    if size > max(SMALL, MOST_RATIO * packed):
        raise HodorError(f"{path}: unpacks from {format_bytes(packed)} to {format_bytes(size)}; is it a bomb?")
    members: dict[str, Member] = {}
    for member in listed:
        name = _safe_name(path, member.name)
        if name in members:
            raise HodorError(f"{path}: holds {name} twice; fetch it again or repair the archive")
        if name is not None:
            members[name] = member
    for name in members:
        if any(str(parent) in members for parent in PurePosixPath(name).parents):
            raise HodorError(f"{path}: {name} is in a folder that is a file; fetch it again or repair the archive")
    return members


def _safe_name(path: Path, name: str) -> str | None:
    """Return the relative path of a member, None for files of file managers; HodorError if it is unsafe."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0]:
        raise HodorError(f"{path}: member {name!r} would be written outside the folder; do not use this archive")
    longest = max(len(part.encode(errors="surrogatepass")) for part in parts)
    # Control characters, and surrogates, which replace bytes that are not UTF-8.
    if longest > 255 or any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise HodorError(f"{path}: member {name[:80]!r} has no valid file name (UTF-8, 255 bytes); repair the archive")
    litter = parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db") or parts[-1].startswith("._")
    return None if litter else str(PurePosixPath(name))


def _refuse_folder_above(path: Path, parts: tuple[str, ...], folders: Collection[str]) -> None:
    if parts[0] in folders:
        return
    for depth in range(1, min(len(parts) - 1, 4)):
        if parts[depth] in folders:
            found, fix = "/".join(parts[: depth + 1]), "pack it without the folder above, or fetch the official archive"
            raise HodorError(f"{path}: holds {found}/ where {parts[depth]}/ is expected; {fix}")
