"""The verb `fetch`: archives of a data set, from a mirror, from their official addresses, or generated.

Every archive arrives as `<name>.part` and gets its name when it is whole. `.fetched.json` beside the archives keeps
what is known of each (size, sha256, origin), so that a repeated fetch copies nothing that is there unchanged;
`archives.json`, the declared result, is written last. Several archives come at once.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from hodor.config.datasets import RECORD, Source, from_settings
from hodor.config.generated import GeneratedOptions
from hodor.data import transfers
from hodor.data.download import Limits
from hodor.data.lock_file import LockFile
from hodor.data.obtain import Order, obtain
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

_PATIENCE = Limits()


class Missing(HodorError):
    """All is there but what a person must download. files: where that goes."""

    def __init__(self, message: str, files: list[Path]):
        super().__init__(message)
        self.files = files


@dataclass(frozen=True)
class Request:
    """A data set to fetch.

    settings: as in a stamp of `fetch`. out: folder for its archives. lock: checksums to enforce and to add to, None
    for none.
    """

    settings: dict
    out: Path
    lock: LockFile | None = None


def fetch(stamp: dict, out: Path, lock: Path | None = None, *, limits: Limits = _PATIENCE) -> None:
    """Brings a data set's archives to `out` and writes `out/archives.json` = {archive: {"size", "sha256"}}.

    Args:
        stamp: `settings` holds `dataset`, `edition`, `archives` (list of `archive`, `address`, `size`, `sha256`,
            `md5`, `log_in`, `terms`, `note`; empty for generated data), `mirror` (folder or http(s) address with
            `<dataset>/<archive>`, or None) and `generated` (GeneratedOptions as a dict, or None).
        out: folder for the archives, made where absent.
        lock: the edition's file of checksums that nobody publishes (`hodor.data.lock_file`).
        limits: patience with servers.

    Raises:
        HodorError: an archive is nowhere to be had, is damaged, or is behind a log-in and not there yet.
    """
    fetch_all([Request(stamp["settings"], Path(out), LockFile(Path(lock)) if lock else None)], limits=limits)


def fetch_all(requests: Iterable[Request], *, limits: Limits = _PATIENCE) -> None:
    """Fetches several data sets, their archives beside each other.

    A data set whose archives are all there has its `archives.json`, whatever became of the others.

    Raises:
        HodorError: what is wrong with any of them, and what is to be downloaded by hand, after all others are there;
            `Missing` if it is the latter alone.
    """
    orders: list[Order] = []
    wanted: list[tuple[Request, list[Source]]] = []
    with contextlib.ExitStack() as held:
        for request in requests:
            sources = from_settings(request.settings)
            request.out.mkdir(parents=True, exist_ok=True)
            held.enter_context(_only_one(request.out))
            (request.out / RECORD).unlink(missing_ok=True)
            if request.settings["edition"] == "generated":
                known = _generate(sources, request.settings.get("generated"), request.out)
                write_json_atomic(request.out / RECORD, known)
                continue
            wanted.append((request, sources))
        by_hand = [_absent_by_hand(request, sources) for request, sources in wanted]
        messages = [_ask_for_log_in(absent, request.out) for (request, _), absent in zip(wanted, by_hand) if absent]
        stop = threading.Event()
        for (request, sources), absent in zip(wanted, by_hand):
            for source in sources:
                if source not in absent:
                    mirror = request.settings.get("mirror")
                    orders.append(Order(source, mirror, request.out, request.lock, limits, stop))
        if messages and orders:
            print("\n".join(messages), file=sys.stderr, flush=True)  # known now, needed after the hours that follow
        _require_room(orders, limits)
        results = transfers.run([(order.host, partial(obtain, order)) for order in orders], stop)
        errors = [str(result) for result in results if isinstance(result, HodorError)] + messages
        known = {(order.out, order.source.archive): result for order, result in zip(orders, results)}
        for (request, sources), absent in zip(wanted, by_hand):
            of_request = {source.archive: known.get((request.out, source.archive)) for source in sources}
            if not absent and all(isinstance(result, dict) for result in of_request.values()):
                write_json_atomic(request.out / RECORD, of_request)
    if errors:
        several = f"{len(errors)} faults, all others are there:\n- " + "\n- ".join(errors)
        message = errors[0] if len(errors) == 1 else several
        if len(errors) > len(messages):
            raise HodorError(message)
        raise Missing(
            message, [request.out / s.archive for (request, _), absent in zip(wanted, by_hand) for s in absent]
        )


def _require_room(orders: list[Order], limits: Limits) -> None:
    """HodorError before the first byte if what is still missing of all archives does not fit on the disk."""
    absent = [order for order in orders if not order.target.is_file()]
    sizes = [order.expected_size() for order in absent]
    unknown = [order for order, size in zip(absent, sizes) if size is None and order.address]
    told = iter(transfers.remote_sizes([order.address for order in unknown], min(limits.timeout, 10.0)))
    found = [next(told) if size is None and order.address else size for order, size in zip(absent, sizes)]
    transfers.require_room(
        [
            (order.out, order.source.archive, max(0, size - order.there()))
            for order, size in zip(absent, found)
            if size is not None
        ]
    )


def _absent_by_hand(request: Request, sources: list[Source]) -> list[Source]:
    """Archives that a person must download and that are not there."""
    if request.settings.get("mirror"):
        return []
    return [source for source in sources if source.log_in and not (request.out / source.archive).is_file()]


def _ask_for_log_in(absent: list[Source], out: Path) -> str:
    """The whole instruction for the archives of a data set that are behind a log-in and not there."""
    first = absent[0]
    names = " and ".join(source.archive for source in absent)
    notes = "".join(f"; {source.archive}: {source.note}" for source in absent if source.note)
    return (
        f"{first.dataset} needs a log-in or a browser: download {names} from {first.address} after accepting the terms "
        f"({first.terms}), put them into {out}/ under these names and start again; or keep them in a mirror as "
        f"FOLDER/{first.dataset}/{first.archive} and give mirror=FOLDER{notes}"
    )


def _generate(sources: list[Source], options: dict | None, out: Path) -> dict[str, dict]:
    """Generates the archives; the generator may add some that no official edition has (truth of hidden splits)."""
    from hodor.data.synthetic import generate

    try:
        generated = GeneratedOptions(**(options or {}))
    except ValidationError as error:
        raise HodorError(f"generated data: wrong options ({error})") from error
    # A killed generator leaves its half archives in a folder that the next one clears.
    fresh = out / ".generating"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        generate(sources[0].dataset, generated, fresh)
        made = {path.name for path in fresh.glob("*.zip")}
        missing = [source.archive for source in sources if source.archive not in made]
        if missing:
            raise HodorError(
                f"{out / missing[0]}: the generator wrote no such archive; its layout and the table disagree"
            )
        for name in made:
            os.replace(fresh / name, out / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {name: {"size": (out / name).stat().st_size, "sha256": sha256_file(out / name)} for name in sorted(made)}


@contextlib.contextmanager
def _only_one(out: Path):
    """Keeps a second fetch into the same folder out: two would write into the same part."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HodorError(f"{out}: another fetch writes there; wait for its end") from error
        yield
