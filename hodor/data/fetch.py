"""The verb `fetch`: archives of a data set, from a mirror, from their official addresses, or generated.

Every archive is written to `<name>.part` and renamed when it is complete; one in place with the published or recorded
checksum is not fetched again. `archives.json`, the declared result, is written last. Several archives are transferred
at once.
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
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hodor.config.datasets import RECORD, GeneratedOptions, Source, from_settings
from hodor.config.validation import validate
from hodor.data.archives import open_archive, read_member
from hodor.data.checksums import LockFile, compare
from hodor.data.download import PATIENCE, Download, Limits, Stopped
from hodor.data.extract import safe_members
from hodor.data.files import file_blocks, require_room, write_blocks
from hodor.data.progress import Progress
from hodor.errors import HodorError
from hodor.locks import locked
from hodor.provenance import sha256_file, write_json_atomic

# Archives transferred at once: from one host, or from disk, and in all.
PER_HOST, AT_ONCE = 2, 6
# Several files may be members of one zip, which is downloaded once.
_ZIP = threading.Lock()


class Missing(HodorError):
    """Everything was fetched but what a person must download by hand. `files`: where these archives belong."""

    def __init__(self, message: str, files: list[Path]):
        super().__init__(message)
        self.files = files


@dataclass(frozen=True)
class Request:
    """A data set to fetch: settings of a stamp of `fetch`, folder of the archives, recorded checksums."""

    settings: dict
    out: Path
    lock: LockFile | None = None


def fetch(stamp: dict, out: Path, lock: Path | None = None, *, limits: Limits = PATIENCE) -> None:
    """Fetch a data set's archives to `out` and write `out/archives.json` = {archive: {"size", "sha256"}}.

    Args:
        stamp: `settings` holds `dataset`, `edition`, `archives` (list of `archive`, `address`, `size`, `sha256`,
            `md5`, `log_in`, `terms`, `note`; empty for generated data), `mirror` (folder or http(s) address with
            `<dataset>/<archive>`, or None) and `generated` (GeneratedOptions as a dict, or None).
        out: folder for the archives, made where absent.
        lock: the edition's file of recorded checksums (`hodor.data.checksums`).

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
            orders[request.out] = [_order(source, request, limits, stop) for source in sources]
            if absent := [order for order in orders[request.out] if order.by_hand and not order.target.is_file()]:
                messages.append(_ask_for_log_in([order.source for order in absent], request.out))
                by_hand += absent
        wanted = [order for of_request in orders.values() for order in of_request if order not in by_hand]
        if messages and wanted:
            print("\n".join(messages), file=sys.stderr, flush=True)  # before the hours of the other downloads
        missing: dict[int, list[tuple[Order, int]]] = defaultdict(list)
        for order in wanted:
            missing[order.target.parent.stat().st_dev].append((order, order.missing()))
        for on_disk in missing.values():
            names = ", ".join(order.source.archive for order, size in on_disk if size)
            require_room(on_disk[0][0].target.parent, sum(size for _, size in on_disk), names)
        results = dict(zip(wanted, run([(order.host, order.get) for order in wanted], stop), strict=True))
        for out, of_request in orders.items():
            records = {order.source.archive: results.get(order) for order in of_request}
            if all(isinstance(record, dict) for record in records.values()):
                write_json_atomic(out / RECORD, records)
    errors = [str(result) for result in results.values() if isinstance(result, HodorError)] + messages
    message = "\n- ".join(errors)
    if len(errors) > 1:
        message = f"{len(errors)} faults, all other archives were fetched:\n- {message}"
    if errors:
        raise HodorError(message) if len(errors) > len(messages) else Missing(message, [o.target for o in by_hand])


def run(tasks: Sequence[tuple[str, Callable[[], Any]]], stop: threading.Event) -> list[Any]:
    """Run tasks (host and call) in threads, `PER_HOST` of a host and `AT_ONCE` in all; return their results in order.

    The result of a failed task is its HodorError. `stop` is set when this call is interrupted; the tasks must then end.
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
class Order(Download):
    """An archive to fetch: found in place, copied from a mirror, or downloaded from `address` unless this is empty."""

    origin: Path | None = None  # file of a mirror folder to copy
    member: str = ""  # pattern of the end of the path of a member; the address is then that of its zip
    lock: LockFile | None = None  # recorded checksums, to be extended

    @property
    def by_hand(self) -> bool:
        """Whether a person must download it."""
        return self.source.log_in and not (self.origin or self.address)

    @property
    def host(self) -> str:
        return (self.address or "//").split("/")[2]

    def missing(self) -> int:
        """Return the number of bytes to transfer, as far as known."""
        size = self.source.size or 0
        if self.origin:
            size = self.origin.stat().st_size if self.origin.is_file() else 0
        return 0 if self.target.is_file() else max(0, size - self.length())

    def get(self) -> dict[str, Any]:
        """Fetch the archive, or find it in place; return its size and sha256.

        Raises:
            HodorError: it is not available, or is not the archive that table and lock file expect.
            Stopped: `stop` was set.
        """
        source, known = self.source, self.source.sha256 or self.source.md5
        record, fault = compare(self.target, source) if self.target.is_file() else ({}, None)
        if not record or (fault or not known) and not self.by_hand:
            if known and fault:
                print(f"{self.target}: {fault}, fetching again", file=sys.stderr)
            try:
                record, fault = self._transfer(), None
            except HodorError as error:  # a file that a person placed must not need a living address
                if not self.address or fault or not record:
                    raise
                print(f"{error}\n{self.target}: kept as it is", file=sys.stderr, flush=True)
        if fault:
            raise HodorError(f"{self.target}: {fault}; replace the file by the {source.edition} archive{self.hint}")
        if self.lock:
            self.lock.record(source, record["size"], record["sha256"])
        return record

    def _transfer(self) -> dict[str, Any]:
        if self.origin:
            return self._copy(self.origin)
        if self.member:
            return self._unpack()
        if self.address:
            return self.run()
        where = f"{self.source.dataset}/{self.source.archive}"
        fault = f"edition {self.source.edition} has no address"
        raise HodorError(f"{where}: {fault}; give mirror=FOLDER with FOLDER/{where}")

    def _unpack(self) -> dict[str, Any]:
        """Download the zip, unless it is there, and extract the member; return the member's size and sha256."""
        path = self.target.with_name(self.address.partition("?")[0].rpartition("/")[2])
        with _ZIP:
            if not path.is_file():
                source = replace(self.source, archive=path.name, size=None, sha256=None, md5=None)
                Download(self.address, path, source, "", self.limits, self.stop).run()
        found = [member for name, member in safe_members(path).items() if PurePosixPath(name).match(self.member)]
        if not found:
            raise HodorError(f"{path}: has no member {self.member}; {self.fix}")
        member = max(found, key=lambda member: (len(member.name), member.name))  # of the numbered ones the last
        require_room(self.target.parent, member.size, self.target.name)
        with open_archive(path) as archive:
            return self._write(read_member(archive, member, path), member.size, f"{path}, member {member.name}")

    def _copy(self, origin: Path) -> dict[str, Any]:
        """Copy an archive of a mirror folder; return its size and sha256."""
        if not origin.is_file():
            raise _not_in_mirror(origin)
        return self._write(file_blocks(origin), origin.stat().st_size, str(origin))

    def _write(self, blocks: Iterable[bytes], size: int, origin: str) -> dict[str, Any]:
        """Write the archive; return its size and sha256, computed from the bytes that were written."""
        self.part.unlink(missing_ok=True)
        try:
            progress = Progress(self.label, size)
            digest = write_blocks(itertools.takewhile(lambda _: not self.stop.is_set(), blocks), self.part, progress)
            if self.stop.is_set():
                raise Stopped
            with open(self.part, "rb") as file:
                os.fsync(file.fileno())
            record, fault = compare(self.part, self.source, digest)
            if fault:
                raise HodorError(f"{origin}: {fault}; replace the file by the {self.source.edition} archive{self.hint}")
            os.replace(self.part, self.target)
        except OSError as error:
            fix = "make room or repair the folder, and call again"
            raise HodorError(f"{self.target}: {origin} cannot be copied there ({error.strerror}); {fix}") from error
        finally:
            self.part.unlink(missing_ok=True)
        progress.show()
        return record


def _order(source: Source, request: Request, limits: Limits, stop: threading.Event) -> Order:
    origin, address, mirror = None, "" if source.log_in else source.address or "", request.settings.get("mirror")
    if mirror and mirror.startswith(("http://", "https://")):
        address = f"{mirror.rstrip('/')}/{source.dataset}/{source.archive}"
    elif mirror:
        try:
            if "://" in mirror or "\0" in mirror:
                raise RuntimeError("must be a folder or start with http:// or https://")
            origin, address = Path(mirror).expanduser() / source.dataset / source.archive, ""
        except RuntimeError as error:
            raise HodorError(f"mirror {mirror}: {error}; give another folder") from None
    address, _, member = address.partition("#")
    source, hint = request.lock.apply(source) if request.lock else (source, "")
    return Order(address, request.out / source.archive, source, hint, limits, stop, origin, member, request.lock)


def _not_in_mirror(path: Path) -> HodorError:
    folder = path.parent
    if not folder.parent.is_dir():
        missing = "no such folder; give the folder that holds"
        return HodorError(f"mirror {folder.parent}: {missing} {folder.name}/{path.name}")
    there = ", ".join(sorted(entry.name for entry in folder.iterdir())) if folder.is_dir() else ""
    fault = f"the mirror has no such file ({there or 'nothing'} in {folder})"
    return HodorError(f"{path}: {fault}; put the archive into that folder")


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
    options = validate(GeneratedOptions, request.settings.get("generated") or {}, "generated data")
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
