import fcntl
import hashlib
import json
import os
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from hodor.config import datasets as sources
from hodor.data import synthetic
from hodor.data.download import Limits
from hodor.data.fetch import fetch
from hodor.errors import HodorError

NAMES = sources.ARCHIVES["coco-persons-small"]
LIMITS = Limits(attempts=2, first_wait=0.01, longest_wait=0.05, timeout=1)


def write_zip(path, content=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", content)


def stamp(mirror=None, dataset="coco-persons-small", edition="subset", **changes):
    archives = [{"archive": name, "address": None, "size": None, "sha256": None} for name in sources.ARCHIVES[dataset]]
    archives[0] |= changes
    settings = {
        "dataset": dataset,
        "edition": edition,
        "mirror": mirror and str(mirror),
        "archives": archives,
    }
    return {"step": "fetch", "settings": settings | {"generated": None}}


@pytest.fixture
def mirror(tmp_path):
    for name in NAMES:
        write_zip(tmp_path / "mirror" / "coco-persons-small" / name, name.encode())
    return tmp_path / "mirror"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "archives"


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_copies_from_a_folder_and_records(mirror, out):
    fetch(stamp(mirror), out)
    assert visible(out) == sorted([*NAMES, "archives.json"])
    record = json.loads((out / "archives.json").read_text())
    assert set(record) == set(NAMES)
    for name in NAMES:
        content = (mirror / "coco-persons-small" / name).read_bytes()
        assert (out / name).read_bytes() == content
        assert record[name] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_relative_mirror_and_official_size_and_checksum(mirror, out, monkeypatch):
    monkeypatch.chdir(mirror.parent)
    content = (mirror / "coco-persons-small" / NAMES[0]).read_bytes()
    fetch(stamp("mirror", size=len(content), sha256=hashlib.sha256(content).hexdigest()), out)
    assert (out / NAMES[0]).read_bytes() == content


def test_second_fetch_copies_nothing(mirror, out):
    fetch(stamp(mirror), out)
    before = {name: (out / name).stat().st_ino for name in NAMES}
    record = (out / "archives.json").read_bytes()
    (out / "archives.json").unlink()  # the workflow deletes what a rule declares
    fetch(stamp(mirror), out)
    assert {name: (out / name).stat().st_ino for name in NAMES} == before
    assert (out / "archives.json").read_bytes() == record


def test_changed_mirror_is_fetched_again(mirror, out):
    fetch(stamp(mirror), out)
    source = mirror / "coco-persons-small" / NAMES[0]
    write_zip(source, b"other content")
    fetch(stamp(mirror), out)
    assert (out / NAMES[0]).read_bytes() == source.read_bytes()


def test_corrupted_archive_is_fetched_again(mirror, out, capsys):
    fetch(stamp(mirror), out)
    whole = (out / NAMES[0]).read_bytes()
    (out / NAMES[0]).write_bytes(whole[:-10] + bytes(10))
    fetch(stamp(mirror), out)
    assert (out / NAMES[0]).read_bytes() == whole
    assert f"{NAMES[0]}: differs from what was fetched" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"size": 5}, r"val2017\.zip: size \d+ where 5 is expected"),
        ({"sha256": "0" * 64}, r"val2017\.zip: sha256 "),
    ],
)
def test_wrong_archive_in_the_mirror_gets_no_name(mirror, out, change, message):
    with pytest.raises(HodorError, match=message) as caught:
        fetch(stamp(mirror, **change), out)
    assert str(mirror) in str(caught.value), "the file to replace is the mirror's"
    assert visible(out) == [NAMES[1]], "the other archive came and stays; nothing is listed"


def test_truncated_archive_in_the_mirror_is_named(mirror, out):
    path = mirror / "coco-persons-small" / NAMES[1]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(HodorError, match=rf"mirror/coco-persons-small/{NAMES[1]}: truncated or no zip"):
        fetch(stamp(mirror), out)
    assert "archives.json" not in visible(out) and NAMES[1] not in visible(out)


def test_missing_archive_says_what_the_mirror_has(mirror, out):
    (mirror / "coco-persons-small" / NAMES[0]).rename(mirror / "coco-persons-small" / "val.zip")
    with pytest.raises(HodorError, match=rf"{NAMES[0]}: the mirror has no such file \({NAMES[1]}, val\.zip in"):
        fetch(stamp(mirror), out)
    with pytest.raises(HodorError, match="no such folder; give the folder that holds coco-persons-small/val2017.zip"):
        fetch(stamp(mirror / "wrong"), out)
    with pytest.raises(HodorError, match="mirror ftp://x: must be a folder or start with http"):
        fetch(stamp("ftp://x"), out)


def test_edition_without_address_asks_for_a_mirror(out):
    with pytest.raises(HodorError, match=r"edition subset has no address; give mirror=FOLDER with"):
        fetch(stamp(), out)


def test_failed_fetch_leaves_no_record(mirror, out):
    fetch(stamp(mirror), out)
    (mirror / "coco-persons-small" / NAMES[0]).unlink()
    (out / NAMES[0]).unlink()
    with pytest.raises(HodorError):
        fetch(stamp(mirror), out)
    assert not (out / "archives.json").exists()


def test_log_in_tells_what_to_do_and_continues_when_done(out, root):
    archives = sources.archives(root / "config" / "datasets.csv", "youtube-vos", "official")
    settings = {"dataset": "youtube-vos", "edition": "official", "mirror": None, "archives": archives}
    with pytest.raises(HodorError) as caught:
        fetch({"settings": settings}, out)
    for part in (
        "train.zip and valid.zip",
        "https://youtube-vos.org/",
        str(out),
        "FOLDER/youtube-vos/train.zip",
    ):
        assert part in str(caught.value)
    write_zip(out / "train.zip")
    with pytest.raises(HodorError, match="download valid.zip from"):
        fetch({"settings": settings}, out)
    write_zip(out / "valid.zip")
    fetch({"settings": settings}, out)
    fetch({"settings": settings}, out)
    assert set(json.loads((out / "archives.json").read_text())) == {"train.zip", "valid.zip"}
    (out / "train.zip").write_bytes(b"<html>")
    with pytest.raises(HodorError, match=r"train\.zip: truncated or no zip archive"):
        fetch({"settings": settings}, out)


def test_official_archive_put_there_by_hand_is_accepted(mirror, out):
    """No connection is tried for what is there with the right checksum."""
    write_zip(out / "valid.zip")
    sha256 = hashlib.sha256((out / "valid.zip").read_bytes()).hexdigest()
    nowhere = stamp(None, "youtube-vos-2018", "official", address="http://127.0.0.1:9/valid.zip", sha256=sha256)
    fetch(nowhere, out, limits=LIMITS)
    assert json.loads((out / "archives.json").read_text())["valid.zip"]["sha256"] == sha256


def test_mirror_can_be_an_address(mirror, out):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=mirror)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        fetch(stamp(address + "/"), out, limits=LIMITS)
        with pytest.raises(HodorError, match=rf"{address}/youtube-vos-2018/valid\.zip: the server answered 404"):
            fetch(stamp(address, "youtube-vos-2018"), out, limits=LIMITS)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    for name in NAMES:
        assert (out / name).read_bytes() == (mirror / "coco-persons-small" / name).read_bytes()
    (out / "archives.json").unlink(missing_ok=True)
    fetch(stamp(address + "/"), out, limits=LIMITS)  # the server is gone; nothing needs it


def test_generated_archives_are_recorded_and_half_ones_are_not(out, monkeypatch):
    asked = []

    def generate(dataset, options, folder):
        asked.append((dataset, options.seed))
        for name in (*sources.ARCHIVES[dataset], "valid_truth.zip"):
            write_zip(folder / name)

    def fails(dataset, options, folder):
        write_zip(folder / "train.zip", b"half")
        raise HodorError("no room")

    settings = {"dataset": "youtube-vos", "edition": "generated", "archives": [], "generated": {"seed": 3}}
    monkeypatch.setattr(synthetic, "generate", generate)
    fetch({"settings": settings}, out)
    assert asked == [("youtube-vos", 3)]
    record = json.loads((out / "archives.json").read_text())
    assert set(record) == {"train.zip", "valid.zip", "valid_truth.zip"}
    content = (out / "train.zip").read_bytes()
    monkeypatch.setattr(synthetic, "generate", fails)
    with pytest.raises(HodorError, match="no room"):
        fetch({"settings": settings}, out)
    assert (out / "train.zip").read_bytes() == content and not (out / ".generating").exists()
    monkeypatch.setattr(synthetic, "generate", lambda *_: None)
    with pytest.raises(HodorError, match=r"train\.zip: the generator wrote no such archive"):
        fetch({"settings": settings}, out)


def test_wrong_generator_options_are_one_error(out):
    settings = {"dataset": "coco", "edition": "generated", "archives": [], "generated": {"sead": 3}}
    with pytest.raises(HodorError, match="sead"):
        fetch({"settings": settings}, out)


def test_two_fetches_at_once_are_refused(mirror, out):
    out.mkdir(parents=True)
    with open(out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HodorError, match="another fetch writes there"):
            fetch(stamp(mirror), out)
    fetch(stamp(mirror), out)


def test_full_disk_is_noticed_before_the_first_byte(mirror, out, monkeypatch):
    monkeypatch.setattr("hodor.data.fetch.shutil.disk_usage", lambda _: type("U", (), {"free": 10}))
    with pytest.raises(HodorError, match="10 B are free"):
        fetch(stamp(mirror), out)
    assert visible(out) == []


def test_mirror_that_changes_while_it_is_copied_is_refused(mirror, out, monkeypatch):
    source = mirror / "coco-persons-small" / NAMES[0]
    original = os.fsync

    def grow(descriptor):
        with open(source, "ab") as file:
            file.write(b"more")
        original(descriptor)

    monkeypatch.setattr("hodor.data.obtain.os.fsync", grow)
    with pytest.raises(HodorError, match="changed while it was copied"):
        fetch(stamp(mirror), out)
    assert NAMES[0] not in visible(out) and "archives.json" not in visible(out)


def test_stamp_that_lacks_an_archive(mirror, out):
    broken = stamp(mirror)
    broken["settings"]["archives"].pop()
    with pytest.raises(HodorError, match=f"needs {NAMES[1]}, which the stamp does not list"):
        fetch(broken, out)


def test_every_real_archive_is_fetched(shared_data, root, out):
    archives = sources.archives(root / "config" / "datasets.csv", "davis", "subset")
    settings = {"dataset": "davis", "edition": "subset", "mirror": str(shared_data), "archives": archives}
    fetch({"settings": settings}, out)
    for name in sources.ARCHIVES["davis"]:
        assert (out / name).stat().st_size == (shared_data / "davis" / name).stat().st_size
    settings |= {
        "dataset": "youtube-vos",
        "archives": sources.archives(root / "config/datasets.csv", "youtube-vos", "subset"),
    }
    with pytest.raises(HodorError, match=r"youtube-vos/train\.zip: the mirror has no such file \(train, valid in"):
        fetch({"settings": settings}, out)


# Checksums that nobody publishes


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "config" / "locks" / "subset.json"


def test_first_fetch_records_checksums_and_later_ones_enforce_them(mirror, out, lock):
    fetch(stamp(mirror), out, lock=lock)
    first = lock.read_bytes()
    record = json.loads((out / "archives.json").read_text())
    assert json.loads(first) == {f"coco-persons-small/{name}": record[name] for name in NAMES}
    fetch(stamp(mirror), out, lock=lock)
    for name in (*NAMES, ".fetched.json", "archives.json"):  # the lock outlives the archives and all that lies there
        (out / name).unlink()
    fetch(stamp(mirror), out, lock=lock)
    assert lock.read_bytes() == first
    whole = (out / NAMES[0]).read_bytes()
    (out / NAMES[0]).unlink()
    write_zip(mirror / "coco-persons-small" / NAMES[0], b"other content")
    with pytest.raises(HodorError) as caught:
        fetch(stamp(mirror), out, lock=lock)
    message = str(caught.value)
    assert "\n" not in message and NAMES[0] in message and str(lock) in message and "delete that entry" in message
    assert NAMES[0] not in visible(out) and lock.read_bytes() == first
    # As the message says: without its entry the new archive is the right one.
    entries = json.loads(first)
    del entries[f"coco-persons-small/{NAMES[0]}"]
    lock.write_text(json.dumps(entries))
    fetch(stamp(mirror), out, lock=lock)
    assert (out / NAMES[0]).read_bytes() != whole and json.loads(lock.read_text()) != json.loads(first)


def test_archive_of_a_lock_is_believed_without_its_origin(mirror, out, lock):
    fetch(stamp(mirror), out, lock=lock)
    (out / ".fetched.json").unlink()
    fetch(stamp(), out, lock=lock)  # no mirror, no address, and none is needed
    assert "archives.json" in visible(out)


def test_archive_brought_by_hand_is_held_to_the_lock(out, lock):
    write_zip(out / "valid.zip")
    by_hand = stamp(None, "youtube-vos-2018", "official", address="https://example.org", log_in=True)
    fetch(by_hand, out, lock=lock)
    write_zip(out / "valid.zip", b"another year")
    with pytest.raises(HodorError, match=r"valid\.zip: (size|sha256) .* is expected .*subset\.json recorded it"):
        fetch(by_hand, out, lock=lock)


def test_published_checksums_are_not_recorded(mirror, out, lock):
    sha256 = hashlib.sha256((mirror / "coco-persons-small" / NAMES[0]).read_bytes()).hexdigest()
    fetch(stamp(mirror, sha256=sha256), out, lock=lock)
    assert list(json.loads(lock.read_text())) == [f"coco-persons-small/{NAMES[1]}"]


def test_published_md5_is_compared(mirror, out, lock):
    content = (mirror / "coco-persons-small" / NAMES[0]).read_bytes()
    with pytest.raises(HodorError, match=r"val2017\.zip: md5 [0-9a-f]{32} where 0{32} is expected"):
        fetch(stamp(mirror, md5="0" * 32), out, lock=lock)
    assert NAMES[0] not in visible(out) and f"coco-persons-small/{NAMES[0]}" not in json.loads(lock.read_text())
    fetch(stamp(mirror, md5=hashlib.md5(content).hexdigest()), out, lock=lock)
    assert NAMES[0] in visible(out)


@pytest.mark.parametrize("content", ["[]", '{"a/b": {"size": 1}}', '{"a/b": {"size": 1, "sha256": "zz"}}', "{", "\0"])
def test_broken_lock_is_one_error(mirror, out, lock, content):
    lock.parent.mkdir(parents=True)
    lock.write_text(content)
    with pytest.raises(HodorError, match=r"subset\.json: (cannot be read|not a record).*restore it from git"):
        fetch(stamp(mirror), out, lock=lock)
    assert lock.read_text() == content
