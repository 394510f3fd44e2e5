"""`download` against a local server that misbehaves."""

import email.utils
import hashlib
import io
import random
import socket
import struct
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hodor.data import download as module
from hodor.data.download import Limits, download
from hodor.errors import HodorError

# Short waits; a stalled try ends after 0.3 s. 40 kB count as progress.
LIMITS = Limits(attempts=4, progress=40_000, first_wait=0.01, longest_wait=0.05, timeout=0.3, stall=0.4, slowest=50_000)


def archive_bytes(seed: int, size: int = 300_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("x.bin"), random.Random(seed).randbytes(size))  # of no date: always the same
    return buffer.getvalue()


@dataclass
class Server:
    """What the server has and what it does wrong: one entry of `script` for each request, then all is well."""

    content: bytes = field(default_factory=lambda: archive_bytes(0))
    etag: str | None = '"one"'
    changed: str | None = None  # Last-Modified
    script: list = field(default_factory=list)
    requests: list = field(default_factory=list)  # headers of each
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server: Server = self.server.state
        server.requests.append(dict(self.headers))
        fault = server.script.pop(0) if server.script else "fine"
        self.close_connection = True
        getattr(self, f"do_{fault.replace('-', '_')}")(server)

    def start(self, server, ranges=True, length_off=0, obey_if_range=True, status=None, kind="application/zip"):
        """Sends the headers; returns the bytes that belong behind them."""
        content, span = server.content, self.headers.get("Range")
        same = not obey_if_range or self.headers.get("If-Range") in (None, server.etag)
        first = int(span.removeprefix("bytes=").rstrip("-")) if span and ranges and same else 0
        if first >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""
        self.send_response(status or (206 if first else 200))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.changed:
            self.send_header("Last-Modified", server.changed)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - first + length_off))
        self.end_headers()
        return content[first:]

    def do_fine(self, server):
        self.wfile.write(self.start(server))

    def do_truncate(self, server):
        rest = self.start(server)
        self.wfile.write(rest[: len(rest) // 2])

    def do_truncate_early(self, server):
        self.wfile.write(self.start(server)[:1000])

    def do_stall(self, server):
        rest = self.start(server)
        self.wfile.write(rest[: len(rest) // 2])
        self.wfile.flush()
        time.sleep(0.6)

    def do_drip(self, server):
        for byte in self.start(server)[:40]:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def do_drop(self, server):
        pass

    def do_ignore_range(self, server):
        self.wfile.write(self.start(server, ranges=False))

    def do_wrong_range(self, server):
        """Answers 206, but from the start."""
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content)

    def do_other_file(self, server):
        """Ignores If-Range: sends the rest of another file of the same length."""
        server.content, server.etag = archive_bytes(1), '"two"'
        self.wfile.write(self.start(server, obey_if_range=False))

    def do_changed(self, server):
        server.content, server.etag = archive_bytes(1), '"two"'
        self.wfile.write(self.start(server))

    def do_shorter(self, server):
        """The remote file shrank below what is there already."""
        server.content, server.etag = archive_bytes(2, size=2000), '"three"'
        self.wfile.write(self.start(server, obey_if_range=False))

    def do_changed_with_the_same_tag(self, server):
        """The worst server: another file of the same length under the old tag."""
        server.content = archive_bytes(1)
        self.wfile.write(self.start(server))

    def do_reset(self, server):
        rest = self.start(server)
        self.wfile.write(rest[: len(rest) // 3])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def do_503(self, server):
        self.answer(503)

    def do_503_later(self, server):
        self.answer(503, {"Retry-After": "0"})

    def do_429(self, server):
        self.answer(429, {"Retry-After": "7"})

    def do_404(self, server):
        self.answer(404)

    def do_web_page(self, server):
        self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>please log in</html>")

    def do_hidden_web_page(self, server):
        self.answer(200, {"Content-Type": "application/zip"}, b"<!DOCTYPE html>please log in" * 50)

    def do_length_too_long(self, server):
        self.wfile.write(self.start(server, length_off=1000))

    def do_length_too_short(self, server):
        self.wfile.write(self.start(server, length_off=-1000)[:-1000])

    def do_no_length(self, server):
        self.send_response(200)
        self.send_header("Content-Type", "application/zip")
        self.end_headers()
        self.wfile.write(server.content)

    def do_no_length_cut(self, server):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(server.content[: len(server.content) // 2])

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads, http.state = True, state
    http.handle_error = lambda *_: None  # a client that hangs up is what some tests do
    state.address = f"http://127.0.0.1:{http.server_port}/coco/train.zip"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "train.zip"


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_downloads_and_leaves_nothing_else(server, target, capsys):
    expected = hashlib.sha256(server.content).hexdigest()
    assert download(server.address, target, limits=LIMITS) == (len(server.content), expected)
    assert target.read_bytes() == server.content and names(target) == ["train.zip"]
    assert "train.zip: 100 %, 300.1 kB of 300.1 kB" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["truncate", "stall", "reset"])
def test_broken_transfer_continues_where_it_ended(server, target, fault):
    server.script = [fault]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content
    first, second = server.requests
    assert "Range" not in first
    arrived = len(server.content) // (3 if fault == "reset" else 2)
    assert second["If-Range"] == '"one"' and int(second["Range"].removeprefix("bytes=").rstrip("-")) <= arrived
    assert fault == "reset" or second["Range"] == f"bytes={arrived}-"  # a reset may swallow what was on its way


def test_drip_is_a_stall(server, target):
    server.script = ["drip"]
    start = time.monotonic()
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content and len(server.requests) == 2
    assert time.monotonic() - start < 1.5, "every drop comes within the timeout; only the rate tells"


def test_server_that_ignores_ranges_starts_anew(server, target):
    server.script = ["truncate", "ignore-range"]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content and "Range" in server.requests[1]


@pytest.mark.parametrize("fault", ["changed", "other-file", "wrong-range", "shorter"])
def test_parts_of_two_files_are_never_joined(server, target, fault):
    server.script = ["truncate", fault]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content


@pytest.mark.parametrize("etag", [None, 'W/"one"'], ids=["none", "weak"])
def test_without_validator_nothing_is_continued(server, target, etag):
    server.etag, server.script = etag, ["truncate"]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content and "Range" not in server.requests[1]


def test_passing_answers_are_waited_for(server, target, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.script = ["503", "429", "drop"]
    download(server.address, target, limits=Limits(first_wait=1))
    assert target.read_bytes() == server.content
    assert 0.8 <= waits[0] <= 1.2 and waits[1] == 7 and 3.2 <= waits[2] <= 4.8


def test_retry_after_is_capped(server, target, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.script = ["429"]
    download(server.address, target, limits=LIMITS)
    assert waits == [LIMITS.longest_wait]


def test_retry_after_may_be_a_date():
    def wait(value):
        return module._retry_after({"Retry-After": value})

    assert 55 < wait(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert wait(email.utils.formatdate(time.time() - 60, usegmt=True)) == 0
    assert wait("12") == 12 and wait("soon") is None and module._retry_after({}) is None


def test_gives_up_with_one_error_and_continues_in_the_next_call(server, target):
    server.script = ["truncate", *["503"] * 4]
    with pytest.raises(HodorError, match=r"train\.zip: gave up after 4 tries in a row \(the server answered 503\)"):
        download(server.address, target, limits=LIMITS)
    assert not target.exists() and (target.parent / "train.zip.part").stat().st_size == len(server.content) // 2
    server.requests.clear()
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content and names(target) == ["train.zip"]
    assert server.requests[0]["Range"] == f"bytes={len(server.content) // 2}-"


def test_progress_resets_the_count_of_tries(server, target):
    server.script = ["503", "503", "truncate", "503", "503", "503"]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content


def test_tries_without_progress_end(server, target):
    server.script = ["truncate-early"] * 50
    with pytest.raises(HodorError, match="gave up after 4 tries"):
        download(server.address, target, limits=LIMITS)
    assert len(server.requests) == 4


def test_call_that_was_killed_before_the_renaming_is_finished(server, target, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "damage", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download(server.address, target, limits=LIMITS)
    assert names(target) == ["train.zip.part", "train.zip.part.json"]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content and len(server.requests) == 1


def test_part_of_another_address_is_not_continued(server, target):
    server.script = ["truncate", *["404"]]
    with pytest.raises(HodorError, match="404"):
        download(server.address, target, limits=LIMITS)
    other = server.address.replace("/coco/", "/other/")
    download(other, target, limits=LIMITS)
    assert target.read_bytes() == server.content and "Range" not in server.requests[-1]


@pytest.mark.parametrize(
    "fault, message", [("404", "answered 404"), ("web-page", "web page"), ("hidden-web-page", "web")]
)
def test_what_no_retry_mends_ends_at_once(server, target, fault, message):
    server.script = [fault]
    with pytest.raises(HodorError, match=message):
        download(server.address, target, limits=LIMITS)
    assert len(server.requests) == 1 and not target.exists()
    assert not any(path.stat().st_size for path in target.parent.iterdir())


def test_wrong_checksum_leaves_no_file(server, target):
    with pytest.raises(HodorError, match=r"train\.zip: sha256 [0-9a-f]{64} where 0{64} is expected"):
        download(server.address, target, sha256="0" * 64, limits=LIMITS)
    assert names(target) == []


def test_checksum_fails_once_after_a_continuation_then_starts_anew(server, target):
    """A part that another file left, with a validator that lies, is found by the checksum and thrown away."""
    server.script = ["truncate", *["404"]]
    with pytest.raises(HodorError):
        download(server.address, target, limits=LIMITS)
    part = target.parent / "train.zip.part"
    part.write_bytes(bytes([part.read_bytes()[0]]) + bytes(len(part.read_bytes()) - 1))
    download(server.address, target, sha256=hashlib.sha256(server.content).hexdigest(), limits=LIMITS)
    assert target.read_bytes() == server.content


def test_wrong_size_is_refused_before_the_content(server, target):
    with pytest.raises(HodorError, match=rf"offers {len(server.content)} bytes where 5 are expected"):
        download(server.address, target, size=5, limits=LIMITS)
    assert names(target) == []


def test_announced_length_too_long(server, target):
    server.script = ["length-too-long"] * 20
    with pytest.raises(HodorError, match="gave up"):
        download(server.address, target, limits=LIMITS)
    assert not target.exists()


def test_announced_length_too_short(server, target):
    server.script = ["length-too-short"] * 20
    with pytest.raises(HodorError, match="not a whole zip"):
        download(server.address, target, limits=LIMITS)
    assert names(target) == []


def test_unannounced_length(server, target):
    server.script = ["no-length-cut", "no-length"]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content


def test_full_disk_is_noticed_before_the_first_byte(server, target, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("U", (), {"free": 1000}))
    with pytest.raises(HodorError, match=r"1\.0 kB are free, 300\.1 kB more are needed for train\.zip"):
        download(server.address, target, limits=LIMITS)
    assert names(target) == []


def test_nobody_listens(target):
    with pytest.raises(HodorError, match=r"gave up after 4 tries in a row \(no connection"):
        download("http://127.0.0.1:9/train.zip", target, limits=LIMITS)


def test_parts_of_two_files_under_one_tag_are_never_joined(server, target):
    """No checksum is known; the members' own ones tell."""
    server.script = ["truncate", "changed-with-the-same-tag"]
    download(server.address, target, limits=LIMITS)
    assert target.read_bytes() == server.content and len(server.requests) == 3 and "Range" not in server.requests[2]


def test_a_date_validates_only_when_it_lies_back(server, target):
    server.etag, server.changed, server.script = (
        None,
        email.utils.formatdate(time.time() - 3600, usegmt=True),
        ["truncate"],
    )
    download(server.address, target, limits=LIMITS)
    assert "Range" in server.requests[1] and server.requests[1]["If-Range"] == server.changed
    target.unlink()
    server.changed, server.script, server.requests = email.utils.formatdate(usegmt=True), ["truncate"], []
    download(server.address, target, limits=LIMITS)
    assert "Range" not in server.requests[1], "changed in this minute: it may change again within its second"


def test_md5_is_compared(server, target):
    md5 = hashlib.md5(server.content).hexdigest()
    download(server.address, target, md5=md5, limits=LIMITS)
    target.unlink()
    with pytest.raises(HodorError, match="md5 [0-9a-f]{32} where 0{32} is expected.*; as the lock says"):
        download(server.address, target, md5="0" * 32, hint="; as the lock says", limits=LIMITS)
    assert names(target) == []


@pytest.mark.parametrize("name", ["model.pth", "benchmark.tgz", "set.tar"])
def test_web_page_is_told_from_any_kind_of_file(server, tmp_path, name):
    server.script = ["hidden-web-page"]
    with pytest.raises(HodorError, match="web page"):
        download(server.address, tmp_path / name, limits=LIMITS)
    assert not (tmp_path / name).exists()


def test_file_that_nothing_tells_whole_gets_no_name(server, tmp_path):
    server.content, server.script = b"\x80\x02" + bytes(50_000), ["no-length"]  # an old checkpoint, a bare pickle
    with pytest.raises(HodorError, match="announced no length and no checksum is known"):
        download(server.address, tmp_path / "model.pth", limits=LIMITS)
    assert not (tmp_path / "model.pth").exists()
    download(server.address, tmp_path / "model.pth", limits=LIMITS)
    assert (tmp_path / "model.pth").read_bytes() == server.content


def test_stop_ends_a_download_and_keeps_the_part(server, target):
    stop = threading.Event()
    stop.set()
    with pytest.raises(module.Stopped):
        download(server.address, target, limits=LIMITS, stop=stop)
    assert not target.exists()


FAULTS = (
    "truncate truncate-early stall drop reset ignore-range wrong-range other-file changed changed-with-the-same-tag "
    "shorter 503 503-later 429 404 web-page hidden-web-page length-too-long length-too-short no-length no-length-cut fine"
).split()


def run_faults(server, target, seed, length):
    """A row of faults, over as many calls as it takes: each ends with the right bytes or with one clear error."""
    draw = random.Random(seed)
    print(f"seed {seed}")
    server.script = [draw.choice(FAULTS) for _ in range(length)]
    expected = hashlib.sha256(server.content).hexdigest() if draw.random() < 0.5 else None
    for _ in range(2 * length):
        over = not server.script
        try:
            size, digest = download(server.address, target, sha256=expected, limits=LIMITS)
        except HodorError as error:
            assert "\n" not in str(error) and str(
                target.parent if "announced no" in str(error) else server.address
            ) in str(error)
            assert not target.exists()
            if over:  # nothing is wrong any more but the file itself
                assert expected and hashlib.sha256(server.content).hexdigest() != expected and "sha256" in str(error)
                return
            continue
        content = target.read_bytes()
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
        assert content in (archive_bytes(0), archive_bytes(1), archive_bytes(2, size=2000)), (
            "no file that ever was there"
        )
        assert expected in (None, digest) and names(target) == ["train.zip"]
        if over:
            assert content == server.content
            return
        target.unlink()
    raise AssertionError("the faults did not end")


@pytest.mark.parametrize("seed", range(6))
def test_random_faults_never_give_a_wrong_file(server, target, seed):
    run_faults(server, target, seed, length=10)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 106))
def test_a_hundred_random_faults_never_give_a_wrong_file(server, target, seed):
    run_faults(server, target, seed, length=100)
