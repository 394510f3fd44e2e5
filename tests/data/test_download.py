"""`download` from a server that misbehaves: the right file, or one clear error, and never without bound."""

import email.utils
import gzip
import hashlib
import random
import threading
import time
from types import SimpleNamespace

import pytest

from hodor.config.datasets import Source
from hodor.data import download as module
from hodor.data.download import Download, Limits
from hodor.errors import HodorError
from tests.data.hostile_server import hostile_server, noise_zip
from tests.refused import refused

# Short waits; 40 kB count as progress, and a try with less than 50 kB/s over 0.4 s ends.
LIMITS = Limits(attempts=4, progress=40_000, first_wait=0.01, longest_wait=0.05, timeout=0.3, stall=0.4, slowest=50_000)
CONTENT = noise_zip(0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "coco/train.zip"


@pytest.fixture
def server():
    with hostile_server() as state:
        state.files = {NAME: CONTENT}
        yield state


@pytest.fixture
def get(server, tmp_path):
    """Downloads the server's file; returns its content. Keywords: what is known of it, or limits and the like."""

    def call(name="train.zip", address=None, **settings):
        known = {key: settings.pop(key) for key in ("size", "sha256", "md5") if key in settings}
        source = Source("coco", "official", name, **known)
        options = {"limits": LIMITS} | settings
        record = Download(address or f"{server.address}/{NAME}", tmp_path / name, source, **options).run()
        content = (tmp_path / name).read_bytes()
        assert record == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return content

    return call


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Waits(threading.Event):
    """Records the seconds that a download waits, which it then does not."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return self.is_set()


def test_downloads_and_leaves_nothing_else(get, tmp_path, capsys):
    assert get() == CONTENT and names(tmp_path) == ["train.zip"]
    assert "train.zip: 100 %, 300.1 kB of 300.1 kB" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["truncate", "stall", "reset"])
def test_broken_transfer_continues_where_it_ended(get, server, fault):
    server.script = [fault]
    assert get() == CONTENT
    first, second = server.requests[0][2], server.requests[1][2]
    assert "Range" not in first and SHA256 in second["If-Range"]
    arrived = int(second["Range"].removeprefix("bytes=").rstrip("-"))
    assert arrived == len(CONTENT) // 2 or fault == "reset" and arrived < len(CONTENT) // 2


@pytest.mark.parametrize(
    "script, validators",
    [
        *((["truncate", fault], None) for fault in ("ignore-range", "wrong-range", "changed", "other-file", "shorter")),
        (["truncate", "same-tag"], None),  # no checksum is known; those of the members show it
        (["truncate"], {}),
        (["truncate"], {"ETag": 'W/"weak"'}),
        (["drip"], None),
        (["endless-100", "trickle"], None),
        (["no-length-cut", "no-length"], {}),
        (["truncate", "unannounced"], None),
        (["503", "503", "truncate", "503", "503", "503"], None),  # progress resets the count of tries
        (["huge-length"], None),
    ],
)
def test_parts_of_two_files_are_never_joined(get, server, script, validators):
    server.script, server.validators = list(script), validators
    assert get() == server.files[NAME] and not server.script
    if validators is not None:
        assert set(server.ranges()) == {None}, "without validator nothing is continued"


def test_transient_answers_are_waited_for(get, server):
    stop, server.script = Waits(), ["503", "429", "drop"]
    assert get(limits=Limits(first_wait=1), stop=stop) == CONTENT
    found = stop.seconds
    assert 0.8 <= found[0] <= 1.2 and found[1] == 7 and 3.2 <= found[2] <= 4.8
    server.script = ["429"]
    get(stop=stop)
    assert found[-1] == LIMITS.longest_wait, "Retry-After is capped"


def test_gives_up_with_one_error_and_continues_in_the_next_call(get, server, tmp_path, monkeypatch):
    server.script = ["truncate", *["503"] * 4]
    refused(r"train\.zip: gave up after 4 tries in a row \(the server answered 503\)", get)
    assert names(tmp_path) == ["train.zip.part", "train.zip.part.json"]
    server.requests.clear()
    rest = len(CONTENT) - len(CONTENT) // 2
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=rest))  # room for no more
    assert get() == CONTENT and names(tmp_path) == ["train.zip"]
    assert server.ranges() == [f"bytes={len(CONTENT) // 2}-"]


def test_call_that_was_killed_before_the_renaming_is_finished(get, server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "compare", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            get()
    assert names(tmp_path) == ["train.zip.part", "train.zip.part.json"]
    assert get() == CONTENT and len(server.requests) == 1


@pytest.mark.parametrize("change", ["address", "content", "note"])
def test_part_of_something_else_is_not_continued(get, server, tmp_path, change):
    server.script = ["truncate", "404"]
    refused("404", get)
    part, known = tmp_path / "train.zip.part", {}
    if change == "address":
        server.files = {"other.zip": CONTENT}
        known["address"] = f"{server.address}/other.zip"
    elif change == "content":  # under an unchanged validator: the checksum shows it
        part.write_bytes(part.read_bytes()[:1] + bytes(part.stat().st_size - 1))
        known["sha256"] = SHA256
    else:
        part.with_name("train.zip.part.json").write_text('{"validator": 3}')
    assert get(**known) == CONTENT and server.ranges()[-1] is None


@pytest.mark.parametrize("kind", ["old", "recent"])
def test_a_date_validates_only_when_it_is_a_minute_old(get, server, kind):
    changed = email.utils.formatdate(time.time() - (3600 if kind == "old" else 0), usegmt=True)
    server.validators, server.script = {"Last-Modified": changed}, ["truncate"]
    assert get() == CONTENT
    assert (server.ranges()[1] is not None) == (kind == "old"), "it may change again within its second"


@pytest.mark.parametrize(
    "script, known, message",
    [
        (["404"], {}, "answered 404"),
        (["bad-reason"], {}, r"404 \(\\x1b\[2JGone\\x07\)"),
        (["drip"] * 50, {}, "gave up after 4 tries.*less than 50000 bytes"),
        (["too-long-length"] * 20, {}, "gave up"),
        (["too-short-length"], {}, "truncated or damaged"),
        (["endless-100"] * 50, {}, "gave up after 4 tries.*less than 50000 bytes"),
        (["trickle"] * 50, {}, "gave up after 4 tries.*less than 50000 bytes"),
        (["endless-206"] * 50, {"sha256": "0" * 64}, "gave up after 4 tries.*sha256"),
        (["endless"], {}, r"longer than the 1\.0 MB"),
        (["endless"], {"size": 400_000}, r"longer than the 400\.0 kB"),
        ([], {"md5": "0" * 32}, "md5 [0-9a-f]{32} where 0{32} is expected.*; by the lock"),
        ([], {"size": 5}, rf"has {len(CONTENT)} bytes where 5 are expected.*; by the lock"),
    ],
)
def test_unavailable_files_are_one_error(get, server, tmp_path, script, known, message):
    server.script = script
    limits = Limits(**(vars(LIMITS) | {"unannounced": 1_000_000}))
    assert server.address in refused(message, get, hint="; by the lock", limits=limits, **known)
    assert "train.zip" not in names(tmp_path) and len(server.requests) <= 5
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000


PAGES = {
    "html": b"<!DOCTYPE html>please log in",
    "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "json": b'{"error": "not found"}',
    "text": b"Too many requests, try again later\n",
    "nothing": b"",
    "gzip": gzip.compress(b"<html>please log in</html>" * 100),
}


@pytest.mark.parametrize(
    "name, page, repeat",
    [
        *(("train.zip", page, repeat) for page in PAGES for repeat in (1, 100)),
        *((name, "html", 1) for name in ("model.pth", "benchmark.tgz", "set.tar")),
        *(("model.pth", "text", 100), ("benchmark.tgz", "gzip", 1), ("set.tar", "xml", 100), ("set.tar", "gzip", 1)),
    ],
)
def test_no_page_gets_the_name_of_an_archive(get, server, tmp_path, name, repeat, page):
    server.answer = ({"Content-Type": "application/octet-stream"}, PAGES[page] * repeat)
    server.script = ["answer"]
    refused(f"{server.address}.*(holds|truncated or damaged).*mirror", get, name=name)
    assert names(tmp_path) == [] and len(server.requests) == 1, "no retry helps"
    server.script, server.answer = ["answer"], ({"Content-Type": "text/html"}, CONTENT)
    refused("web page", get, name=name)


def test_file_that_may_be_incomplete_gets_no_name(get, server, tmp_path):
    server.files[NAME], server.script = b"\x80\x02" + bytes(50_000), ["no-length"]  # an old checkpoint, a bare pickle
    refused("announced no length and no checksum is known", get, name="model.pth")
    assert not (tmp_path / "model.pth").exists()
    assert get(name="model.pth") == server.files[NAME]


@pytest.mark.parametrize(
    "address, message",
    [
        ("http://127.0.0.1:9/x.zip", r"gave up after 4 tries in a row \(no connection"),
        ("http://", "not an address"),
        ("http://[x.zip", "not an address"),
        ("http://a\x1b[31m..b/x.zip", r"(not an address|gave up)"),
    ],
)
def test_nobody_listens(get, address, message):
    refused(message, get, address=address)


@pytest.mark.parametrize(
    "to, times, message",
    [("/coco/train.zip", 1, None), ("/coco/train.zip", 99, "gave up"), ("file:///etc/passwd", 1, "not an address")],
)
def test_redirects(get, server, to, times, message):
    server.script, server.answer = ["redirect"] * times, ({"Location": to}, b"")
    if message is None:
        assert get() == CONTENT
        return
    refused(message, get)
    assert len(server.requests) <= 4 * 11


def test_proxy_of_the_environment(get, server, monkeypatch):
    address = "http://example.invalid/train.zip"
    server.files = {address: CONTENT}
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("http_proxy", server.address.replace("http://", "name:word@"))
    assert get(address=address) == CONTENT
    assert server.requests[0][2]["proxy-authorization"].startswith("Basic ")


def test_stop_ends_a_download_and_keeps_the_part(get, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(module.Stopped):
        get(stop=stop)
    assert "train.zip" not in names(tmp_path)


FAULTS = (
    "truncate stall drop reset ignore-range wrong-range other-file changed same-tag shorter 503 429 404 "
    "too-long-length too-short-length no-length no-length-cut huge-length bad-reason fine fine"
).split()


@pytest.mark.parametrize("seed", range(6))
def test_random_faults_never_give_a_wrong_file(get, server, tmp_path, seed):
    """Ten faults, over as many calls as it takes: each ends with the right bytes or with one clear error."""
    draw = random.Random(seed)
    server.script = [draw.choice(FAULTS) for _ in range(10)]
    known = {"sha256": SHA256} if draw.random() < 0.5 else {}
    for _ in range(20):
        over = not server.script
        try:
            content = get(**known)
        except HodorError as error:
            assert str(error).isprintable() and "train.zip" in str(error) and "train.zip" not in names(tmp_path)
            if over:  # nothing is wrong any more but the file itself
                assert known and server.files[NAME] != CONTENT and "sha256" in str(error)
                return
            continue
        assert content in (noise_zip(0), noise_zip(1), noise_zip(2, size=2000)), "no file that ever existed"
        assert names(tmp_path) == ["train.zip"] and (not known or content == CONTENT)
        if over:
            assert content == server.files[NAME]
            return
        (tmp_path / "train.zip").unlink()
    raise AssertionError("the faults did not end")
