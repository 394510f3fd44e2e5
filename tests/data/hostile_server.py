"""A local HTTP server with the faults of real ones, and archives for it to serve."""

import contextlib
import hashlib
import io
import random
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def zip_bytes(*members, compression=zipfile.ZIP_STORED) -> bytes:
    """A zip of (name or ZipInfo, content) pairs; the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, content, compression)
    return buffer.getvalue()


def noise_zip(seed: int, size: int = 300_000) -> bytes:
    return zip_bytes(("x.bin", random.Random(seed).randbytes(size)))


@dataclass
class State:
    """Files and faults of the server: one fault of `script` for each GET, then none."""

    files: dict[str, bytes] = field(default_factory=dict)
    script: list[str] = field(default_factory=list)
    validators: dict[str, str] | None = None  # headers; a strong ETag if None
    requests: list[tuple[str, str, dict]] = field(default_factory=list)  # method, path, headers
    answer: tuple[dict, bytes] = ({}, b"")  # headers and body of the fault "answer"
    pause: float = 0.0  # between blocks of 20 kB
    running: int = 0
    most: int = 0  # downloads at once
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for method, _, headers in self.requests if method == "GET"]


@contextlib.contextmanager
def hostile_server() -> Iterator[State]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads, http.state = True, State(address=f"http://127.0.0.1:{http.server_port}")
    http.handle_error = lambda *_: None  # a client that hangs up is what some tests do
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield http.state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.record()
        fault = self.state.script.pop(0) if self.state.script else "fine"
        if self.name not in self.state.files:
            self.reply(404)
        elif fault.isdecimal():
            self.reply(int(fault), {"Retry-After": "7"} if fault == "429" else {})
        elif fault in ANSWERS:
            self.reply(*ANSWERS[fault](self.state, self.state.files[self.name]))
        elif fault in BODIES:
            self.wfile.write(BODIES[fault](self))
        else:
            getattr(self, fault.replace("-", "_"))()

    def count(self, change: int) -> None:
        with self.state.lock:
            self.state.running += change
            self.state.most = max(self.state.most, self.state.running)

    def record(self):
        self.state, self.name, self.close_connection = self.server.state, self.path.lstrip("/"), True
        self.state.requests.append((self.command, self.name, dict(self.headers)))

    def tags(self) -> dict[str, str]:
        tag = hashlib.sha256(self.state.files[self.name]).hexdigest()
        return {"ETag": f'"{tag}"'} if self.state.validators is None else self.state.validators

    def reply(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def head(self, ranges=True, extra=0, obey=True) -> bytes:
        """Sends the headers; returns the bytes that belong behind them."""
        content, span = self.state.files[self.name], self.headers.get("Range")
        same = not obey or self.headers.get("If-Range") in (None, *self.tags().values())
        first = int(span.removeprefix("bytes=").rstrip("-")) if span and ranges and same else 0
        if first >= len(content):
            self.reply(416)
            return b""
        span = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        length = str(len(content) - first + extra)
        self.reply(206 if first else 200, {**span, **self.tags(), "Content-Length": length})
        return content[first:]

    def cut(self, rest: bytes, end: int) -> None:
        self.wfile.write(rest[:end])
        self.wfile.flush()

    def fine(self):
        rest = self.head()
        self.count(1)
        for start in range(0, len(rest), 20_000):
            time.sleep(self.state.pause)
            if start + 20_000 >= len(rest):
                self.count(-1)  # before the last bytes: after them the client may ask again at once
            self.wfile.write(rest[start : start + 20_000])

    def truncate(self):
        rest = self.head()
        self.cut(rest, len(rest) // 2)

    def stall(self):
        self.truncate()
        time.sleep(0.6)

    def reset(self):
        self.truncate()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def drip(self):
        for byte in self.head()[:60]:
            self.cut(bytes([byte]), 1)
            time.sleep(0.05)

    def wrong_range(self):
        """Answers 206, but from the start."""
        content = self.state.files[self.name]
        self.reply(206, {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}", **self.tags()}, content)

    def changed(self):
        self.state.files[self.name] = noise_zip(1)
        self.wfile.write(self.head())

    def other_file(self):
        """Ignores If-Range: sends the rest of another file of the same length."""
        self.state.files[self.name] = noise_zip(1)
        self.wfile.write(self.head(obey=False))

    def shorter(self):
        """The remote file shrank below what was downloaded already."""
        self.state.files[self.name] = noise_zip(2, size=2000)
        self.wfile.write(self.head(obey=False))

    def same_tag(self):
        """Another file of the same length under the old tag."""
        tags = self.tags()
        self.state.files[self.name], self.state.validators = noise_zip(1), tags
        self.wfile.write(self.head())

    def endless(self):
        """A body without length and without end."""
        self.reply(200, {"Content-Length": None}, self.state.files[self.name])
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(100_000))

    def endless_206(self):
        self.unannounced(repeat=True)

    def unannounced(self, repeat=False):
        """Continues by range, but never states a length; `repeat`: sends the whole file behind any range."""
        first, content = int(self.headers.get("Range", "bytes=0-")[6:-1]), self.state.files[self.name]
        span = {"Content-Range": f"bytes {first}-{len(content) - 1}/*"} if first else {}
        body = content if repeat else content[first:]
        self.reply(206 if first else 200, {**span, **self.tags(), "Content-Length": None}, body)

    def endless_100(self):
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def trickle(self):
        """Headers, a byte at a time."""
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200:
                self.cut(bytes([byte]), 1)
                time.sleep(0.05)


# Fault -> status, headers and body, of the state and the file.
ANSWERS = {
    "no-length": lambda state, content: (200, {"Content-Length": None}, content),
    "no-length-cut": lambda state, content: (200, {"Content-Length": None}, content[: len(content) // 2]),
    "huge-length": lambda state, content: (200, {"Content-Length": "9" * 5000}, content),
    "redirect": lambda state, content: (302, state.answer[0]),
    "answer": lambda state, content: (200, *state.answer),
}
# Fault -> what is sent, behind the headers that the handler has sent.
BODIES = {
    "drop": lambda handler: b"",
    "ignore-range": lambda handler: handler.head(ranges=False),
    "too-long-length": lambda handler: handler.head(extra=1000),
    "too-short-length": lambda handler: handler.head(extra=-1000)[:-1000],
    "bad-reason": lambda handler: b"HTTP/1.1 404 \x1b[2JGone\x07\r\nContent-Length: 0\r\n\r\n",
}
