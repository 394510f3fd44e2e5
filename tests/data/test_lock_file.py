"""The record of checksums that nobody publishes, written by several processes."""

import json
import shutil
import subprocess
import sys
import textwrap

from hodor.config.datasets import Source
from hodor.config.loading import load
from hodor.data.lock_file import LockFile
from hodor.stamps import Stamps

A = "a" * 64


def test_only_what_is_unknown_is_recorded_and_applied(tmp_path):
    lock = LockFile(tmp_path / "locks" / "official.json")
    source = Source("davis", "official", "x.zip")
    assert lock.apply(source) == (source, "")
    lock.record(source, 5, A)
    lock.record(source, 6, "b" * 64)  # later ones are held to the first
    lock.record(Source("davis", "official", "y.zip", sha256=A), 5, A)
    assert json.loads(lock.path.read_text()) == {"davis/x.zip": {"size": 5, "sha256": A}}
    held, hint = lock.apply(source)
    assert (held.size, held.sha256) == (5, A) and str(lock.path) in hint
    published = Source("davis", "official", "x.zip", size=7, sha256="c" * 64)
    assert lock.apply(published) == (published, "")


def test_entries_are_sorted_whatever_the_order(tmp_path):
    lock = LockFile(tmp_path / "official.json")
    for name in ("b.zip", "c.zip", "a.zip"):
        lock.record(Source("davis", "official", name), 1, A)
    assert list(json.loads(lock.path.read_text())) == ["davis/a.zip", "davis/b.zip", "davis/c.zip"]


def test_of_two_that_record_the_same_the_first_counts(tmp_path, monkeypatch):
    lock, source = LockFile(tmp_path / "official.json"), Source("davis", "official", "x.zip")
    lock.record(source, 5, A)
    read, looks = LockFile._read, []

    def nothing_yet(self):
        looks.append(self)
        return {} if len(looks) == 1 else read(self)

    monkeypatch.setattr(LockFile, "_read", nothing_yet)
    lock.record(source, 6, "b" * 64)
    assert json.loads(lock.path.read_text())["davis/x.zip"]["size"] == 5


def test_processes_that_record_at_once_lose_nothing(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from hodor.data.lock_file import LockFile
        from hodor.config.datasets import Source
        lock = LockFile(Path(sys.argv[1]))
        for i in range(25):
            lock.record(Source("set" + sys.argv[2], "official", f"{i}.zip"), i, "a" * 64)
    """
    path = tmp_path / "locks" / "official.json"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    running = [subprocess.Popen([*command, str(i)]) for i in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(json.loads(path.read_text())) == 75


def test_nothing_is_due_when_a_lock_is_written(root, tmp_path):
    """Neither a stamp nor a stage of dvc.yaml, which depends on the folder config, knows the file."""
    shutil.copytree(root / "config", tmp_path / "config")
    before = Stamps(load(tmp_path / "config", {"scale": "paper"}), root).contents
    lock = LockFile(tmp_path / "config" / "locks" / "official.json")
    lock.record(Source("davis", "official", "DAVIS-2017-test-dev-480p.zip"), 1, A)
    assert Stamps(load(tmp_path / "config", {"scale": "paper"}), root).contents == before
    assert "/config/locks/" in (root / ".dvcignore").read_text().splitlines()
