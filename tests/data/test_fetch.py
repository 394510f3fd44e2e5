"""The verb `fetch`: from folders, from servers, by hand, generated; `hodor fetch NAME ...`; recorded checksums."""

import fcntl
import hashlib
import json
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from hodor.config.datasets import ARCHIVES, Source, archives
from hodor.data import fetch as module
from hodor.data import synthetic
from hodor.data.checksums import LockFile
from hodor.data.download import Limits
from hodor.data.fetch import fetch
from hodor.errors import HodorError
from tests.data.hostile_server import zip_bytes
from tests.refused import refused

SET = "coco-persons-small"
NAMES = ARCHIVES[SET]
LIMITS = Limits(attempts=2, first_wait=0.01, longest_wait=0.05, timeout=1)


def write_zip(path, content=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_bytes(("x.txt", content)))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp(mirror=None, dataset=SET, edition="subset", **changes):
    """The stamp of a fetch; `changes` are of its first archive."""
    entries = [{"archive": name} for name in ARCHIVES[dataset]]
    entries[0] |= changes
    mirror = mirror and str(mirror)
    return {"settings": {"dataset": dataset, "edition": edition, "mirror": mirror, "archives": entries}}


@pytest.fixture
def mirror(tmp_path):
    for name in NAMES:
        write_zip(tmp_path / "mirror" / SET / name, name.encode())
    return tmp_path / "mirror"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "archives"


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "config" / "locks" / "subset.json"


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# From a folder


def test_copies_from_a_folder_records_and_copies_nothing_twice(mirror, out, lock, monkeypatch, capsys):
    monkeypatch.chdir(mirror.parent)
    first = mirror / SET / NAMES[0]
    known = {"size": first.stat().st_size, "sha256": sha256(first)}
    fetch(stamp("mirror", **known), out, lock)
    assert visible(out) == sorted([*NAMES, "archives.json"])
    record = json.loads((out / "archives.json").read_text())
    for name in NAMES:
        path = mirror / SET / name
        assert (out / name).read_bytes() == path.read_bytes()
        assert record[name] == {"size": path.stat().st_size, "sha256": sha256(path)}
    assert json.loads(lock.read_text()) == {f"{SET}/{NAMES[1]}": record[NAMES[1]]}, "published ones are not recorded"
    before = {name: (out / name).stat().st_ino for name in NAMES}
    (out / "archives.json").unlink()  # the workflow deletes what a rule declares
    fetch(stamp(**known), out, lock)  # no mirror, no address, and none is needed
    assert {name: (out / name).stat().st_ino for name in NAMES} == before
    assert json.loads((out / "archives.json").read_text()) == record
    (out / NAMES[0]).write_bytes(first.read_bytes()[:-10] + bytes(10))
    fetch(stamp(mirror, **known), out, lock)
    assert (out / NAMES[0]).read_bytes() == first.read_bytes() and f"{NAMES[0]}: sha256" in capsys.readouterr().err
    write_zip(first, b"other content")
    fetch(stamp(mirror), out)  # without any checksum the mirror decides
    assert (out / NAMES[0]).read_bytes() == first.read_bytes()
    refused("md5", fetch, stamp(mirror, md5="0" * 32), out)
    assert "archives.json" not in visible(out), "an earlier fetch is no result of this one"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"size": 5}, r"size \d+ where 5 is expected"),
        ({"md5": "0" * 32}, r"md5 [0-9a-f]{32} where 0{32} is expected"),
        (b"<html>", "holds a web page where a .zip file is expected"),
    ],
)
def test_wrong_archive_in_the_mirror_gets_no_name(mirror, out, lock, change, message):
    if isinstance(change, bytes):
        (mirror / SET / NAMES[0]).write_bytes(change)
        change = {}
    refused(f"{mirror}/{SET}/{NAMES[0]}: {message}.*replace the file", fetch, stamp(mirror, **change), out, lock)
    assert visible(out) == [NAMES[1]], "the other archive came and stays; nothing is listed"
    assert list(json.loads(lock.read_text())) == [f"{SET}/{NAMES[1]}"], "no wrong file is recorded"


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("{mirror}/gone", f"no such folder; give the folder that holds {SET}/{NAMES[0]}"),
        ("{mirror}/other", rf"{NAMES[0]}: the mirror has no such file \(a\\x1b\[2Jb, val\.zip in"),
        ("ftp://x", "mirror ftp://x: must be a folder or start with http"),
        ("a\0b", r"mirror a\\x00b: must be a folder"),
        ("~nouser/x", "mirror ~nouser/x: "),
        ("http://a\0b", "not an address|gave up"),
        (None, "edition subset has no address; give mirror=FOLDER with"),
    ],
)
def test_wrong_mirror_is_one_line_for_each_archive(mirror, out, wrong, message):
    for name in ("val.zip", "a\x1b[2Jb"):
        write_zip(mirror / "other" / SET / name)
    with pytest.raises(HodorError, match=message) as caught:
        fetch(stamp(wrong and wrong.format(mirror=mirror)), out, limits=LIMITS)
    assert str(caught.value).replace("\n", "").isprintable() and not visible(out)


def test_two_fetches_at_once_are_refused(mirror, out):
    out.mkdir(parents=True)
    with open(out / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused("another fetch writes there", fetch, stamp(mirror), out)
    fetch(stamp(mirror), out)


def test_room_for_all_is_asked_before_the_first_byte(mirror, out, monkeypatch):
    sizes = [(mirror / SET / name).stat().st_size for name in NAMES]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=sum(sizes) - 1))
    refused(f"are free, .* are needed for {NAMES[0]}, {NAMES[1]}; make room", fetch, stamp(mirror), out)
    refused(f"are needed for {NAMES[0]}; make room", fetch, stamp("http://127.0.0.1:9", size=1 << 30), out)
    assert not visible(out)


# By hand, and generated


def test_log_in_reports_what_to_do_and_continues_when_done(out, root, lock):
    entries = archives(root / "config" / "datasets.csv", "youtube-vos", "official")
    wanted = {"settings": {"dataset": "youtube-vos", "edition": "official", "mirror": None, "archives": entries}}
    error = refused("train.zip and valid.zip", fetch, wanted, out, lock)
    for text in ("https://youtube-vos.org/", str(out), "FOLDER/youtube-vos/train.zip"):
        assert text in error
    write_zip(out / "train.zip")
    refused("download valid.zip from", fetch, wanted, out, lock)
    (out / "valid.zip").write_bytes(b'{"error": "log in"}')
    refused(r"valid\.zip: holds JSON where a \.zip file is expected; replace", fetch, wanted, out, lock)
    assert list(json.loads(lock.read_text())) == ["youtube-vos/train.zip"]
    write_zip(out / "valid.zip")
    fetch(wanted, out, lock)
    assert set(json.loads((out / "archives.json").read_text())) == {"train.zip", "valid.zip"}
    write_zip(out / "valid.zip", b"another year")
    refused(r"valid\.zip: .* is expected.*subset\.json recorded it", fetch, wanted, out, lock)


def test_generated_archives_are_recorded_and_half_ones_are_not(out, monkeypatch):
    def generate(dataset, options, folder):
        for name in (*ARCHIVES[dataset], "valid_truth.zip"):
            write_zip(folder / name, str(options.seed).encode())
            if options.seed == 4:
                raise HodorError("no room")

    def wanted(**options):
        return {"settings": {"dataset": "youtube-vos", "edition": "generated", "archives": [], "generated": options}}

    monkeypatch.setattr(synthetic, "generate", generate)
    fetch(wanted(seed=3), out)
    assert set(json.loads((out / "archives.json").read_text())) == {"train.zip", "valid.zip", "valid_truth.zip"}
    content = (out / "train.zip").read_bytes()
    refused("no room", fetch, wanted(seed=4), out)
    assert (out / "train.zip").read_bytes() == content == zip_bytes(("x.txt", b"3")) and not (
        out / ".generating"
    ).exists()
    refused("sead", fetch, wanted(sead=3), out)


# Checksums that nobody publishes


def test_first_fetch_records_checksums_and_later_ones_enforce_them(mirror, out, lock):
    fetch(stamp(mirror), out, lock)
    first = lock.read_bytes()
    shutil.rmtree(out)  # the lock outlives the archives
    write_zip(mirror / SET / NAMES[0], b"other content")
    refused(f"{NAMES[0]}.*{lock} recorded it.*delete that entry", fetch, stamp(mirror), out, lock)
    assert visible(out) == [NAMES[1]] and lock.read_bytes() == first
    # As the message says: without its entry the new archive is the right one.
    lock.write_text(json.dumps({key: value for key, value in json.loads(first).items() if not key.endswith(NAMES[0])}))
    fetch(stamp(mirror), out, lock)
    assert (out / NAMES[0]).read_bytes() == (mirror / SET / NAMES[0]).read_bytes()


@pytest.mark.parametrize("content", ["{", '{"a/b": {"size": 1, "sha256": "zz"}}', "[" * 100_000])
def test_broken_lock_is_one_error(mirror, out, lock, content):
    lock.parent.mkdir(parents=True)
    lock.write_text(content)
    refused(r"subset\.json: not a record.*restore it from git", fetch, stamp(mirror), out, lock=lock)
    assert lock.read_text() == content


def test_records_of_others_stay_and_the_first_counts(lock):
    sources = [Source("davis", "official", f"{i:02d}.zip") for i in range(30)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: LockFile(lock).record(sources[i % 30], i, "a" * 64), range(31)))
    assert list(json.loads(lock.read_text())) == [f"davis/{i:02d}.zip" for i in range(30)]
    assert LockFile(lock).apply(sources[0])[0].size == 0
    published = Source("davis", "official", "03.zip", size=7, sha256="c" * 64)
    assert LockFile(lock).apply(published) == (published, "")


# Several at once


def test_few_from_one_host_and_some_in_all():
    guard, running, most = threading.Lock(), Counter(), Counter()

    def task(host):
        with guard:
            running.update([host, "all"])
            for key in (host, "all"):
                most[key] = max(most[key], running[key])
        time.sleep(0.05)
        with guard:
            running.subtract([host, "all"])
        return host

    hosts = ["a"] * 12 + [name for name in "bcde" for _ in range(2)]  # those behind a busy one do not wait for it
    assert module.run([(host, lambda host=host: task(host)) for host in hosts], threading.Event()) == hosts
    assert all(most[name] == module.PER_HOST for name in "abcde") and most["all"] == module.AT_ONCE


def test_a_failure_leaves_the_others_running_and_an_interruption_does_not(monkeypatch):
    def fails():
        raise HodorError("no such file")

    stop = threading.Event()
    results = module.run([("a", fails), ("a", lambda: 2), ("b", lambda: 3)], stop)
    assert str(results[0]) == "no such file" and results[1:] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        module.run([("a", lambda: 1 / 0)], stop)
    monkeypatch.setattr(module, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        module.run([("a", lambda: stop.wait(10))] * 5, stop)
    assert stop.is_set()
