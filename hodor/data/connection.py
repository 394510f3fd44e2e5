"""Connections to servers that may misbehave: urllib3, and a watchdog that ends what timeouts of sockets do not."""

import contextlib
import email.utils
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace

import urllib3
from urllib3.exceptions import HTTPError


@dataclass(frozen=True)
class Limits:
    """Patience with a server. Times in seconds, amounts in bytes."""

    # Tries in a row with less than `progress` new bytes each; a try with more resets the count.
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


class Watchdog(threading.Thread):
    """Shuts the connections of a try that receives too little content, whatever else the server sends.

    Timeouts of sockets start anew with every byte: they end neither headers that trickle, nor answers 1xx without end,
    nor a slow drip of content.
    """

    def __init__(self, limits: Limits):
        super().__init__(daemon=True)
        self.limits, self.received, self.too_slow = limits, 0, False
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
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
def connect(
    address: str, headers: dict[str, str], watchdog: Watchdog, limits: Limits, method: str = "GET"
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Sends a request and follows redirects, through the proxy of the environment if it names one."""
    url = urllib3.util.parse_url(address)
    proxy = None if urllib.request.proxy_bypass(url.host or "") else urllib.request.getproxies().get(url.scheme or "")
    manager = urllib3.PoolManager()
    if proxy:
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        auth = urllib3.util.parse_url(proxy).auth
        signed = urllib3.make_headers(proxy_basic_auth=auth) if auth else None
        manager = urllib3.ProxyManager(proxy, proxy_headers=signed)
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


def remote_size(address: str, limits: Limits) -> int | None:
    """Length in bytes that a server announces; None where it does not, or not in time."""
    limits = replace(limits, timeout=min(limits.timeout, 10.0), stall=min(limits.stall, 10.0))
    try:
        with Watchdog(limits) as watchdog, connect(address, {}, watchdog, limits, "HEAD") as response:
            page = "html" in response.headers.get("Content-Type", "")
            return None if page or response.status != 200 else parse_length(response.headers.get("Content-Length"))
    except (HTTPError, ValueError):
        return None  # the download itself reports what is wrong


def get_validator(response: urllib3.BaseHTTPResponse) -> str | None:
    """Returns the header that identifies the bytes of a file, for `If-Range`; None if there is none."""
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


def get_retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Returns the seconds that a server asks to wait, None where it does not."""
    try:
        return urllib3.Retry().get_retry_after(response)
    except (HTTPError, ValueError, OverflowError):
        return None


def parse_length(text: str | None) -> int | None:
    """A length in a header; None where it is none, or longer than any file."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None
