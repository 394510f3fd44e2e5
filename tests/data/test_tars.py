"""Tar archives are extracted completely or not at all."""

import io
import tarfile

import numpy as np
import pytest

from hodor.data.extract import extract_all
from hodor.errors import HodorError


def tar(path, *entries, mode="w"):
    with tarfile.open(path, mode) as archive:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending, mode", [(".tar", "w"), (".tgz", "w:gz"), (".tar.gz", "w:gz")])
def test_tar_archives_are_extracted_whole_or_not_at_all(tmp_path, ending, mode):
    noise = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
    path = tar(tmp_path / f"a{ending}", ("b/one", noise), ("two", b"2"), ("__MACOSX/x", b"litter"), mode=mode)
    digests = extract_all([path], tmp_path / "out")
    assert set(digests) == {"b/one", "two"} and (tmp_path / "out" / "b" / "one").read_bytes() == noise
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, 50_000):
        path.write_bytes(whole[:length])
        with pytest.raises(HodorError, match=rf"a{ending}: damaged archive"):
            extract_all([path], tmp_path / "out")
        assert (tmp_path / "out" / "b" / "one").read_bytes() == noise
    with pytest.raises(HodorError, match="no such archive"):
        extract_all([tmp_path / f"absent{ending}"], tmp_path / "out")


def test_tar_cut_between_two_members_is_damaged(tmp_path):
    path = tar(tmp_path / "a.tar", ("one", b"1" * 512), ("two", b"2" * 512))
    path.write_bytes(path.read_bytes()[:1024])  # the first member, whole
    with pytest.raises(HodorError, match="a.tar: damaged archive"):
        extract_all([path], tmp_path / "out")


def link(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "entry, message",
    [
        ("../up", "outside the folder"),
        ("/etc/x", "outside the folder"),
        (link("a", tarfile.SYMTYPE), "link or a device"),
        (link("a", tarfile.LNKTYPE), "link or a device"),
        (link("a", tarfile.CHRTYPE), "link or a device"),
    ],
    ids=["up", "absolute", "symbolic link", "hard link", "device"],
)
def test_unsafe_members_of_tars_are_refused(tmp_path, entry, message):
    path = tar(tmp_path / "a.tar", ("fine", b"1"), (entry, b""))
    with pytest.raises(HodorError, match=message):
        extract_all([path], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "up").exists()


def test_same_member_in_two_tars_is_refused(tmp_path):
    """Tars have no checksums, so nothing says before the extraction that the two are equal."""
    paths = [tar(tmp_path / f"{name}.tar", ("one", b"1")) for name in "ab"]
    with pytest.raises(HodorError, match="one differs from the file of that name"):
        extract_all(paths, tmp_path / "out")
