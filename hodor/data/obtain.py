"""One archive of a data set: found where it is already, copied from a mirror, or downloaded."""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path

from hodor.config.datasets import Source
from hodor.data import transfers
from hodor.data.download import Limits, Stopped, download
from hodor.data.lock_file import LockFile
from hodor.data.progress import Progress, format_bytes
from hodor.data.wholeness import is_whole, md5_file
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

_STATE = ".fetched.json"
_state_guard = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Order:
    """An archive to bring.

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
        """Whether a person brings it, so that there is nothing to transfer."""
        return self.mirror is None and self.source.log_in

    @property
    def address(self) -> str | None:
        """Where it is downloaded from; None where it is not."""
        if self.mirror:
            return f"{self.mirror.rstrip('/')}/{self._below}" if _is_address(self.mirror) else None
        return None if self.source.log_in else self.source.address

    @property
    def host(self) -> str:
        return transfers.host(self.address or "")

    @property
    def _below(self) -> str:
        return f"{self.source.dataset}/{self.source.archive}"

    def expected_size(self) -> int | None:
        """Bytes of the archive by the table, by the lock, or by the file in a mirror folder; None where unknown."""
        if self.mirror and not self.address:
            path = Path(self.mirror).expanduser() / self._below
            return path.stat().st_size if path.is_file() else None
        return (self.lock.apply(self.source)[0] if self.lock else self.source).size

    def there(self) -> int:
        """Bytes that an earlier download left."""
        part = self.target.with_name(self.target.name + ".part")
        return part.stat().st_size if self.address and part.is_file() else 0

    def origin(self) -> str:
        """Address or path that the archive comes from; HodorError where there is none."""
        if self.mirror:
            if "://" in self.mirror and not _is_address(self.mirror):
                raise HodorError(f"mirror {self.mirror}: must be a folder or start with http:// or https://")
            return self.address or str(self._in_folder())
        if self.source.address is None:
            raise HodorError(
                f"{self.source.archive} of {self.source.dataset}: edition {self.source.edition} has no address; give "
                f"mirror=FOLDER with FOLDER/{self._below}"
            )
        return self.source.address

    def _in_folder(self) -> Path:
        folder = Path(self.mirror).expanduser()
        if not folder.is_dir():
            raise HodorError(f"mirror {self.mirror}: no such folder; give the folder that holds {self._below}")
        path = folder / self._below
        if not path.is_file():
            there = ", ".join(sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
            raise HodorError(
                f"{path}: the mirror has no such file ({there or 'nothing'} in {path.parent}); put the archive there"
            )
        return path


def obtain(order: Order) -> dict:
    """Brings one archive, or finds it there; returns its size and sha256.

    Raises:
        HodorError: it is nowhere to be had, or is not the archive that table and lock expect.
        Stopped: `order.stop` was set.
    """
    source, hint = order.lock.apply(order.source) if order.lock else (order.source, "")
    target, before = order.target, _read_state(order.out).get(source.archive, {})
    there = {"size": target.stat().st_size, "sha256": sha256_file(target)} if target.is_file() else None
    if there and there["sha256"] == source.sha256:  # wherever it came from
        _check(source, target, there, hint)
        return _remember(order, there, before.get("origin"), before.get("seen"))
    origin = order.origin()
    local = None if order.by_hand or order.address else Path(origin)
    seen = _stat(local) if local else None
    if there:
        unchanged = (before.get("origin"), before.get("seen")) == (origin, seen)
        if order.by_hand or (unchanged and {key: before.get(key) for key in there} == there):
            _check(source, target, there, hint)
            return _remember(order, there, origin, seen)
        if unchanged:
            print(f"{target}: differs from what was fetched, fetching again", file=sys.stderr)
    if local:
        record = _copy(source, local, target, hint, order.stop)
    else:
        size, sha256 = download(
            origin,
            target,
            size=source.size,
            sha256=source.sha256,
            md5=None if source.sha256 else source.md5,
            hint=hint,
            limits=order.limits,
            stop=order.stop,
        )
        record = {"size": size, "sha256": sha256}
    return _remember(order, record, origin, seen)


def _copy(source: Source, origin: Path, target: Path, hint: str, stop: threading.Event) -> dict:
    """Copies an archive of a mirror; returns its size and sha256, taken from the bytes that were written."""
    part = target.with_name(target.name + ".part")
    before, digest = _stat(origin), hashlib.sha256()
    free = shutil.disk_usage(target.parent).free
    if before[0] > free:
        raise HodorError(
            f"{target.parent}: {format_bytes(free)} are free, {format_bytes(before[0])} are needed; make room"
        )
    progress = Progress(f"{target.parent.name}/{target.name}", before[0])
    try:
        with open(origin, "rb") as reader, open(part, "wb") as writer:
            while block := reader.read(1 << 20):
                if stop.is_set():
                    raise Stopped
                writer.write(block)
                digest.update(block)
                progress.add(len(block))
            writer.flush()
            os.fsync(writer.fileno())
        if _stat(origin) != before or progress.count != before[0]:
            raise HodorError(f"{origin}: changed while it was copied; start again when it is whole")
        record = {"size": before[0], "sha256": digest.hexdigest()}
        _check(source, part, record, hint, name=origin)
        os.replace(part, target)
    except OSError as error:
        raise HodorError(
            f"{target}: {origin} cannot be copied there ({error.strerror}); make room or mend the folder and call again"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    progress.close()
    return record


def _check(source: Source, path: Path, record: dict, hint: str, name: Path | None = None) -> None:
    """HodorError if a file that came by hand or from a folder is not the expected archive.

    Args:
        path: the file, record: its size and sha256.
        hint: what the message adds about where the expected values come from.
        name: what the message calls the file, `path` where absent.
    """
    found = dict(record)
    if source.md5 and not source.sha256:
        found["md5"] = md5_file(path)
    for what, expected in (("size", source.size), ("sha256", source.sha256), ("md5", source.md5)):
        if expected is not None and found.get(what, expected) != expected:
            raise HodorError(
                f"{name or path}: {what} {found[what]} where {expected} is expected for the {source.edition} "
                f"archive; replace the file{hint}"
            )
    if not source.sha256 and is_whole(path, source.archive) is False:
        kind = "no zip archive" if source.archive.endswith(".zip") else "damaged"
        raise HodorError(f"{name or path}: truncated or {kind}; replace it by the whole archive")


def _remember(order: Order, record: dict, origin: str | None, seen: list[int] | None) -> dict:
    with _state_guard:
        state = _read_state(order.out) | {order.source.archive: record | {"origin": origin, "seen": seen}}
        write_json_atomic(order.out / _STATE, state)
        if order.lock:
            order.lock.record(order.source, record["size"], record["sha256"])
    return record


def _read_state(out: Path) -> dict:
    try:
        state = json.loads((out / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing known: the archives are fetched again
    return state if isinstance(state, dict) else {}


def _stat(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    return [status.st_size, status.st_mtime_ns]


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))
