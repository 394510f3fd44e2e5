import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from hodor.data import extract_once as once
from hodor.data.extract import ExtractLimits, extract_all
from hodor.data.extract_once import extract_once
from hodor.errors import HodorError


def make_zip(path, members, **options):
    """members: (name or ZipInfo, content) pairs."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name="data/link", target="/etc/passwd"):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


def everything_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_archives_are_joined_and_every_file_is_hashed(tmp_path):
    first = make_zip(tmp_path / "a.zip", [("d/", b""), ("d/x.jpg", b"one"), ("d/README.md", b"first")])
    second = make_zip(
        tmp_path / "b.zip",
        [
            ("d/y.png", b"two" * 100_000),
            ("d/x.jpg", b"one"),
            ("d/README.md", b"other"),
            ("__MACOSX/d/._x.jpg", b"?"),
        ],
        compression=zipfile.ZIP_DEFLATED,
    )
    digests = extract_all([first, second], tmp_path / "out", ExtractLimits(ratio=1e6))
    expected = {"d/x.jpg": b"one", "d/y.png": b"two" * 100_000, "d/README.md": b"first"}
    assert everything_below(tmp_path / "out") == expected
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in expected.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "out"]


UNSAFE = {
    "up": ("../evil.txt", b"x"),
    "up inside": ("d/../../evil.txt", b"x"),
    "absolute": ("/evil.txt", b"x"),
    "backslash": ("..\\evil.txt", b"x"),
    "drive": ("c:/evil.txt", b"x"),
    "link": link(),
    "link to the inside": link(target="x.jpg"),
}


@pytest.mark.parametrize("member", UNSAFE.values(), ids=list(UNSAFE))
def test_unsafe_member_is_refused_before_anything_is_written(tmp_path, member):
    archive = make_zip(tmp_path / "evil.zip", [("d/x.jpg", b"fine"), member])
    with pytest.raises(HodorError, match=r"evil\.zip: member"):
        extract_all([archive], tmp_path / "deep" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.zip"]


def test_encrypted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "secret.zip", [("x.jpg", b"fine")])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of members
    archive.write_bytes(content)
    with pytest.raises(HodorError, match=r"secret\.zip: member 'x\.jpg' is encrypted"):
        extract_all([archive], tmp_path / "out")


def test_bombs_are_refused(tmp_path):
    bomb = make_zip(tmp_path / "bomb.zip", [("x", bytes(3_000_000))], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(HodorError, match=r"bomb\.zip: unpacks from .* to 3\.0 MB; is it a bomb"):
        extract_all([bomb], tmp_path / "out", ExtractLimits(small=1_000_000))
    with pytest.raises(HodorError, match=r"bomb\.zip: the archives unpack to more than 2\.0 MB"):
        extract_all([bomb], tmp_path / "out", ExtractLimits(total=2_000_000))
    many = make_zip(tmp_path / "many.zip", [(str(i), b"") for i in range(20)])
    with pytest.raises(HodorError, match=r"many\.zip: 20 members"):
        extract_all([many], tmp_path / "out", ExtractLimits(members=10))
    assert not (tmp_path / "out").exists()


def test_bomb_that_lies_about_its_size_writes_no_more_than_it_states(tmp_path):
    bomb = make_zip(tmp_path / "liar.zip", [("x", bytes(3_000_000))], compression=zipfile.ZIP_DEFLATED)
    content = bytearray(bomb.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = content.index(mark) + offset
        content[start : start + 4] = (100).to_bytes(4, "little")
    bomb.write_bytes(content)
    with pytest.raises(HodorError, match=r"liar\.zip: damaged archive"):
        extract_all([bomb], tmp_path / "out")
    assert (tmp_path / "out.part" / "x").stat().st_size <= 100 and not (tmp_path / "out").exists()


def test_flipped_byte_names_archive_and_member(tmp_path):
    archive = make_zip(tmp_path / "bad.zip", [("d/x.jpg", b"A" * 1000), ("d/y.jpg", b"B" * 1000)])
    content = archive.read_bytes().replace(b"BBBB", b"BBCB", 1)
    archive.write_bytes(content)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_bytes(b"old")
    with pytest.raises(HodorError, match=r"bad\.zip: damaged archive \(.*d/y\.jpg"):
        extract_all([archive], tmp_path / "out")
    assert everything_below(tmp_path / "out") == {"old.txt": b"old"}, "the folder must be as before"


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_truncated_archive_is_named(tmp_path, kept):
    archive = make_zip(tmp_path / "cut.zip", [("d/x.jpg", b"A" * 1000), ("d/y.jpg", b"B" * 1000)])
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(HodorError, match=r"cut\.zip: damaged archive"):
        extract_all([archive], tmp_path / "out")


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(HodorError, match=r"gone\.zip: no such archive"):
        extract_all([tmp_path / "gone.zip"], tmp_path / "out")


def test_contradicting_members_are_named(tmp_path):
    first = make_zip(tmp_path / "a.zip", [("d/x.jpg", b"one")])
    second = make_zip(tmp_path / "b.zip", [("d/x.jpg", b"two")])
    with pytest.raises(HodorError, match=r"b\.zip: d/x\.jpg differs"):
        extract_all([first, second], tmp_path / "out")
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = make_zip(tmp_path / "c.zip", [("d/x.jpg", b"one"), ("d/x.jpg", b"one")])
    with pytest.raises(HodorError, match=r"c\.zip: holds d/x\.jpg twice"):
        extract_all([twice], tmp_path / "out")
    below = make_zip(tmp_path / "e.zip", [("d", b"file"), ("d/x.jpg", b"one")])
    with pytest.raises(HodorError, match=r"e\.zip: d/x\.jpg lies in a folder that is a file"):
        extract_all([below], tmp_path / "out")


def test_killed_extraction_is_redone(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("d/x.jpg", b"A" * 1000), ("d/y.jpg", b"B" * 1000)])
    original = zipfile.ZipExtFile.read

    def killed(self, *arguments):
        if self.name == "d/y.jpg":
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", killed)
        with pytest.raises(KeyboardInterrupt):
            extract_all([archive], tmp_path / "out")
    assert not (tmp_path / "out").exists(), "half a data set must not have the data set's name"
    (tmp_path / "out.part" / "d" / "rest.jpg").write_bytes(b"rest of the killed one")
    extract_all([archive], tmp_path / "out")
    assert everything_below(tmp_path / "out") == {"d/x.jpg": b"A" * 1000, "d/y.jpg": b"B" * 1000}
    assert not (tmp_path / "out.part").exists()


def test_older_folder_is_replaced_whole(tmp_path):
    extract_all([make_zip(tmp_path / "a.zip", [("old.jpg", b"old")])], tmp_path / "out")
    extract_all([make_zip(tmp_path / "b.zip", [("new.jpg", b"new")])], tmp_path / "out")
    assert everything_below(tmp_path / "out") == {"new.jpg": b"new"}


def test_full_disk_is_noticed_before_the_first_byte(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("x.jpg", b"A" * 1000)])
    monkeypatch.setattr("hodor.data.extract.shutil.disk_usage", lambda _: type("U", (), {"free": 999}))
    with pytest.raises(HodorError, match=r"999 B are free, 1\.0 kB are needed"):
        extract_all([archive], tmp_path / "out")
    assert not (tmp_path / "out.part").exists()


def make_tar(path, members):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_extraction_killed_with_sigkill_is_redone(tmp_path, ending):
    members = [(f"d/{i}.jpg", bytes([i]) * 300_000) for i in range(5)]
    path = tmp_path / f"a.{ending}"
    make_zip(path, members) if ending == "zip" else make_tar(path, members)
    # The process stops in the middle of the fourth member, and is killed there.
    script = (
        "import sys, time; from pathlib import Path; from hodor.data import extract; from hodor.data.progress import Progress\n"
        "add = Progress.add\n"
        "def slow(self, amount):\n"
        "    add(self, amount)\n"
        "    if self.count > 1_000_000: print('here', flush=True); time.sleep(60)\n"
        "Progress.add, extract._BLOCK = slow, 100_000\n"
        "extract.extract_all([Path(sys.argv[1])], Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, path, tmp_path / "out"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and (tmp_path / "out.part" / "d" / "3.jpg").exists()
    extract_all([path], tmp_path / "out")
    assert everything_below(tmp_path / "out") == dict(members) and not (tmp_path / "out.part").exists()


def test_bomb_in_a_tar_is_refused(tmp_path):
    bomb = make_tar(tmp_path / "bomb.tgz", [("x", bytes(3_000_000))])
    with pytest.raises(HodorError, match=r"bomb\.tgz: unpacks from .* to 3\.0 MB; is it a bomb"):
        extract_all([bomb], tmp_path / "out", ExtractLimits(small=1_000_000))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


@pytest.fixture
def archive(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("d/x.jpg", b"A" * 1000), ("d/y.jpg", b"B" * 1000)])
    return {path: "1" * 64}


def count(monkeypatch):
    calls = []
    monkeypatch.setattr(once, "extract_all", lambda *arguments: calls.append(arguments) or extract_all(*arguments))
    return calls


def test_finished_extraction_is_never_made_again(tmp_path, archive, monkeypatch):
    calls = count(monkeypatch)
    digests = extract_once(archive, tmp_path / "out")
    assert extract_once(archive, tmp_path / "out") == digests and len(calls) == 1
    assert set(digests) == {"d/x.jpg", "d/y.jpg"}


@pytest.mark.parametrize("change", ["archive", "content", "missing", "touched", "record"])
def test_extraction_is_made_again_when_anything_differs(tmp_path, archive, monkeypatch, change):
    calls, out = count(monkeypatch), tmp_path / "out"
    digests = extract_once(archive, out)
    file = out / "d" / "x.jpg"
    if change == "archive":
        archive = {path: "2" * 64 for path in archive}
    elif change == "content":
        file.write_bytes(b"C" * 999)
    elif change == "missing":
        file.unlink()
    elif change == "touched":
        os.utime(file, ns=(0, time.time_ns() - 5_000_000_000))
    else:
        (tmp_path / "out.json").write_text("{}")
    assert extract_once(archive, out) == digests and len(calls) == 2
    assert everything_below(out) == {"d/x.jpg": b"A" * 1000, "d/y.jpg": b"B" * 1000}


def test_extraction_that_failed_is_not_taken_for_finished(tmp_path, archive, monkeypatch):
    extract_once(archive, tmp_path / "out")
    path = next(iter(archive))
    path.write_bytes(path.read_bytes()[:-30])
    for _ in range(2):
        with pytest.raises(HodorError, match="damaged"):
            extract_once({path: "2" * 64}, tmp_path / "out")
