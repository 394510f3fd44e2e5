"""Whether a file is the whole archive that its name says."""

import io
import pickle
import tarfile
import zipfile

import pytest
import torch

from hodor.data.wholeness import is_web_page, is_whole


def packed(kind, path):
    content = bytes(range(256)) * 40
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", content)
    elif kind in ("tar", "tgz"):
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as archive:
            info = tarfile.TarInfo("x")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    else:
        torch.save({"weight": torch.zeros(100)}, path)
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "pth"])
def test_truncated_files_of_each_kind(tmp_path, kind):
    path = packed(kind, tmp_path / f"a.{kind}")
    assert is_whole(path, path.name) is True and is_whole(path, path.name, thorough=True) is True
    content = path.read_bytes()
    for kept in (0, 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        # An empty checkpoint begins like no zip; nothing tells what it should be.
        assert is_whole(path, path.name) is (None if kind == "pth" and kept < 2 else False), kept


def test_members_are_read_only_when_asked(tmp_path):
    path = packed("zip", tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert is_whole(path, "a.zip") is True and is_whole(path, "a.zip", thorough=True) is False


def test_old_checkpoints_do_not_tell(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"weight": 1}))
    assert is_whole(tmp_path / "a.pth", "a.pth") is None


@pytest.mark.parametrize(
    "head, page",
    [(b"\r\n <!DOCTYPE html>", True), (b"<HTML lang", True), (b"PK\3\4", False), (b"\x80\2", False), (b"", False)],
)
def test_web_pages(head, page):
    assert is_web_page(head) is page
