"""Download of one file over HTTP, whole or not at all.

urllib3 opens connections, follows redirects and enforces lengths. What no library does is here: a broken transfer goes to
`<name>.part` and continues by range with `If-Range`, so that a file that changed meanwhile starts anew; a server that is
too slow, or sends without end, is left; only a file with the expected checksum, or of the format that its name says, gets
its name. `<name>.part.json` holds what identifies the remote file (ETag or Last-Modified).
"""

import contextlib
import email.utils
import json
import os
import random
import re
import shutil
import socket
import ssl
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError, SSLError

from hodor.config.datasets import Source
from hodor.data.archives import HEAD, shows_its_end, wrong_head
from hodor.data.checksums import compare
from hodor.data.progress import Progress, format_bytes
from hodor.errors import HodorError, printable
from hodor.provenance import write_json_atomic

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Limits:
    """Patience with a server. Times in seconds, amounts in bytes."""

    # Tries in a row that bring less than `progress` new bytes each; a try that brings more starts the count anew.
    attempts: int = 6
    progress: int = 1 << 20
    # Waits between tries double from `first_wait`; a server's Retry-After is obeyed up to `longest_wait`.
    first_wait: float = 1.0
    longest_wait: float = 120.0
    # No byte for `timeout`, or less than `slowest` a second of the content over `stall`, ends a try.
    timeout: float = 30.0
    stall: float = 60.0
    slowest: float = 1024.0
    # Largest file whose length nobody states.
    unannounced: int = 1 << 36


_PATIENCE = Limits()


class Stopped(Exception):
    """The caller asked for an end; the part stays, and the next call continues."""


class _Again(Exception):
    """A try failed in a way that may pass; `wait`: what the server asks for, in seconds."""

    def __init__(self, reason: object, wait: float | None = None):
        super().__init__(printable(str(reason)))
        self.wait = wait


def download(
    address: str,
    target: Path,
    source: Source,
    *,
    hint: str = "",
    limits: Limits = _PATIENCE,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Downloads `address` to `target`, continuing what an earlier call left.

    Args:
        address: http or https.
        target: the file to write; its folder exists.
        source: size and checksums that the file must have, as far as known, and its name.
        hint: what an error about them adds.
        stop: ends the download soon after it is set.

    Returns:
        `size` (bytes) and `sha256` (hexadecimal) of the file.

    Raises:
        HodorError: the file is absent, is not what its name says, has another size or checksum, does not fit on the
            disk, cannot be checked, or the server failed too often (then the part stays and the next call continues).
        Stopped: `stop` was set.
    """
    part, stop = target.with_name(target.name + ".part"), stop or threading.Event()
    failures, best = 0, _length(part)
    # The part may be wrong though the remote file is right: it was put together from several tries (joined), or the
    # server announced no length, so that a broken connection looked like the end (open_ended).
    joined = open_ended = False
    while True:
        try:
            continued, open_ended = _attempt(address, part, source, hint, limits, stop)
            joined |= continued
            record, fault = compare(part, source, thorough=joined)
            if fault is None:
                break
            _discard(part)
            if not (joined or open_ended):
                raise HodorError(f"{address}: the file {fault}; open the address in a browser, or give a mirror{hint}")
            joined = False
            raise _Again(fault)
        except _Again as again:
            reached = _length(part)
            failures = 0 if reached >= best + limits.progress else failures + 1
            best = max(best, reached)
            if failures >= limits.attempts:
                raise HodorError(
                    f"{address}: gave up after {failures} tries in a row ({again}); {format_bytes(reached)} are kept "
                    f"in {part}: call again to continue, or give a mirror"
                ) from again
            wait = limits.first_wait * 2 ** max(failures - 1, 0) * random.uniform(0.8, 1.2)
            wait = min(max(wait, again.wait or 0.0), limits.longest_wait)
            print(f"{_label(part)}: {again}; next try in {wait:.1f} s\n", end="", file=sys.stderr, flush=True)
            if stop.wait(wait):
                raise Stopped from None
    if open_ended and not (source.size or source.sha256 or source.md5 or shows_its_end(part, source.archive)):
        raise HodorError(
            f"{part}: the server announced no length and no checksum is known, so that nothing shows whether the file "
            f"is whole; compare it with its source and rename it to {target.name}, or give a mirror"
        )
    os.replace(part, target)
    _note(part).unlink(missing_ok=True)
    return record


def remote_size(address: str, limits: Limits = _PATIENCE) -> int | None:
    """Length in bytes that a server announces; None where it does not, or not in time."""
    limits = replace(limits, timeout=min(limits.timeout, 10.0), stall=min(limits.stall, 10.0))
    try:
        with _Watchdog(limits) as watchdog, _opened(address, {}, watchdog, limits, "HEAD") as response:
            page = "html" in response.headers.get("Content-Type", "")
            return None if page or response.status != 200 else _number(response.headers.get("Content-Length"))
    except (HTTPError, ValueError):
        return None  # the download itself reports what is wrong


class _Watchdog(threading.Thread):
    """Shuts the connections of a try that brings too little of the content, whatever else the server sends.

    Timeouts of sockets start anew with every byte: they end neither headers that trickle, nor answers 1xx without end,
    nor a slow drip of content.
    """

    def __init__(self, limits: Limits):
        super().__init__(daemon=True)
        self.limits, self.received, self.too_slow = limits, 0, False
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()

    def __enter__(self) -> "_Watchdog":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def run(self) -> None:
        before = 0
        while not self._ended.wait(self.limits.stall):
            if self.received - before < self.limits.slowest * self.limits.stall:
                self.too_slow = True
                for connected in self._sockets:
                    with contextlib.suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
            before = self.received

    def pool(self, base: type[urllib3.HTTPConnectionPool]) -> type[urllib3.HTTPConnectionPool]:
        """Returns a class of connection pools whose connections are watched."""
        sockets = self._sockets

        class Connection(base.ConnectionCls):  # type: ignore[misc, name-defined]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        return type(base.__name__, (base,), {"ConnectionCls": Connection})


@contextlib.contextmanager
def _opened(
    address: str, headers: dict[str, str], watchdog: _Watchdog, limits: Limits, method: str = "GET"
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Sends a request and follows redirects, through the proxy of the environment where there is one."""
    url = urllib3.util.parse_url(address)
    proxy = None if urllib.request.proxy_bypass(url.host or "") else urllib.request.getproxies().get(url.scheme or "")
    manager = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
    pools = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
    manager.pool_classes_by_scheme = {scheme: watchdog.pool(pool) for scheme, pool in pools.items()}
    with manager:
        response = manager.request(
            method,
            address,
            headers={"User-Agent": "hodor", "Accept-Encoding": "identity"} | headers,
            timeout=limits.timeout,
            retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=10),
            preload_content=False,
            decode_content=False,
        )
        try:
            yield response
        finally:
            response.close()


def _attempt(
    address: str, part: Path, source: Source, hint: str, limits: Limits, stop: threading.Event
) -> tuple[bool, bool]:
    """Tries once to bring the part to its full length.

    Returns:
        Whether it was put together from several tries, and whether the server announced no length.
    """
    note = _read_note(part, address)
    offset = _length(part) if note.get("validator") else 0
    if offset and offset == note.get("total"):  # complete, but the call before ended ahead of the renaming
        return True, False
    headers = {"Range": f"bytes={offset}-", "If-Range": note["validator"]} if offset else {}
    with _Watchdog(limits) as watchdog:
        try:
            with _opened(address, headers, watchdog, limits) as response:
                offset, total = _start(address, response, part, note, offset)
                if None not in (source.size, total) and total != source.size:
                    _discard(part)
                    raise HodorError(
                        f"{address}: the server offers {total} bytes where {source.size} are expected; give a "
                        f"mirror{hint}"
                    )
                free = shutil.disk_usage(part.parent).free
                if total is not None and total - offset > free:
                    raise HodorError(
                        f"{part.parent}: {format_bytes(free)} are free, {format_bytes(total - offset)} more are needed "
                        f"for {source.archive}; make room"
                    )
                write_json_atomic(_note(part), {"address": address, "validator": _validator(response), "total": total})
                most = total or source.size or limits.unannounced
                progress = Progress(_label(part), total, done=offset)
                for block in _receive(address, response, part, offset, most, stop):
                    watchdog.received += block
                    progress.add(block)
        except (LocationValueError, UnicodeError) as error:
            raise HodorError(f"{address}: not an address ({error})") from error
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            if isinstance(reason, SSLError) and isinstance(reason.args[0], ssl.SSLCertVerificationError):
                raise HodorError(f"{address}: the server's certificate is not valid ({reason})") from error
            slow = f"less than {limits.slowest:.0f} bytes of content a second over {limits.stall:g} s"
            raise _Again(slow if watchdog.too_slow else f"no connection: {reason}") from error
    if total is not None and progress.count != total:
        raise _Again(f"the connection ended after {progress.count} of {total} bytes")
    progress.close()
    return offset > 0, total is None


def _start(
    address: str, response: urllib3.BaseHTTPResponse, part: Path, note: dict, offset: int
) -> tuple[int, int | None]:
    """First byte that the response brings and length of the whole file (None: not announced)."""
    status, headers = response.status, response.headers
    if status == 416:  # our part is longer than the remote file, so it is of another file
        _discard(part)
        raise _Again("the remote file is shorter than before, starting anew")
    if status in _TRANSIENT:
        raise _Again(f"the server answered {status}", _retry_after(response))
    if status not in (200, 206):
        raise HodorError(f"{address}: the server answered {status} ({response.reason}); give a mirror")
    if "html" in headers.get("Content-Type", ""):
        raise HodorError(
            f"{address}: the server sent a web page, not the file (a log-in, a notice, a moved file); open the address "
            "in a browser, or give a mirror"
        )
    if status == 200:
        return 0, _number(headers.get("Content-Length"))
    first, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    same = _validator(response) in (None, note.get("validator")) and total in ("*", str(note.get("total")))
    if not offset or first.split("-")[0] != str(offset) or not same:
        _discard(part)
        raise _Again("the server sent another range or another file, starting anew")
    return offset, note.get("total")


def _receive(
    address: str, response: urllib3.BaseHTTPResponse, part: Path, offset: int, most: int, stop: threading.Event
) -> Iterator[int]:
    """Writes what the server sends, `most` bytes of a file at most; yields the length of each block."""
    count, head = offset, b""

    def refuse(fault: str | None) -> None:
        if fault:
            _discard(part)
            raise HodorError(f"{address}: the file {fault}; open the address in a browser, or give a mirror")

    # Unbuffered: what a full disk did not take must not be tried again when the file is closed.
    with open(part, "r+b" if offset else "wb", buffering=0) as file:
        file.truncate(offset)
        file.seek(offset)
        while block := response.read1(_BLOCK, decode_content=False):
            if stop.is_set():
                raise Stopped
            if not offset and len(head) < HEAD:
                head += block[:HEAD]
                refuse(wrong_head(head, part.stem) if len(head) >= HEAD else None)
            count += len(block)
            refuse(f"is longer than the {format_bytes(most)} announced or allowed" if count > most else None)
            try:
                view = memoryview(block)
                while view:
                    view = view[file.write(view) :]
            except OSError as error:
                raise HodorError(f"{part}: cannot be written ({error.strerror}); make room and call again") from error
            yield len(block)
        refuse(wrong_head(head, part.stem) if head else None)
        os.fsync(file.fileno())


def _validator(response: urllib3.BaseHTTPResponse) -> str | None:
    tag, changed = response.headers.get("ETag"), response.headers.get("Last-Modified")
    # Weak tags promise the same meaning, not the same bytes. A date is exact to a second, in which a file that was changed
    # just now may change again: it must be a minute old (RFC 9110, 8.8.2.2; RFC 7232 has the minute).
    if tag and not tag.startswith("W/"):
        return tag
    try:
        date, changed_at = map(email.utils.parsedate_to_datetime, (response.headers.get("Date"), changed))
        return changed if (date - changed_at).total_seconds() >= 60 else None
    except (TypeError, ValueError):
        return None


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(response)
    except (HTTPError, ValueError, OverflowError):
        return None


def _number(text: str | None) -> int | None:
    """A length in a header; None where it is none, or longer than any file."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None


def _label(part: Path) -> str:
    """Data set and archive: several that are downloaded at once may have the same name."""
    return f"{part.parent.name}/{part.stem}"


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path, address: str) -> dict:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        fits = note["address"] == address and isinstance(note["validator"], str)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return note if fits else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
