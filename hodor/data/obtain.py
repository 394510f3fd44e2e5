"""One archive of a data set: found in place, copied from a mirror, or downloaded."""

import hashlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hodor.config.datasets import Source
from hodor.data.checksums import LockFile, compare
from hodor.data.connection import Limits, remote_size
from hodor.data.download import Stopped, download
from hodor.data.progress import Progress
from hodor.errors import HodorError


@dataclass(frozen=True)
class Order:
    """An archive to fetch.

    source: what it is. mirror: folder or address that replaces every address, or None. out: its folder, which exists.
    lock: checksums to enforce and to add to, or None. limits: patience. stop: ends the transfer when it is set.
    """

    source: Source
    mirror: str | None
    out: Path
    lock: LockFile | None
    limits: Limits
    stop: threading.Event

    @property
    def target(self) -> Path:
        return self.out / self.source.archive

    @property
    def by_hand(self) -> bool:
        """Whether a person downloads it, so that there is nothing to transfer."""
        return not self.mirror and self.source.log_in

    @property
    def address(self) -> str | None:
        """Where it is downloaded from; None where it is not."""
        if self.mirror and _is_address(self.mirror):
            return f"{self.mirror.rstrip('/')}/{self.source.dataset}/{self.source.archive}"
        return None if self.mirror or self.source.log_in else self.source.address

    @property
    def host(self) -> str:
        return (self.address or "//").split("/")[2]

    def missing(self) -> int | None:
        """Bytes still to be transferred, as far as table, lock, mirror folder or server know."""
        if self.target.is_file():
            return 0
        if not self.address:
            path = self._in_folder()
            return path.stat().st_size if path and path.is_file() else 0
        source = self.lock.apply(self.source)[0] if self.lock else self.source
        size = remote_size(self.address, self.limits) if source.size is None else source.size
        part = self.target.with_name(self.target.name + ".part")
        return None if size is None else max(0, size - (part.stat().st_size if part.is_file() else 0))

    def obtain(self) -> dict[str, Any]:
        """Fetches the archive, or finds it in place; returns its size and sha256.

        Raises:
            HodorError: it is not available, or is not the archive that table and lock expect.
            Stopped: `stop` was set.
        """
        source, hint = self.lock.apply(self.source) if self.lock else (self.source, "")
        known = source.sha256 or source.md5
        record, fault = compare(self.target, source) if self.target.is_file() else ({}, None)
        if not record or (fault or not known) and not self.by_hand:
            if known and fault:
                print(f"{self.target}: {fault}, fetching again", file=sys.stderr)
            record, fault = self._transfer(source, hint), None
        if fault:
            raise HodorError(f"{self.target}: {fault}; replace the file by the {source.edition} archive{hint}")
        if self.lock:
            self.lock.record(source, record["size"], record["sha256"])
        return record

    def _transfer(self, source: Source, hint: str) -> dict[str, Any]:
        if path := self._in_folder():
            return self._copy(source, path, hint)
        if not self.address:
            raise HodorError(
                f"{source.archive} of {source.dataset}: edition {source.edition} has no address; give mirror=FOLDER "
                f"with FOLDER/{source.dataset}/{source.archive}"
            )
        return download(self.address, self.target, source, hint=hint, limits=self.limits, stop=self.stop)

    def _in_folder(self) -> Path | None:
        """Where the archive is in a mirror folder."""
        if not self.mirror or _is_address(self.mirror):
            return None
        try:
            if "://" in self.mirror or "\0" in self.mirror:
                raise RuntimeError("must be a folder or start with http:// or https://")
            return Path(self.mirror).expanduser() / self.source.dataset / self.source.archive
        except RuntimeError as error:
            raise HodorError(f"mirror {self.mirror}: {error}; give another folder") from None

    def _copy(self, source: Source, origin: Path, hint: str) -> dict[str, Any]:
        """Copies an archive of a mirror; returns its size and sha256, computed from the bytes that were written."""
        if not origin.is_file():
            raise _not_in_mirror(self.mirror or "", origin)
        part = self.target.with_name(self.target.name + ".part")
        before, digest = _stat(origin), hashlib.sha256()
        progress = Progress(f"{self.out.name}/{self.target.name}", before[0])
        try:
            with open(origin, "rb") as reader, open(part, "wb") as writer:
                while block := reader.read(1 << 20):
                    if self.stop.is_set():
                        raise Stopped
                    writer.write(block)
                    digest.update(block)
                    progress.add(len(block))
                writer.flush()
                os.fsync(writer.fileno())
            if _stat(origin) != before or progress.count != before[0]:
                raise HodorError(f"{origin}: changed while it was copied; start again when it is complete")
            record, fault = compare(part, source, digest.hexdigest())
            if fault:
                raise HodorError(f"{origin}: {fault}; replace the file by the {source.edition} archive{hint}")
            os.replace(part, self.target)
        except OSError as error:
            raise HodorError(
                f"{self.target}: {origin} cannot be copied there ({error.strerror}); make room or repair the folder, "
                "and call again"
            ) from error
        finally:
            part.unlink(missing_ok=True)
        progress.close()
        return record


def _not_in_mirror(mirror: str, path: Path) -> HodorError:
    folder = path.parent
    if not folder.parent.is_dir():
        return HodorError(f"mirror {mirror}: no such folder; give the folder that holds {folder.name}/{path.name}")
    there = ", ".join(sorted(entry.name for entry in folder.iterdir())) if folder.is_dir() else ""
    return HodorError(
        f"{path}: the mirror has no such file ({there or 'nothing'} in {folder}); put the archive into that folder"
    )


def _stat(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    return [status.st_size, status.st_mtime_ns]


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))
