"""An extraction that was finished is not made again, though what came after it was killed.

Beside the extracted folder lies `<folder>.json` with the checksums of the archives and, for every file, sha256, size
and time of change. It is written last, so a killed extraction has none and is redone; where archives or files are not
as it says, they are extracted again.
"""

from collections.abc import Mapping
from pathlib import Path

from hodor.data.extract import extract_all
from hodor.errors import HodorError
from hodor.provenance import read_json, write_json_atomic


def extract_once(archives: Mapping[Path, str], out: Path) -> dict[str, str]:
    """Extracts archives to `out`, unless that is done.

    Args:
        archives: file -> its sha256.
        out: folder to make.

    Returns:
        Relative path -> sha256 of every file in `out`.

    Raises:
        HodorError: as `extract_all`.
    """
    record, origin = _record(out), {path.name: sha256 for path, sha256 in archives.items()}
    try:
        content = read_json(record)
        files = content["files"] if content["archives"] == origin else None
        if files and all(_seen(out / name) == [size, time] for name, (_, size, time) in files.items()):
            return {name: sha256 for name, (sha256, _, _) in files.items()}
    except (HodorError, KeyError, TypeError, ValueError, AttributeError):
        pass  # not there, or broken: nothing is known
    digests = extract_all(list(archives), out)
    files = {name: [sha256, *_seen(out / name)] for name, sha256 in digests.items()}
    write_json_atomic(record, {"archives": origin, "files": files})
    return digests


def forget(out: Path) -> None:
    """Makes the next `extract_once` extract again."""
    _record(out).unlink(missing_ok=True)


def _record(out: Path) -> Path:
    return out.with_name(out.name + ".json")


def _seen(path: Path) -> list[int]:
    try:
        status = path.lstat()
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]
