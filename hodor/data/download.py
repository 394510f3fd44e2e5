"""One file over HTTP, whole or not at all.

The bytes go to `<name>.part`; `<name>.part.json` holds what identifies the remote file (ETag or Last-Modified). A
broken transfer continues by range, with `If-Range`, so that a file that changed meanwhile starts anew; a server that
ignores ranges starts anew as well. Only a file of the announced length, that is the archive its name says and has the
expected checksum, gets its name.
"""

import email.utils
import http.client
import json
import os
import random
import shutil
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from hodor.data.progress import Progress, format_bytes
from hodor.data.wholeness import HEAD, damage, is_web_page
from hodor.errors import HodorError
from hodor.provenance import write_json_atomic

_PASSING = {408, 425, 429, 500, 502, 503, 504}
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
    # No byte for `timeout`, or less than `slowest` a second over `stall`, ends a try.
    timeout: float = 30.0
    stall: float = 60.0
    slowest: float = 1024.0


_PATIENCE = Limits()


class Stopped(Exception):
    """The caller asked for an end; the part stays, and the next call continues."""


class _Again(Exception):
    """A try failed in a way that may pass; `wait` is the server's wish in seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def download(
    address: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    hint: str = "",
    limits: Limits = _PATIENCE,
    stop: threading.Event | None = None,
) -> tuple[int, str]:
    """Downloads `address` to `target`, continuing what an earlier call left.

    Args:
        address: http or https.
        target: the file to write; its folder exists.
        size, sha256, md5: what the file must have, None where unknown.
        hint: what an error about them adds.
        stop: ends the download soon after it is set.

    Returns:
        Size in bytes and hexadecimal sha256 of the file.

    Raises:
        HodorError: the file is not there, is not what its name says, has another size or checksum, does not fit on
            the disk, cannot be told whole, or the server failed too often (then the part stays and the next call
            continues).
        Stopped: `stop` was set.
    """
    part = target.with_name(target.name + ".part")
    failures, best = 0, _length(part)
    # The part may be wrong though the remote file is right: it was put together from several tries (joined), or the
    # server announced no length, so that a broken connection looked like the end (endless).
    joined = endless = False
    while True:
        try:
            again, endless = _attempt(address, part, size, hint, limits, stop)
            joined |= again
            fault, digest = damage(part, target.name, size, sha256, md5, joined=joined, endless=endless)
            if fault is None:
                break
            _discard(part)
            if not (joined or endless):
                raise HodorError(
                    f"{address}: {fault}; the file there is not the expected one: look at the address in a browser, "
                    f"or give a mirror{hint}"
                )
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
            wait = min(limits.longest_wait, limits.first_wait * 2 ** max(failures - 1, 0) * random.uniform(0.8, 1.2))
            wait = wait if again.wait is None else min(max(wait, again.wait), limits.longest_wait)
            print(f"{_label(part)}: {again}; next try in {wait:.1f} s\n", end="", file=sys.stderr, flush=True)
            _pause(wait, stop)
    length = _length(part)
    os.replace(part, target)
    _note(part).unlink(missing_ok=True)
    return length, digest


def _attempt(
    address: str, part: Path, size: int | None, hint: str, limits: Limits, stop: threading.Event | None
) -> tuple[bool, bool]:
    """Tries once to bring the part to its full length.

    Returns:
        Whether it was put together from several tries, and whether the server announced no length.
    """
    note = _read_note(part, address)
    offset = _length(part) if note.get("validator") else 0
    if offset and offset == note.get("total"):  # complete, but the call before ended ahead of the renaming
        return True, False
    headers = {"User-Agent": "hodor", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": note["validator"]}
    with _open(address, headers, part, limits) as response:
        offset, total = _start(address, response, part, note, offset)
        if size is not None and total is not None and total != size:
            _discard(part)
            raise HodorError(
                f"{address}: the server offers {total} bytes where {size} are expected; give a mirror{hint}"
            )
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - offset > free:
            raise HodorError(
                f"{part.parent}: {format_bytes(free)} are free, {format_bytes(total - offset)} more are needed for "
                f"{part.name.removesuffix('.part')}; make room"
            )
        write_json_atomic(_note(part), {"address": address, "validator": _validator(response), "total": total})
        _receive(address, response, part, offset, total, limits, stop)
    return offset > 0, total is None


def _open(address: str, headers: dict, part: Path, limits: Limits) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=limits.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part is longer than the remote file, so it is of another file
            _discard(part)
            raise _Again("the remote file is shorter than before, starting anew") from error
        if error.code in _PASSING:
            raise _Again(f"the server answered {error.code}", _retry_after(error.headers)) from error
        raise HodorError(f"{address}: the server answered {error.code} ({error.reason}); give a mirror") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise HodorError(f"{address}: the server's certificate is not valid ({error.reason})") from error
        raise _Again(f"no connection ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise HodorError(f"{address}: not an address ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"no connection ({error or type(error).__name__})") from error


def _start(
    address: str, response: http.client.HTTPResponse, part: Path, note: dict, offset: int
) -> tuple[int, int | None]:
    """First byte that the response brings and length of the whole file (None: not announced)."""
    if "html" in response.headers.get_content_type():
        raise HodorError(_web_page(address))
    announced = response.headers.get("Content-Length")
    length = int(announced) if announced and announced.isdecimal() else None
    if response.status == 206:
        unit, _, span = response.headers.get("Content-Range", "").partition(" ")
        first, _, total = span.partition("/")
        same = _validator(response) in (None, note.get("validator")) and total in (
            "*",
            str(note.get("total")),
        )
        if not offset or unit != "bytes" or first.split("-")[0] != str(offset) or not same:
            _discard(part)
            raise _Again("the server sent another range or another file, starting anew")
        return offset, note.get("total")
    if response.status != 200:
        raise HodorError(f"{address}: unexpected answer {response.status}; give a mirror")
    return 0, length


def _receive(
    address: str,
    response: http.client.HTTPResponse,
    part: Path,
    offset: int,
    total: int | None,
    limits: Limits,
    stop: threading.Event | None,
) -> None:
    progress = Progress(_label(part), total, done=offset)
    window, received, head = time.monotonic(), 0, b""
    # Unbuffered: what a full disk did not take must not be tried again when the file is closed.
    with open(part, "r+b" if offset else "wb", buffering=0) as file:
        file.seek(offset)
        file.truncate()
        while True:
            _heed(stop)
            try:
                block = response.read1(_BLOCK)
            except TimeoutError as error:
                raise _Again(f"no byte for {limits.timeout:.0f} s") from error
            except (OSError, http.client.HTTPException) as error:
                raise _Again(f"the connection broke ({error or type(error).__name__})") from error
            if not block:
                break
            if not offset and len(head) < HEAD:
                head += block[:HEAD]
                not_zip = part.name.endswith(".zip.part") and len(head) >= 4 and not head.startswith(b"PK")
                if not_zip or is_web_page(head):
                    _discard(part)
                    raise HodorError(_web_page(address))
            _write(file, block)
            progress.add(len(block))
            received += len(block)
            elapsed = time.monotonic() - window
            if elapsed > limits.stall:
                if received < limits.slowest * elapsed:
                    raise _Again(f"only {received} bytes in {elapsed:.0f} s")
                window, received = time.monotonic(), 0
        os.fsync(file.fileno())
    if total is not None and progress.count != total:
        raise _Again(f"the connection ended after {progress.count} of {total} bytes")
    progress.close()


def _write(file, block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise HodorError(f"{file.name}: cannot be written ({error.strerror}); make room and call again") from error


def _pause(seconds: float, stop: threading.Event | None) -> None:
    if stop is None:
        time.sleep(seconds)
    else:
        stop.wait(seconds)
    _heed(stop)


def _heed(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Stopped


def _validator(response: http.client.HTTPResponse) -> str | None:
    tag, changed = response.headers.get("ETag"), response.headers.get("Last-Modified")
    # Weak tags promise the same meaning, not the same bytes. A date tells of a second, in which a file that was changed
    # just now may change again: it must lie a minute back (RFC 9110, 8.8.2.2; RFC 7232 has the minute).
    if tag and not tag.startswith("W/"):
        return tag
    try:
        age = email.utils.parsedate_to_datetime(response.headers.get("Date")) - (
            email.utils.parsedate_to_datetime(changed)
        )
        return changed if age.total_seconds() >= 60 else None
    except (TypeError, ValueError):
        return None


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    value = headers.get("Retry-After")
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _web_page(address: str) -> str:
    return (
        f"{address}: the server sent a web page or another kind of file, not the archive (a log-in, a notice, a moved "
        "file); look at the address in a browser, or give a mirror"
    )


def _label(part: Path) -> str:
    """Data set and archive: several that come at once may have the same name."""
    return f"{part.parent.name}/{part.name.removesuffix('.part')}"


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path, address: str) -> dict:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("address") == address else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
