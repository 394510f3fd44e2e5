"""The verb `fetch`: archives of a data set, from a mirror, from their official addresses, or generated.

Every archive is written to `<name>.part` and renamed when it is complete; one in place with the published or recorded
checksum is not fetched again. `archives.json`, the declared result, is written last. Several archives are transferred at
once.
"""

import contextlib
import itertools
import os
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hodor.config.datasets import RECORD, GeneratedOptions, Source, from_settings
from hodor.data.checksums import LockFile, compare
from hodor.data.download import PATIENCE, Download, Limits, Stopped
from hodor.data.progress import Progress, file_blocks, locked, require_room, write_blocks
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

PER_HOST = 2
"""Archives transferred at once from one host, or from disk."""

AT_ONCE = 6
"""Archives transferred at once in all."""


class Missing(HodorError):
    """Everything was fetched but what a person must download by hand. files: where these archives belong."""

    def __init__(self, message: str, files: list[Path]):
        super().__init__(message)
        self.files = files


@dataclass(frozen=True)
class Request:
    """A data set to fetch: `settings` of a stamp of `fetch`, folder of the archives, checksums to enforce and to extend."""

    settings: dict
    out: Path
    lock: LockFile | None = None


def fetch(stamp: dict, out: Path, lock: Path | None = None, *, limits: Limits = PATIENCE) -> None:
    """Fetch a data set's archives to `out` and writes `out/archives.json` = {archive: {"size", "sha256"}}.

    Args:
        stamp: `settings` holds `dataset`, `edition`, `archives` (list of `archive`, `address`, `size`, `sha256`,
            `md5`, `log_in`, `terms`, `note`; empty for generated data), `mirror` (folder or http(s) address with
            `<dataset>/<archive>`, or None) and `generated` (GeneratedOptions as a dict, or None).
        out: folder for the archives, made where absent.
        lock: the edition's file of recorded checksums (`hodor.data.checksums`).
        limits: patience with servers.

    Raises:
        HodorError: an archive is not available, is damaged, or is behind a log-in and absent.
    """
    fetch_all([Request(stamp["settings"], Path(out), LockFile(Path(lock)) if lock else None)], limits=limits)


def fetch_all(requests: Iterable[Request], *, limits: Limits = PATIENCE) -> None:
    """Fetch several data sets at once; each with complete archives gets its `archives.json`.

    Raises:
        HodorError: all faults, and what is to be downloaded by hand, after all other archives were fetched.
        Missing: there are only archives to be downloaded by hand.
    """
    stop, orders, by_hand, messages = threading.Event(), {}, [], []
    with contextlib.ExitStack() as held:
        for request in requests:
            sources = from_settings(request.settings)
            request.out.mkdir(parents=True, exist_ok=True)
            # Two fetches would write to the same part.
            busy = f"{request.out}: another fetch writes there; wait for its end"
            held.enter_context(locked(request.out / ".lock", busy))
            (request.out / RECORD).unlink(missing_ok=True)
            if request.settings["edition"] == "generated":
                write_json_atomic(request.out / RECORD, _generate(request))
                continue
            mirror = request.settings.get("mirror")
            orders[request.out] = [Order(s, mirror, request.out, request.lock, limits, stop) for s in sources]
            if absent := [order for order in orders[request.out] if order.by_hand and not order.target.is_file()]:
                messages.append(_ask_for_log_in([order.source for order in absent], request.out))
                by_hand += absent
        wanted = [order for of_request in orders.values() for order in of_request if order not in by_hand]
        if messages and wanted:
            print("\n".join(messages), file=sys.stderr, flush=True)  # before the hours of the other downloads
        missing: dict[int, list[tuple[Order, int]]] = defaultdict(list)
        for order in wanted:
            missing[order.out.stat().st_dev].append((order, order.missing()))
        for absent in missing.values():
            names = ", ".join(order.source.archive for order, size in absent if size)
            require_room(absent[0][0].out, sum(size for _, size in absent), names)
        results = dict(zip(wanted, run([(order.host, order.get) for order in wanted], stop), strict=True))
        for out, of_request in orders.items():
            records = {order.source.archive: results.get(order) for order in of_request}
            if all(isinstance(record, dict) for record in records.values()):
                write_json_atomic(out / RECORD, records)
    errors = [str(result) for result in results.values() if isinstance(result, HodorError)] + messages
    if not errors:
        return
    several = f"{len(errors)} faults, all other archives were fetched:\n- " + "\n- ".join(errors)
    message = errors[0] if len(errors) == 1 else several
    raise HodorError(message) if len(errors) > len(messages) else Missing(message, [o.target for o in by_hand])


def run(tasks: Sequence[tuple[str, Callable[[], Any]]], stop: threading.Event) -> list[Any]:
    """Run tasks in threads, `PER_HOST` of a host and `AT_ONCE` in all; one that fails leaves the others running.

    Args:
        tasks: host and call of each.
        stop: set when this call is interrupted; the tasks must then end soon.

    Returns:
        What each task returned, or its HodorError, in the order of the tasks.
    """
    slots = threading.BoundedSemaphore(AT_ONCE)
    hosts = {host: threading.BoundedSemaphore(PER_HOST) for host, _ in tasks}

    def limited(host: str, task: Callable[[], Any]) -> Any:
        # The host's slot first: tasks that wait for a busy host must not keep others from an idle one.
        with hosts[host], slots:
            try:
                return None if stop.is_set() else task()
            except HodorError as error:
                return error

    with ThreadPoolExecutor(max(1, len(tasks))) as pool:
        futures = [pool.submit(limited, host, task) for host, task in tasks]
        try:
            wait(futures)
        except BaseException:
            stop.set()
            raise
    return [future.result() for future in futures]


@dataclass(frozen=True)
class Order:
    """An archive to fetch: found in place, copied from a mirror, or downloaded.

    Attributes:
        mirror: folder or address that replaces every address, or None.
        out: folder of the archive, which exists.
        lock: checksums to enforce and to extend, or None.
        stop: ends the transfer when it is set.
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
        """Whether a person must download it."""
        return not self.mirror and self.source.log_in

    @property
    def address(self) -> str | None:
        """Where it is downloaded from; None if it is not."""
        if self.mirror and self.mirror.startswith(("http://", "https://")):
            return f"{self.mirror.rstrip('/')}/{self.source.dataset}/{self.source.archive}"
        return None if self.mirror or self.source.log_in else self.source.address

    @property
    def host(self) -> str:
        return (self.address or "//").split("/")[2]

    def missing(self) -> int:
        """Return the number of bytes to transfer, as far as table, lock file or mirror folder show it."""
        if self.target.is_file():
            return 0
        try:
            source, _ = self._expected()
            origin, part = self._in_folder(), self.target.with_name(self.target.name + ".part")
        except HodorError:
            return 0  # `get` reports it
        size = (origin.stat().st_size if origin.is_file() else 0) if origin else source.size or 0
        return max(0, size - (part.stat().st_size if part.is_file() else 0))

    def get(self) -> dict[str, Any]:
        """Fetch the archive, or find it in place; return its size and sha256.

        Raises:
            HodorError: it is not available, or is not the archive that table and lock file expect.
            Stopped: `stop` was set.
        """
        source, hint = self._expected()
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

    def _expected(self) -> tuple[Source, str]:
        return self.lock.apply(self.source) if self.lock else (self.source, "")

    def _transfer(self, source: Source, hint: str) -> dict[str, Any]:
        if path := self._in_folder():
            return self._copy(source, path, hint)
        if not self.address:
            raise HodorError(
                f"{source.archive} of {source.dataset}: edition {source.edition} has no address; give mirror=FOLDER "
                f"with FOLDER/{source.dataset}/{source.archive}"
            )
        return Download(self.address, self.target, source, hint, self.limits, self.stop).run()

    def _in_folder(self) -> Path | None:
        """Return the path of the archive in a mirror folder; None if the mirror is none."""
        if not self.mirror or self.address:
            return None
        try:
            if "://" in self.mirror or "\0" in self.mirror:
                raise RuntimeError("must be a folder or start with http:// or https://")
            return Path(self.mirror).expanduser() / self.source.dataset / self.source.archive
        except RuntimeError as error:
            raise HodorError(f"mirror {self.mirror}: {error}; give another folder") from None

    def _copy(self, source: Source, origin: Path, hint: str) -> dict[str, Any]:
        """Copy an archive of a mirror folder; return its size and sha256, computed from the bytes that were written."""
        if not origin.is_file():
            raise _not_in_mirror(self.mirror or "", origin)
        part = self.target.with_name(self.target.name + ".part")
        part.unlink(missing_ok=True)
        try:
            progress = Progress(f"{self.out.name}/{self.target.name}", origin.stat().st_size)
            blocks = itertools.takewhile(lambda _: not self.stop.is_set(), file_blocks(origin))
            digest = write_blocks(blocks, part, progress)
            if self.stop.is_set():
                raise Stopped
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            record, fault = compare(part, source, digest)
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


def _ask_for_log_in(absent: list[Source], out: Path) -> str:
    """Return the instruction to download the absent archives of a data set that are behind a log-in."""
    first = absent[0]
    names = " and ".join(source.archive for source in absent)
    notes = "".join(f"; {source.archive}: {source.note}" for source in absent if source.note)
    return (
        f"{first.dataset} needs a log-in or a browser: download {names} from {first.address} after accepting the terms "
        f"({first.terms}), put them into {out}/ under these names and start again; or keep them in a mirror as "
        f"FOLDER/{first.dataset}/{first.archive} and give mirror=FOLDER{notes}"
    )


def _generate(request: Request) -> dict[str, dict]:
    """Generate the archives, and some that no official edition has (masks of hidden splits); return their records."""
    from hodor.data.synthetic import generate

    out = request.out
    try:
        options = GeneratedOptions(**(request.settings.get("generated") or {}))
    except ValidationError as error:
        raise HodorError(f"generated data: wrong options ({error})") from error
    # A killed generator leaves incomplete archives in a folder that the next one clears.
    fresh = out / ".generating"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        generate(request.settings["dataset"], options, fresh)
        made = sorted(path.name for path in fresh.glob("*.zip"))
        for name in made:
            os.replace(fresh / name, out / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {name: {"size": (out / name).stat().st_size, "sha256": sha256_file(out / name)} for name in made}
