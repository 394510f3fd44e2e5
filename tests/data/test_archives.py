"""Truncated, damaged and hostile archives, and extraction: `archives` and `extract`."""

import gzip
import hashlib
import io
import random
import stat
import struct
import tarfile
import zipfile

import pytest
import torch

from hodor.data import extract as module
from hodor.data.archives import find_damage
from hodor.data.extract import extract_all
from hodor.errors import HodorError
from tests.refused import refused

TWO = [("d/x.jpg", b"A" * 1000), ("d/y.jpg", b"B" * 1000)]


def make_zip(path, members=TWO, **options):
    """members: (name or ZipInfo, content) pairs."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def make_tar(path, members=TWO):
    """members: (name or TarInfo, content) pairs; the size of a TarInfo stays as it is."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def packed(path, members=TWO):
    if path.suffix == ".pth":
        torch.save({"weight": torch.zeros(100)}, path)
        return path
    return (make_zip if path.suffix == ".zip" else make_tar)(path, members)


def everything_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Truncation


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz", "pth"])
def test_truncated_files_of_each_kind(tmp_path, ending):
    path = packed(tmp_path / f"a.{ending}", [("d/x.jpg", random.Random(0).randbytes(20_000))])
    assert find_damage(path, path.name) is None and find_damage(path, path.name, thorough=True) is None
    content = path.read_bytes()
    for kept in (0, 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        assert find_damage(path, path.name), kept
        if ending != "pth" and not (ending == "tar" and kept == len(content) - 1):  # that one is in the padding
            with pytest.raises(HodorError, match=rf"a\.{ending}: damaged archive .*delete it and get it again"):
                extract_all([path], tmp_path / "out")


# What is extracted


def test_archives_are_joined_and_every_file_is_hashed(tmp_path):
    first = make_zip(tmp_path / "a.zip", [("d/", b""), ("d/x.jpg", b"one"), ("d/README.md", b"first")])
    other = [("d/y.png", b"two" * 100_000), ("d/x.jpg", b"one"), ("d/README.md", b"other"), ("__MACOSX/._x", b"?")]
    second = make_zip(tmp_path / "b.zip", other, compression=zipfile.ZIP_DEFLATED)
    digests = extract_all([first, second], tmp_path / "out")
    expected = {"d/x.jpg": b"one", "d/y.png": b"two" * 100_000, "d/README.md": b"first"}
    assert everything_below(tmp_path / "out") == expected
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in expected.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "out"]
    extract_all([make_tar(tmp_path / "c.tgz", [("./d\\new.jpg", b"new")])], tmp_path / "out")
    assert everything_below(tmp_path / "out") == {"d/new.jpg": b"new"}, "an older folder is replaced"


def info(kind, name, mode=0, **fields):
    made = kind(name)
    if kind is zipfile.ZipInfo:
        made.create_system, made.external_attr = 3, mode << 16
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def tar_link(kind):
    return info(tarfile.TarInfo, "d/l", type=kind, linkname="/etc/passwd")


UNSAFE = {
    **{name: ("zip", name) for name in ("../evil", "d/../../evil", "/evil", "..\\evil", "c:/evil", "C:\\evil")},
    **{f"tar {name}": ("tar", name) for name in ("../evil", "/evil", "..\\evil")},
    "control": ("zip", "d/\x1b[2Jx"),
    "line": ("tar", "d/a\nb"),
    "long": ("zip", "d/" + "x" * 300),
    "not UTF-8": ("tar", b"d/\xff".decode(errors="surrogateescape")),
    "link": ("zip", info(zipfile.ZipInfo, "d/link", stat.S_IFLNK | 0o777)),
    "device": ("zip", info(zipfile.ZipInfo, "d/device", stat.S_IFCHR | 0o777)),
    "symbolic link": ("tar", tar_link(tarfile.SYMTYPE)),
    "hard link": ("tgz", tar_link(tarfile.LNKTYPE)),
    "fifo": ("tar", tar_link(tarfile.FIFOTYPE)),
}


@pytest.mark.parametrize("ending, member", UNSAFE.values(), ids=list(UNSAFE))
def test_unsafe_member_is_refused_before_anything_is_written(tmp_path, ending, member):
    archive = packed(tmp_path / f"evil.{ending}", [("d/x.jpg", b"fine"), (member, b"" if ending == "tgz" else b"x")])
    refused(rf"evil\.{ending}: member", extract_all, [archive], tmp_path / "deep" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == [archive.name]


@pytest.mark.parametrize(
    "offset, value, message",
    [
        (8, 1, "encrypted"),
        (10, 9, "Deflate64.*7z x"),
        (10, 99, "method 99"),
        (6, 255, "damaged archive"),  # needs version 25.5
        (24, 0x7F, "damaged archive|bomb"),  # size
    ],
)
def test_members_that_cannot_be_read_say_why(tmp_path, offset, value, message):
    archive = make_zip(tmp_path / "a.zip", [("x.jpg", b"fine")])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + offset] = value
    archive.write_bytes(content)
    refused(rf"a\.zip: .*({message})", extract_all, [archive], tmp_path / "out")


def numbered(size):
    """A size in base 256, as GNU tar writes large and (here) negative ones."""
    return size.to_bytes(12, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")


def header(type, size, name=b"d/x"):
    fields = struct.pack("100s8s8s8s12s12s8s1s", name, b"0644", b"0", b"0", b"", b"0", b" " * 8, type)
    block = bytearray(fields.ljust(257, b"\0") + b"ustar\00000").ljust(512, b"\0")
    block[124:136] = numbered(size)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(text):
    record = b"%d %s\n" % (len(text) + 4, text)
    return header(b"x", len(record)) + record.ljust(512, b"\0")


HOSTILE = {
    "negative size": header(b"0", -512) * 3,
    "negative size of a long name": header(b"L", -512) * 3,
    "negative size by pax": pax(b"size=-1024") + header(b"0", 0) * 3,
    "huge pax record": header(b"x", 1 << 33) + bytes(2048),
    "huge long name": header(b"L", 1 << 33) + bytes(2048),
    "long names without end": (header(b"L", 5) + b"name\0".ljust(512, b"\0")) * 3000,
    "global headers without end": (header(b"g", 8) + b"8 a=bcd\n".ljust(512, b"\0")) * 3000,
    "number of 5000 digits": header(b"x", 5020) + (b"9" * 5000 + b" size=1\n").ljust(5120, b"\0"),
    "broken header between members": header(b"0", 0) + b"\1" * 512 + header(b"0", 0, b"d/lost"),
    "sparse": header(b"S", 0),
}


@pytest.mark.parametrize("ending", ["tar", "tgz"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tars_are_one_error(tmp_path, ending, case):
    path = tmp_path / f"a.{ending}"
    content = HOSTILE[case] + bytes(1024)
    path.write_bytes(gzip.compress(content) if ending == "tgz" else content)
    refused(rf"a\.{ending}: (damaged archive|member)", extract_all, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert case == "sparse" or find_damage(path, path.name)


@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_bombs_are_refused(tmp_path, ending, monkeypatch):
    bomb = tmp_path / f"bomb.{ending}"
    zeros = [("x", bytes(3_000_000))]
    make_zip(bomb, zeros, compression=zipfile.ZIP_DEFLATED) if ending == "zip" else make_tar(bomb, zeros)
    monkeypatch.setattr(module, "MOST_BYTES", 2_000_000)
    refused(rf"bomb\.{ending}: the archives unpack to more than 2\.0 MB", extract_all, [bomb], tmp_path / "out")
    monkeypatch.setattr(module, "SMALL", 1_000_000)
    refused(rf"bomb\.{ending}: unpacks from .* to 3\.0 MB; is it a bomb", extract_all, [bomb], tmp_path / "out")
    monkeypatch.setattr(module, "MOST_MEMBERS", 10)
    many = packed(tmp_path / f"many.{ending}", [(str(i), b"") for i in range(20)])
    refused(rf"many\.{ending}: more than 10 members", extract_all, [many], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_bomb_with_a_false_size_writes_no_more_than_that(tmp_path):
    bomb = make_zip(tmp_path / "liar.zip", [("x", bytes(3_000_000))], compression=zipfile.ZIP_DEFLATED)
    content = bytearray(bomb.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = content.index(mark) + offset
        content[start : start + 4] = (100).to_bytes(4, "little")
    bomb.write_bytes(content)
    refused(r"liar\.zip: damaged archive", extract_all, [bomb], tmp_path / "out")
    assert (tmp_path / "out.part" / "x").stat().st_size <= 100 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_inside_names_archive_and_member(tmp_path, method):
    archive = make_zip(tmp_path / "bad.zip", compression=method)
    content = bytearray(archive.read_bytes())
    start = content.index(b"PK\3\4", 4) + 30 + len("d/y.jpg")
    content[start : start + 4] = b"\xff" * 4
    archive.write_bytes(content)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_bytes(b"old")
    refused(r"bad\.zip: damaged archive \(.*d/y\.jpg", extract_all, [archive], tmp_path / "out")
    assert everything_below(tmp_path / "out") == {"old.txt": b"old"}, "the folder must be as before"


def test_contradicting_members_are_named(tmp_path):
    first = make_zip(tmp_path / "a.zip", [("d/x.jpg", b"one")])
    second = make_zip(tmp_path / "b.zip", [("d/x.jpg", b"two")])
    refused(r"b\.zip: d/x\.jpg differs", extract_all, [first, second], tmp_path / "out")
    with pytest.raises(HodorError, match=r"c\.tar: holds d/x\.jpg twice"):
        extract_all([make_tar(tmp_path / "c.tar", [TWO[0], TWO[0]])], tmp_path / "out")
    with pytest.raises(HodorError, match=r"e\.zip: d/x\.jpg is in a folder that is a file"):
        extract_all([make_zip(tmp_path / "e.zip", [("d", b"file"), ("d/x.jpg", b"one")])], tmp_path / "out")
    refused(r"gone\.zip: no such archive", extract_all, [tmp_path / "gone.zip"], tmp_path / "out")


@pytest.mark.parametrize(
    "name, found", [("D-2017/D/x.jpg", "D-2017/D/ where D/"), ("a/b/D/x/y.jpg", "a/b/D/ where D/"), ("E/D", None)]
)
def test_a_folder_above_is_named(tmp_path, name, found):
    archive = make_zip(tmp_path / "a.zip", [("D/D/x.jpg", b"fine"), (name, b"x")])
    if found is None:
        assert name in extract_all([archive], tmp_path / "out", folders=["D"])
        return
    refused(rf"a\.zip: holds {found} is expected", extract_all, [archive], tmp_path / "out", folders=["D"])


# Extractions that end early


def test_a_killed_extraction_is_redone(tmp_path, monkeypatch):
    path, members = make_zip(tmp_path / "a.zip"), dict(TWO)

    def kill(self, amount):
        if self.count:
            raise KeyboardInterrupt
        self.count += amount

    with monkeypatch.context() as patch:
        patch.setattr(module.Progress, "add", kill)
        with pytest.raises(KeyboardInterrupt):
            extract_all([path], tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "out.part" / "d" / "x.jpg").exists()
    (tmp_path / "out.part" / "d" / "rest.jpg").write_bytes(b"of the killed one")
    extract_all([path], tmp_path / "out")
    assert everything_below(tmp_path / "out") == members and not (tmp_path / "out.part").exists()
