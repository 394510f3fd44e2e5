"""`prepare`: the counts and checksums of the manifest, and every fault of archives and data sets."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodor.config import datasets as sources
from hodor.data import prepare as module
from hodor.data.coco import load_coco
from hodor.data.davis import load_davis
from hodor.data.fetch import fetch
from hodor.data.images import read_labels, write_labels
from hodor.data.prepare import prepare
from hodor.errors import HodorError
from tests.data.datasets import labels_with
from tests.refused import refused


@pytest.fixture
def roots(davis_root, coco_root, youtube_root):
    return {"davis": davis_root, "coco": coco_root, "youtube-vos": youtube_root}


VIDEO = {"videos": 1, "frames": 3, "masks": 3, "objects": 1, "objects_not_on_first_frame": 0}
FOUR = VIDEO | {"frames": 4, "masks": 4, "objects": 2}
IMAGES = {"images": 3, "skipped_unannotated": 1, "objects": 3, "crowds": 1, "empty_masks": 0}
SPLITS = {
    "davis": {
        "train": VIDEO,
        "val": VIDEO | {"objects": 2, "objects_not_on_first_frame": 1},
        "test-dev": VIDEO | {"objects": 2, "masks": 1},
    },
    "youtube-vos": {"train": FOUR, "valid": FOUR | {"masks": 2}},
    "coco": {
        "train2017": IMAGES,
        "val2017": IMAGES | {"images": 1, "skipped_unannotated": 0, "objects": 1, "crowds": 0},
    },
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("dataset", SPLITS)
def test_counts_and_checksums(make, roots, tmp_path, dataset):
    write_labels(roots["davis"] / "DAVIS/Annotations/480p/swan/00001.png", labels_with(1, 2, 5))
    manifest = make(dataset, roots[dataset])
    assert (manifest["dataset"], manifest["edition"], manifest["splits"]) == (dataset, "subset", SPLITS[dataset])
    files = {str(path.relative_to(roots[dataset])): path for path in roots[dataset].rglob("*") if path.is_file()}
    assert manifest["files"] == len(files)
    assert all((tmp_path / "out" / dataset / name).read_bytes() == path.read_bytes() for name, path in files.items())
    lines = "".join(f"{digest(path.read_bytes())}  {name}\n" for name, path in sorted(files.items()))
    assert manifest["sha256"] == digest(lines.encode())
    archives = (tmp_path / "archives" / dataset).glob("*.zip")
    assert manifest["archives"] == {path.name: digest(path.read_bytes()) for path in archives}


def test_manifest_is_the_same_every_time_and_with_processes(make, davis_root, tmp_path, monkeypatch):
    make("davis", davis_root)
    first = (tmp_path / "out" / "davis.json").read_bytes()
    monkeypatch.setattr(module, "_FEW", 0)
    make.again("davis", jobs=2)
    assert (tmp_path / "out" / "davis.json").read_bytes() == first


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def with_id_9(path):
    write_labels(path, np.where(read_labels(path) == 3, 9, read_labels(path)))


def without_id_3(path):
    write_labels(path, np.where(read_labels(path) == 3, 0, read_labels(path)))


def narrower(path):
    Image.open(path).crop((0, 0, 39, 24)).save(path)


@pytest.mark.parametrize(
    "dataset, file, change, message",
    [
        ("davis", "DAVIS/Annotations/480p/swan/00001.png", cut, r"swan/00001\.png: truncated"),
        ("davis", "DAVIS/JPEGImages/480p/plane/00002.jpg", narrower, r"plane/00002\.jpg: 39x24"),
        ("coco", "train2017/000000000086.jpg", cut, r"train2017/000000000086\.jpg: truncated"),
        ("coco", "train2017/000000000250.jpg", Path.unlink, r"000000000250\.jpg: missing image"),
        ("youtube-vos", "train/Annotations/aa11/00015.png", with_id_9, r"train.*00015\.png: object id 9"),
        ("youtube-vos", "valid/Annotations/bb22/00015.png", without_id_3, r"bb22/00015\.png: object 3 is not in"),
    ],
)
def test_every_fault_is_found_and_leaves_no_manifest(make, roots, tmp_path, dataset, file, change, message):
    make(dataset, roots[dataset])
    change(roots[dataset] / file)
    refused(message, make, dataset, roots[dataset])
    assert not (tmp_path / "out" / f"{dataset}.json").exists()


@pytest.mark.parametrize(
    "dataset, name, message",
    [
        ("davis", "DAVIS\\", None),
        ("davis", "DAVIS-2017/DAVIS/", r"DAVIS-2017-t.*\.zip: holds DAVIS-2017/DAVIS/ where DAVIS/ is expected"),
        ("youtube-vos", "YouTube-VOS/train/", r"train\.zip: holds YouTube-VOS/train/ where train/ is expected"),
    ],
)
def test_archives_that_were_packed_otherwise(make, roots, dataset, name, message):
    """With backslashes, as some Windows tools do, or with a folder above the expected one."""
    folder = name.rstrip("/\\").rpartition("/")[2]

    def rename(old):
        return name + old.removeprefix(f"{folder}/").replace("/", name[-1]) if old.startswith(f"{folder}/") else old

    if message is None:
        packed, usual = make(dataset, roots[dataset], rename=rename), make(dataset, roots[dataset])
        assert packed["sha256"] == usual["sha256"] and packed["archives"] != usual["archives"]
        return
    refused(message, make, dataset, roots[dataset], rename=rename)


def test_archive_that_changed_after_fetching_is_named(make, davis_root, tmp_path):
    make("davis", davis_root)
    path = tmp_path / "archives/davis/DAVIS-2017-trainval-480p.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    refused(r"DAVIS-2017-trainval-480p\.zip: differs from what was fetched", make.again, "davis")
    path.unlink()
    refused(r"DAVIS-2017-trainval-480p\.zip: missing archive; fetch davis again", make.again, "davis")
    (tmp_path / "archives/davis/archives.json").unlink()
    refused(r"archives\.json: no such file; fetch davis first", make.again, "davis")


def test_archives_beside_the_required_ones_are_extracted_and_counted(make, youtube_root, tmp_path):
    before = make("youtube-vos", youtube_root)
    folder = tmp_path / "archives" / "youtube-vos"
    with zipfile.ZipFile(folder / "valid_truth.zip", "w") as archive:
        archive.writestr("valid_truth/meta.json", "{}")
    record = json.loads((folder / "archives.json").read_text())
    sha256 = digest((folder / "valid_truth.zip").read_bytes())
    (folder / "archives.json").write_text(json.dumps(record | {"valid_truth.zip": {"size": 1, "sha256": sha256}}))
    after = make.again("youtube-vos")
    assert after["files"] == before["files"] + 1 and after["archives"]["valid_truth.zip"] == sha256
    assert (tmp_path / "out/youtube-vos/valid_truth/meta.json").read_text() == "{}"


@pytest.mark.parametrize("dataset", ["davis", "coco", "youtube-vos"])
def test_counts_of_the_official_edition_are_checked(make, roots, dataset):
    with pytest.raises(HodorError, match=rf"{dataset} train.* has \d+ (videos|images), the official edition has"):
        make(dataset, roots[dataset], edition="official")


def test_killed_checks_leave_no_data_set_and_are_redone(make, davis_root, tmp_path, monkeypatch):
    whole = make("davis", davis_root)
    shutil.rmtree(tmp_path / "out" / "davis")  # the workflow deletes what a rule declares
    with monkeypatch.context() as patch:
        patch.setattr(module, "check_dataset", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make.again("davis")
    assert not (tmp_path / "out" / "davis.json").exists() and not (tmp_path / "out" / "davis").exists()
    assert make.again("davis") == whole
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["davis", "davis.json"]


COUNTED = ("images", "skipped_unannotated", "objects", "crowds", "empty_masks")
FILMED = ("videos", "frames", "masks", "objects", "objects_not_on_first_frame")
REAL = {
    "coco": (COUNTED, {"train2017": (343, 3, 2974, 29, 0), "val2017": (60, 0, 599, 9, 0)}),
    "davis": (FILMED, {"train": (2, 152, 152, 3, 0), "val": (6, 380, 380, 7, 0), "test-dev": (1, 31, 1, 2, 0)}),
}


@pytest.mark.parametrize("dataset", list(REAL))
def test_real_archives_go_through(dataset, shared_data, root, tmp_path):
    entries = sources.archives(root / "config" / "datasets.csv", dataset, "subset")
    origin = {"dataset": dataset, "edition": "subset", "mirror": str(shared_data), "archives": entries}
    fetch({"settings": origin}, tmp_path / "archives")
    stamp = {"settings": {"dataset": dataset, "edition": "subset"}}
    prepare(stamp, tmp_path / "archives", tmp_path / dataset, tmp_path / "manifest.json")
    found, (names, counts) = json.loads((tmp_path / "manifest.json").read_text())["splits"], REAL[dataset]
    assert found == {split: dict(zip(names, numbers, strict=True)) for split, numbers in counts.items()}
    if dataset == "davis":
        bear, tennis = load_davis(tmp_path / dataset, "train")
        assert set(tennis.first_seen) == {1, 2} and 255 in tennis.labels("00013") and 255 not in tennis.labels("00012")
    else:
        images = {image.id: image for image in load_coco(tmp_path / dataset, "train2017")}
        assert not {250, 508, 262284} & set(images), "images without annotation are skipped"
        gray = images[86].read()
        assert gray.shape == (640, 512, 3) and (gray == gray[..., :1]).all()
