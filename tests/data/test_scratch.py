"""Packs on a node's own disk: copied once, checked, used again; without room they are read where they lie."""

import hashlib
import json
import os
import shutil
import types
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from hodor.data.scratch import FOLDER, staged
from hodor.errors import HodorError

PACK = "coco-train2017-whole"


@pytest.fixture
def data(tmp_path):
    """A folder of data sets with two packs."""
    data = tmp_path / "data"
    (data / "coco").mkdir(parents=True)
    (data / "coco.json").write_text("{}")
    for name in (PACK, "other"):
        files = {}
        (data / "packed" / name).mkdir(parents=True)
        for number in range(3):
            content = f"{name} {number}".encode() * 1000
            (data / "packed" / name / f"{number}.bin").write_bytes(content)
            files[f"{number}.bin"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (data / "packed" / f"{name}.json").write_text(json.dumps({"files": files, "name": name}))
    return data


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "disk" / "scratch"


def copies(scratch):
    return {path.name: path for path in (scratch / FOLDER).iterdir() if len(path.name) == 64}


def test_everything_is_there_and_the_pack_is_a_copy(data, scratch):
    view = staged(data, [PACK], str(scratch))
    assert scratch in view.parents
    (copy,) = copies(scratch).values()
    assert (view / "packed" / PACK).resolve() == copy
    for path in data.rglob("*"):
        other = view / path.relative_to(data)
        assert other.is_dir() if path.is_dir() else other.read_bytes() == path.read_bytes()
    assert (view / "packed" / "other").resolve() == data / "packed" / "other"
    assert not (copy / "0.bin").samefile(data / "packed" / PACK / "0.bin")


def test_a_whole_copy_is_used_again_and_a_cut_one_is_not(data, scratch):
    view = staged(data, [PACK], str(scratch))
    file = view / "packed" / PACK / "1.bin"
    before = file.stat().st_ino
    assert staged(data, [PACK], str(scratch)) == view and file.stat().st_ino == before
    os.truncate(file, 5)
    assert staged(data, [PACK], str(scratch)) == view
    assert file.read_bytes() == (data / "packed" / PACK / "1.bin").read_bytes()


def test_another_pack_under_the_same_name_is_another_copy(data, scratch):
    view = staged(data, [PACK], str(scratch))
    manifest = data / "packed" / f"{PACK}.json"
    content = b"new" * 999
    (data / "packed" / PACK / "0.bin").write_bytes(content)
    made = json.loads(manifest.read_text())
    made["files"]["0.bin"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(made))
    other = staged(data, [PACK], str(scratch))
    assert other != view and (other / "packed" / PACK / "0.bin").read_bytes() == content
    assert len(copies(scratch)) == 2, "a job that is under way keeps what it reads"


def test_a_damaged_pack_is_named_and_leaves_nothing(data, scratch):
    path = data / "packed" / PACK / "2.bin"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(HodorError, match=rf"{path}: differs from .*{PACK}.json; .*snakemake --cores all --force -- "):
        staged(data, [PACK], str(scratch))
    assert not copies(scratch) and not list((scratch / FOLDER).glob("*.part"))


def test_without_room_the_pack_is_read_where_it_lies(data, scratch, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    assert staged(data, [PACK], str(scratch)) == data
    assert "1.0 kB are free" in (said := capsys.readouterr().err) and "it is read from" in said, said
    assert staged(data, [], "/nowhere/at/all") == data, "nothing to copy"


def test_a_variable_is_that_of_the_machine(data, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    assert tmp_path / "disk" / "s" in staged(data, [PACK], "$NODE_DISK/s").parents
    monkeypatch.delenv("NODE_DISK")
    with pytest.raises(HodorError, match="'.NODE_DISK/s' holds a variable that is not set"):
        staged(data, [PACK], "$NODE_DISK/s")


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HodorError, match=r"scratch: .*file.*; name another folder"):
        staged(data, [PACK], str(tmp_path / "file" / "scratch"))


def test_jobs_that_start_together_copy_once(data, scratch):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        views = {job.result() for job in [pool.submit(staged, data, [PACK, "other"], str(scratch)) for _ in range(3)]}
    (view,) = views
    assert len(copies(scratch)) == 2 and (view / "packed" / PACK / "0.bin").is_file()
