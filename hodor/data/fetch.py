"""The verb `fetch`: archives of a data set, from a mirror, from their official addresses, or generated.

Every archive arrives as `<name>.part` and gets its name when it is complete. One that is in place with the published or
recorded checksum is not fetched again, wherever it came from. `archives.json`, the declared result, is written last.
Several archives are transferred at once.
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hodor.config.datasets import RECORD, GeneratedOptions, Source, from_settings
from hodor.data.checksums import LockFile
from hodor.data.connection import Limits
from hodor.data.obtain import Order
from hodor.data.progress import format_bytes
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

PER_HOST = 2
"""Archives at once from one host, or from disk."""

AT_ONCE = 6
"""Archives at once in all."""

_PATIENCE = Limits()


class Missing(HodorError):
    """Everything was fetched but what a person must download. files: where that goes."""

    def __init__(self, message: str, files: list[Path]):
        super().__init__(message)
        self.files = files


@dataclasses.dataclass(frozen=True)
class Request:
    """A data set to fetch.

    settings: as in a stamp of `fetch`. out: folder for its archives. lock: checksums to enforce and to add to.
    """

    settings: dict
    out: Path
    lock: LockFile | None = None


def fetch(stamp: dict, out: Path, lock: Path | None = None, *, limits: Limits = _PATIENCE) -> None:
    """Fetches a data set's archives to `out` and writes `out/archives.json` = {archive: {"size", "sha256"}}.

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


def fetch_all(requests: Iterable[Request], *, limits: Limits = _PATIENCE) -> None:
    """Fetches several data sets at once; each whose archives are complete gets its `archives.json`.

    Raises:
        HodorError: every fault, and what is to be downloaded by hand, after all others were fetched; `Missing` if it
            is the latter alone.
    """
    stop, orders, by_hand, messages = threading.Event(), {}, [], []
    with contextlib.ExitStack() as held:
        for request in requests:
            sources = from_settings(request.settings)
            request.out.mkdir(parents=True, exist_ok=True)
            held.enter_context(_only_one(request.out))
            (request.out / RECORD).unlink(missing_ok=True)
            if request.settings["edition"] == "generated":
                write_json_atomic(request.out / RECORD, _generate(sources, request))
                continue
            mirror = request.settings.get("mirror")
            orders[request.out] = [Order(s, mirror, request.out, request.lock, limits, stop) for s in sources]
            if absent := [order for order in orders[request.out] if order.by_hand and not order.target.is_file()]:
                messages.append(_ask_for_log_in([order.source for order in absent], request.out))
                by_hand += absent
        wanted = [order for of_request in orders.values() for order in of_request if order not in by_hand]
        if messages and wanted:
            print("\n".join(messages), file=sys.stderr, flush=True)  # known now, useful during the hours that follow
        _require_room(wanted)
        results = dict(zip(wanted, run([(order.host, order.obtain) for order in wanted], stop), strict=True))
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
    """Runs tasks in threads, `PER_HOST` of a host and `AT_ONCE` in all; one that fails leaves the others running.

    Args:
        tasks: host and call of each.
        stop: set when this call is interrupted; the tasks must then end soon.

    Returns:
        What each task returned, or its HodorError, in the order of the tasks.
    """
    slots = threading.BoundedSemaphore(AT_ONCE)
    hosts = {host: threading.BoundedSemaphore(PER_HOST) for host, _ in tasks}

    def limited(host: str, task: Callable[[], Any]) -> Any:
        # The host's turn first: tasks that wait for a busy host must not keep others from an idle one.
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


def _require_room(orders: list[Order]) -> None:
    """HodorError before the first byte if what is missing of all archives does not fit on the disk."""
    with ThreadPoolExecutor(8) as pool:
        missing = list(pool.map(_missing_or_none, orders))
    by_device: dict[int, list[tuple[Order, int]]] = defaultdict(list)
    for order, size in zip(orders, missing, strict=True):
        if size:
            by_device[os.stat(order.out).st_dev].append((order, size))
    for absent in by_device.values():
        total, free = sum(size for _, size in absent), shutil.disk_usage(absent[0][0].out).free
        if total > free:
            names = ", ".join(order.source.archive for order, _ in absent)
            raise HodorError(
                f"{absent[0][0].out}: {format_bytes(free)} are free, {format_bytes(total)} more are needed for {names}; "
                "make room"
            )


def _missing_or_none(order: Order) -> int | None:
    try:
        return order.missing()
    except HodorError:
        return None  # `obtain` reports it


def _ask_for_log_in(absent: list[Source], out: Path) -> str:
    """The instruction for the archives of a data set that are behind a log-in and absent."""
    first = absent[0]
    names = " and ".join(source.archive for source in absent)
    notes = "".join(f"; {source.archive}: {source.note}" for source in absent if source.note)
    return (
        f"{first.dataset} needs a log-in or a browser: download {names} from {first.address} after accepting the terms "
        f"({first.terms}), put them into {out}/ under these names and start again; or keep them in a mirror as "
        f"FOLDER/{first.dataset}/{first.archive} and give mirror=FOLDER{notes}"
    )


def _generate(sources: list[Source], request: Request) -> dict[str, dict]:
    """Generates the archives; the generator may add some that no official edition has (masks of hidden splits)."""
    from hodor.data.synthetic import generate

    out = request.out
    try:
        options = GeneratedOptions(**(request.settings.get("generated") or {}))
    except ValidationError as error:
        raise HodorError(f"generated data: wrong options ({error})") from error
    # A killed generator leaves its half archives in a folder that the next one clears.
    fresh = out / ".generating"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        generate(sources[0].dataset, options, fresh)
        made = sorted(path.name for path in fresh.glob("*.zip"))
        for source in sources:
            if source.archive not in made:
                raise HodorError(f"{out / source.archive}: the generator wrote no such archive; report this as a bug")
        for name in made:
            os.replace(fresh / name, out / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {name: {"size": (out / name).stat().st_size, "sha256": sha256_file(out / name)} for name in made}


@contextlib.contextmanager
def _only_one(out: Path):
    """Keeps a second fetch into the same folder out: two would write into the same part."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HodorError(f"{out}: another fetch writes there; wait for its end") from error
        yield
