"""Checksums of archives: published ones, and ones recorded at the first fetch and enforced at every later one.

`config/locks/<edition>.json` = {"<data set>/<archive>": {"size", "sha256"}} holds the recorded ones. It is a file of
the project: it outlives the archives, and committing it shares their checksums. No stamp depends on it.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from hodor.config.datasets import Source
from hodor.data.archives import find_damage
from hodor.errors import HodorError
from hodor.locks import locked
from hodor.provenance import sha256_file, write_json_atomic


class _Entry(TypedDict):
    size: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


_ENTRIES = TypeAdapter(dict[str, _Entry])


def compare(
    path: Path, source: Source, sha256: str | None = None, *, thorough: bool = False
) -> tuple[dict[str, Any], str | None]:
    """Compare a file with the known size and checksum of an archive, else with its format.

    Args:
        path: the file.
        source: the archive.
        sha256: of the file, if known.
        thorough: as in `hodor.data.archives.find_damage`.

    Returns:
        Size and sha256 of the file, and what is wrong with it, or None.
    """
    found = record = {"size": path.stat().st_size, "sha256": sha256 or sha256_file(path)}
    if source.md5 and not source.sha256:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        found = record | {"md5": md5.hexdigest()}
    for what, value in found.items():
        expected = getattr(source, what)
        if expected is not None and value != expected:
            return record, f"{what} {value} where {expected} is expected"
    return record, None if source.sha256 else find_damage(path, source.archive, thorough=thorough)


@dataclasses.dataclass(frozen=True)
class LockFile:
    """The recorded checksums of one edition. path: the JSON file, which need not exist yet."""

    path: Path

    def apply(self, source: Source) -> tuple[Source, str]:
        """Return the source with the recorded size and sha256, and their origin as an addition to an error message.

        A source with a published sha256, or without a record, is returned unchanged. HodorError if the file is broken.
        """
        entry = self._read().get(_key(source))
        if source.sha256 or entry is None:
            return source, ""
        hint = (
            f"; {self.path} recorded it when {_key(source)} was first fetched: if the archive was changed on purpose, "
            "delete that entry and fetch and train again"
        )
        return dataclasses.replace(source, size=entry["size"], sha256=entry["sha256"]), hint

    def record(self, source: Source, size: int, sha256: str) -> None:
        """Record an archive without a published sha256; other processes may do the same at once."""
        if source.sha256 or _key(source) in self._read():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent):
            entries = self._read()
            entries.setdefault(_key(source), {"size": size, "sha256": sha256})  # another process may have been first
            write_json_atomic(self.path, dict(sorted(entries.items())))

    def _read(self) -> dict[str, _Entry]:
        try:
            return _ENTRIES.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise HodorError(f"{self.path}: not a record of checksums; restore it from git, or delete it") from error


def _key(source: Source) -> str:
    return f"{source.dataset}/{source.archive}"
