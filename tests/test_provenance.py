"""Hashes, stamps, machine, commit."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hodor import __version__, provenance
from tests.refused import refused

STAMP = {"step": "score", "scale": "tiny", "settings": {"b": 1, "a": [1.5, None]}, "recipes": {}}


def test_a_stamp_carries_its_digest(tmp_path):
    path = tmp_path / "stamp.json"
    provenance.write_json_atomic(path, STAMP)
    assert provenance.read_stamp(path) == STAMP | {"sha256": provenance.sha256_json(STAMP)}
    path.write_text(json.dumps(STAMP, indent=7, sort_keys=True))
    assert provenance.read_stamp(path)["sha256"] == provenance.sha256_json(STAMP)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds list, not a JSON object"),
        ('{"step": "score"}', "no scale, settings, recipes"),
        (b"\xff\xfe", "not valid JSON"),
        (None, "no such file"),
    ],
)
def test_a_broken_stamp_is_named(tmp_path, text, expected):
    path = tmp_path / "stamp.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(f"stamp.json: .*{expected}", provenance.read_stamp, path)


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.json"
    provenance.write_json_atomic(path, {"b": 1, "a": 2})
    assert list(json.loads(path.read_text())) == ["b", "a"]

    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full") as fault:
        provenance.write_json_atomic(path, {"c": 3})
    assert fault.value.filename == str(path)
    assert json.loads(path.read_text()) == {"b": 1, "a": 2}
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    with pytest.raises(ValueError):
        provenance.write_json_atomic(tmp_path / "nan.json", {"a": float("inf")})
    assert not (tmp_path / "nan.json").exists()


def test_peak_memory_grows_with_use_and_is_not_that_of_the_parent():
    ballast = bytearray(300 << 20)
    code = (
        "from hodor.provenance import peak_memory_mib as peak; a = peak(); b = bytearray(200 << 20); print(a, peak())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 5 < before < 100 and 150 < after - before < 250
    del ballast


def test_machine_and_versions():
    machine = provenance.machine()
    assert machine.keys() == {"processor", "cores", "memory_mib", "system", "gpu"}
    assert machine["cores"] >= 1 and machine["memory_mib"] > 100
    versions = provenance.versions()
    assert versions["python"].startswith("3.") and versions["snakemake"] and versions["hodor"] == __version__
    json.dumps([machine, versions])


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_of_the_checkout_that_holds_the_code(tmp_path, monkeypatch):
    package = tmp_path / "hodor"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.commit() == "unknown"
    git(tmp_path, "init", "--quiet")
    assert provenance.commit() == "unknown"
    git(tmp_path, "add", "hodor")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit() == head
    (tmp_path / "results.csv").write_text("not tracked")
    assert provenance.commit() == head
    (package / "provenance.py").write_text("changed = 1\n")
    assert provenance.commit() == head + "-dirty"


def test_a_kept_digest_is_that_of_the_contents(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(provenance, "sha256_file", lambda path: read.append(path) or provenance.sha256_json(str(path)))
    masks, cache = tmp_path / "masks", tmp_path / "runs" / "cache.json"
    for name in ("walk/00000.png", "walk/00001.png", "README"):
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
        (masks / name).write_bytes(b"1")
        os.utime(masks / name, (1e9, 1e9))
    digest = provenance.sha256_files(masks)
    for what, change, expected in (
        ("first", lambda: None, 2),
        ("same", lambda: None, 0),
        ("not a mask", lambda: (masks / "README").write_bytes(b"2"), 0),
        ("time", lambda: os.utime(masks / "walk/00000.png", (1e9, 1e9 + 1)), 2),
        ("broken cache", lambda: cache.write_text("{"), 2),
        ("repaired", lambda: None, 0),
        ("name", lambda: (masks / "walk/00001.png").rename(masks / "walk/00002.png"), 2),
        ("of this moment", lambda: os.utime(masks / "walk/00000.png"), 2),
        ("of this moment, again", lambda: None, 2),
    ):
        change()
        read.clear()
        same_names = not (masks / "walk/00002.png").exists()
        assert (provenance.sha256_files(masks, cache) == digest) == same_names and len(read) == expected, what


def test_only_external_masks_have_no_training(tmp_path):
    assert provenance.read_training(tmp_path, [{"weights": None}, {"weights": None}]) == {}
    for masks in ([], [{"weights": None}, {"weights": "1f"}]):
        refused("train.json: no such file", provenance.read_training, tmp_path, masks)
