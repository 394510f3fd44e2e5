"""Download of one file over HTTP, complete or not at all.

urllib3 opens connections, follows redirects and enforces lengths. Added here: a broken transfer stays in `<name>.part`
and continues by range with `If-Range`, so that a file that changed meanwhile starts anew; a server that is too slow, or
sends without end, is disconnected; a file gets its name when its checksum, or else its format, is the expected one.
`<name>.part.json` holds what identifies the remote file (ETag or Last-Modified).
"""

import contextlib
import email.utils
import json
import os
import random
import re
import socket
import ssl
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError, SSLError

from hodor.config.datasets import Source
from hodor.data.archives import HEAD, shows_its_end, wrong_head
from hodor.data.checksums import compare
from hodor.data.files import require_room
from hodor.data.progress import Progress, format_bytes
from hodor.errors import HodorError, printable
from hodor.provenance import write_json_atomic


@dataclass(frozen=True)
class Limits:
    """Patience with a server. Times in seconds, amounts in bytes."""

    # Consecutive attempts with less than `progress` new bytes each; an attempt with more resets the count.
    attempts: int = 6
    progress: int = 1 << 20
    # Waits between attempts double from `first_wait`; a server's Retry-After is obeyed up to `longest_wait`.
    first_wait: float = 1.0
    longest_wait: float = 120.0
    # No byte for `timeout`, or content of less than `slowest` a second over `stall`, ends an attempt.
    timeout: float = 30.0
    stall: float = 60.0
    slowest: float = 1024.0
    # Largest file accepted where no length is announced.
    unannounced: int = 1 << 36


PATIENCE = Limits()


class Stopped(Exception):
    """The caller stopped the download; the part stays, and the next call continues."""


class _Again(Exception):
    """An attempt failed in a way that may pass. wait: seconds that the server asks to wait."""

    def __init__(self, reason: object, wait: float | None = None):
        super().__init__(printable(str(reason)))
        self.wait = wait


@contextlib.contextmanager
def connect(address: str, headers: dict[str, str], limits: Limits) -> Iterator[urllib3.BaseHTTPResponse]:
    """Send a request and follow redirects, through the proxy of the environment if it names one.

    The timeout of a socket restarts with every byte, so it ends neither a trickle nor endless 1xx answers: a watchdog
    shuts connections down that deliver less content than `limits` demand, headers counting as none.
    """
    sockets: list[socket.socket] = []
    pools = {}
    for base in (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool):

        class Connection(base.ConnectionCls):  # type: ignore[misc, name-defined]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        pools[base.scheme] = type(base.__name__, (base,), {"ConnectionCls": Connection})

    response, ended, too_slow = None, threading.Event(), threading.Event()

    def watch() -> None:
        before = 0
        while not ended.wait(limits.stall):
            count = response.tell() if response else 0
            if count - before < limits.slowest * limits.stall:
                too_slow.set()
                for connected in sockets:
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(connected, socket.SHUT_RDWR)
            before = count

    url = urllib3.util.parse_url(address)
    proxy = None if urllib.request.proxy_bypass(url.host or "") else urllib.request.getproxies().get(url.scheme or "")
    manager = urllib3.PoolManager()
    if proxy:
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        auth = urllib3.util.parse_url(proxy).auth
        manager = urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=auth))
    manager.pool_classes_by_scheme = pools
    threading.Thread(target=watch, daemon=True).start()
    with manager:
        try:
            response = manager.request(
                "GET",
                address,
                headers={"User-Agent": "hodor", "Accept-Encoding": "identity"} | headers,
                timeout=limits.timeout,
                retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=10),
                preload_content=False,
                decode_content=False,
            )
            with contextlib.closing(response):
                yield response
        except HTTPError:
            if not too_slow.is_set():
                raise
        finally:
            ended.set()
    if too_slow.is_set():
        raise _Again(f"less than {limits.slowest:.0f} bytes a second over {limits.stall:g} s")


def get_validator(response: urllib3.BaseHTTPResponse) -> str | None:
    """Return the header that identifies the bytes of a file, for `If-Range`; None if there is none."""
    tag, changed = response.headers.get("ETag"), response.headers.get("Last-Modified")
    # Weak tags promise the same meaning, not the same bytes. A date is exact to a second, in which a file may change
    # again: it must be a minute old (RFC 9110, 8.8.2.2; RFC 7232 has the minute).
    if tag and not tag.startswith("W/"):
        return tag
    try:
        date, changed_at = map(email.utils.parsedate_to_datetime, (response.headers.get("Date"), changed))
        return changed if (date - changed_at).total_seconds() >= 60 else None
    except (TypeError, ValueError):
        return None


def get_retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Return the seconds that a server asks to wait, or None."""
    try:
        return urllib3.Retry().get_retry_after(response)
    except (HTTPError, ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Download:
    """A download of `address` (http or https) to `target`, which continues what an earlier one left."""

    address: str
    target: Path
    source: Source  # the archive's name, and its size and checksums as far as known
    hint: str = ""  # added to an error about size or checksum
    limits: Limits = PATIENCE
    stop: threading.Event = field(default_factory=threading.Event)  # ends the download soon after it is set

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    @property
    def label(self) -> str:
        return f"{self.target.parent.name}/{self.target.name}"  # archives of several data sets have the same name

    @property
    def fix(self) -> str:
        if not self.source.terms:
            return "give a mirror"
        where = "; ".join(filter(None, [f"its page: {self.source.terms}", self.source.note]))
        return f"give a mirror, or download it by hand as {self.target} ({where})"

    def run(self) -> dict[str, Any]:
        """Download until the file is complete; return its `size` (bytes) and `sha256` (hexadecimal).

        Raises:
            HodorError: the file is absent, has another format, size or checksum, does not fit on the disk, cannot be
                checked, or the server failed too often (then the part stays and the next call continues).
            Stopped: `stop` was set.
        """
        failures, best = 0, self.length()
        # The part may be wrong though the remote file is right: it was joined from several attempts, or the server
        # announced no length, so that a broken connection looked like the end (open_ended).
        while True:
            try:
                joined, open_ended = self.attempt()
                record, fault = compare(self.part, self.source, thorough=joined)
                if fault is None:
                    break
                if not (joined or open_ended):
                    self.refuse(fault)
                self.discard()
                raise _Again(fault)
            except _Again as again:
                reached = self.length()
                failures = 0 if reached >= best + self.limits.progress else failures + 1
                best = max(best, reached)
                if failures >= self.limits.attempts:
                    raise HodorError(
                        f"{self.address}: gave up after {failures} tries in a row ({again}); {format_bytes(reached)} "
                        f"are kept in {self.part}: call again to continue, or {self.fix}"
                    ) from again
                wait = self.limits.first_wait * 2 ** max(failures - 1, 0) * random.uniform(0.8, 1.2)
                wait = min(max(wait, again.wait or 0.0), self.limits.longest_wait)
                print(f"{self.label}: {again}; next try in {wait:.1f} s\n", end="", file=sys.stderr, flush=True)
                if self.stop.wait(wait):
                    raise Stopped from None
        known = self.source.size or self.source.sha256 or self.source.md5
        if open_ended and not (known or shows_its_end(self.part, self.source.archive)):
            raise HodorError(
                f"{self.part}: the server announced no length and no checksum is known, so the file may be incomplete; "
                f"compare it with its source and rename it to {self.part.stem}, or give a mirror"
            )
        os.replace(self.part, self.target)
        self.note.unlink(missing_ok=True)
        return record

    def attempt(self) -> tuple[bool, bool]:
        """Try to complete the part; return whether it was joined from several attempts, and whether it had no length."""
        note = self.read_note()
        offset = self.length() if note else 0
        if offset and offset == note["total"]:  # complete, but the call before was killed before the renaming
            return True, False
        headers = {"Range": f"bytes={offset}-", "If-Range": note["validator"]} if offset else {}
        try:
            with connect(self.address, headers, self.limits) as response:
                offset, total = self.begin(response, note, offset)
                known = {"address": self.address, "validator": get_validator(response), "total": total}
                write_json_atomic(self.note, known)
                progress = Progress(self.label, total, done=offset)
                self.receive(response, offset, total or self.source.size or self.limits.unannounced, progress)
        except (LocationValueError, UnicodeError) as error:
            raise HodorError(f"{self.address}: not an address ({error}); correct it") from error
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            if isinstance(reason, SSLError) and isinstance(reason.args[0], ssl.SSLCertVerificationError):
                raise HodorError(f"{self.address}: the server's certificate is not valid ({reason})") from error
            text = re.sub(r"^\w*Connection\(.*?\): ", "", str(reason))  # urllib3's object
            raise _Again(f"no connection: {text}") from error
        progress.show()
        return offset > 0, total is None

    def begin(self, response: urllib3.BaseHTTPResponse, note: dict, offset: int) -> tuple[int, int | None]:
        """Return where the content of the response starts, and the length of the file, None if not announced."""
        status, headers = response.status, response.headers
        if status == 416:  # the part is longer than the remote file, so it is of another file
            self.discard()
            raise _Again("the remote file is shorter than before, starting anew")
        if status in (408, 425, 429, 500, 502, 503, 504):
            raise _Again(f"the server answered {status}", get_retry_after(response))
        if status not in (200, 206):
            raise HodorError(f"{self.address}: the server answered {status} ({response.reason}); {self.fix}")
        if "html" in headers.get("Content-Type", ""):
            self.refuse("is a web page (a log-in, a notice, a moved file)")
        if status == 200:
            offset, total = 0, response.length_remaining
        else:
            first, _, length = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            same = get_validator(response) in (None, note.get("validator")) and length in ("*", str(note.get("total")))
            if not offset or first.split("-")[0] != str(offset) or not same:
                self.discard()
                raise _Again("the server sent another range or another file, starting anew")
            total = note["total"]
        if None not in (self.source.size, total) and total != self.source.size:
            self.refuse(f"has {total} bytes where {self.source.size} are expected")
        require_room(self.target.parent, (total or 0) - offset, self.target.name)
        return offset, total

    def receive(self, response: urllib3.BaseHTTPResponse, offset: int, most: int, progress: Progress) -> None:
        """Write what the server sends, up to `most` bytes of the file."""
        count, head = offset, b""
        # Unbuffered: what a full disk did not take must not be tried again when the file is closed.
        with open(self.part, "r+b" if offset else "wb", buffering=0) as file:
            file.truncate(offset)
            file.seek(offset)
            while block := response.read1(1 << 18, decode_content=False):
                if self.stop.is_set():
                    raise Stopped
                if not offset and len(head) < HEAD:  # of a shorter file `compare` checks the head
                    head += block[:HEAD]
                    self.refuse(wrong_head(head, self.part.stem) if len(head) >= HEAD else None)
                count += len(block)
                self.refuse(f"is longer than the {format_bytes(most)} announced or allowed" if count > most else None)
                view = memoryview(block)
                try:
                    while view:
                        view = view[file.write(view) :]
                except OSError as error:
                    reason = f"cannot be written ({error.strerror}); make room, call again"
                    raise HodorError(f"{self.part}: {reason}") from error
                progress.add(len(block))
            os.fsync(file.fileno())

    def refuse(self, fault: str | None) -> None:
        """Delete the part and end the download if something is wrong with the remote file."""
        if fault:
            self.discard()
            raise HodorError(
                f"{self.address}: the file {fault}; open the address in a browser, or {self.fix}{self.hint}"
            )

    def read_note(self) -> dict[str, Any]:
        """Return what an earlier call noted about this address; empty if the part cannot be continued."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            fits = note["address"] == self.address and isinstance(note["validator"], str) and "total" in note
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return note if fits else {}

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def length(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0
