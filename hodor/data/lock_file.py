"""Checksums that nobody publishes: recorded at the first fetch of an archive, enforced at every later one.

`config/locks/<edition>.json` = {"<data set>/<archive>": {"size", "sha256"}}. It is a file of the project, not of the
data: it outlives the archives, and whoever commits it hands his archives' checksums on. No stamp depends on it, so
writing it runs nothing again.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from pathlib import Path

from hodor.config.datasets import Source
from hodor.errors import HodorError
from hodor.provenance import write_json_atomic


@dataclasses.dataclass(frozen=True)
class LockFile:
    """The checksums of one edition. path: the JSON file, which need not be there yet."""

    path: Path

    def apply(self, source: Source) -> tuple[Source, str]:
        """The source with size and sha256 as recorded, and what an error must add about where they come from.

        What the table states stays; a source that it states whole, or that is not recorded, comes back as it is.

        Raises:
            HodorError: the file is no such record.
        """
        entry = self._read().get(_key(source))
        if source.sha256 or entry is None:
            return source, ""
        hint = (
            f"; {self.path} recorded it when {_key(source)} was first fetched: if its publisher, or you, changed the "
            "archive on purpose, delete that entry, fetch again, and train again what was trained on the old one"
        )
        return dataclasses.replace(source, size=entry["size"], sha256=entry["sha256"]), hint

    def record(self, source: Source, size: int, sha256: str) -> None:
        """Records an archive that is in neither table nor file; safe against other processes doing the same."""
        if source.sha256 or _key(source) in self._read():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _held(self.path.parent):
            entries = self._read()
            # Another process may have been first: then its entry counts.
            entries.setdefault(_key(source), {"size": size, "sha256": sha256})
            write_json_atomic(self.path, dict(sorted(entries.items())))

    def _read(self) -> dict[str, dict]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise HodorError(f"{self.path}: cannot be read ({error}); restore it from git, or delete it") from error
        if not isinstance(content, dict) or not all(map(_is_entry, content.values())):
            raise HodorError(f"{self.path}: not a record of sizes and checksums; restore it from git, or delete it")
        return content


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch("[0-9a-f]{64}", entry["sha256"]) is not None
    )


def _key(source: Source) -> str:
    return f"{source.dataset}/{source.archive}"


@contextlib.contextmanager
def _held(folder: Path):
    """Waits for other processes that write there; the lock dies with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
