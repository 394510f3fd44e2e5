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
from hodor.data.fetch import fetch
from hodor.data.images import read_labels, write_labels
from hodor.data.prepare import prepare
from hodor.errors import HodorError


@pytest.fixture
def roots(davis_root, coco_root, youtube_root):
    return {"davis": davis_root, "coco": coco_root, "youtube-vos": youtube_root}


def test_davis(make, davis_root, tmp_path, draw):
    write_labels(davis_root / "DAVIS/Annotations/480p/swan/00001.png", draw.labels(1, 2, 5))
    manifest = make("davis", davis_root)
    one = {"videos": 1, "frames": 3, "masks": 3, "objects": 1, "objects_not_on_first_frame": 0}
    assert manifest["splits"] == {
        "train": one,
        "val": one | {"objects": 2, "objects_not_on_first_frame": 1},
        "test-dev": one | {"objects": 2, "masks": 1},
    }
    assert (manifest["dataset"], manifest["edition"]) == ("davis", "subset")
    files = {path.relative_to(davis_root): path for path in davis_root.rglob("*") if path.is_file()}
    assert manifest["files"] == len(files) == 9 + 7 + 3
    out = tmp_path / "out" / "davis"
    assert all((out / name).read_bytes() == path.read_bytes() for name, path in files.items())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
        for name, path in sorted((str(name), path) for name, path in files.items())
    ]
    assert manifest["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    archives = tmp_path / "archives" / "davis"
    assert manifest["archives"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in archives.glob("*.zip")
    }


def test_youtube_vos(make, youtube_root):
    splits = make("youtube-vos", youtube_root)["splits"]
    one = {"videos": 1, "frames": 4, "masks": 4, "objects": 2, "objects_not_on_first_frame": 0}
    assert splits == {"train": one, "valid": one | {"masks": 2}}


def test_coco(make, coco_root):
    splits = make("coco", coco_root)["splits"]
    train = {"images": 3, "skipped_unannotated": 1, "objects": 3, "crowds": 1, "empty_masks": 0}
    assert splits == {
        "train2017": train,
        "val2017": train | {"images": 1, "skipped_unannotated": 0, "objects": 1, "crowds": 0},
    }


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
        ("youtube-vos", "valid/Annotations/bb22/00015.png", with_id_9, r"valid.*00015\.png: object id 9"),
        ("youtube-vos", "valid/Annotations/bb22/00015.png", without_id_3, r"bb22/00015\.png: object 3 is not in"),
    ],
)
def test_every_fault_is_found_and_leaves_no_manifest(make, roots, tmp_path, dataset, file, change, message):
    make(dataset, roots[dataset])
    change(roots[dataset] / file)
    with pytest.raises(HodorError, match=message):
        make(dataset, roots[dataset])
    assert not (tmp_path / "out" / f"{dataset}.json").exists()


@pytest.mark.parametrize(
    "dataset, name, message",
    [
        ("davis", "DAVIS\\", None),
        ("davis", "DAVIS-2017/DAVIS/", r"DAVIS-2017-t.*\.zip: holds DAVIS-2017/DAVIS/ where DAVIS/ is expected"),
        ("coco", "coco/train2017/", r"train2017\.zip: holds coco/train2017/ where train2017/ is expected"),
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
    with pytest.raises(HodorError, match=message):
        make(dataset, roots[dataset], rename=rename)


def test_archive_that_changed_after_fetching_is_named(make, davis_root, tmp_path):
    make("davis", davis_root)
    path = tmp_path / "archives/davis/DAVIS-2017-trainval-480p.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(HodorError, match=r"DAVIS-2017-trainval-480p\.zip: differs from what was fetched"):
        make.again("davis")
    path.unlink()
    with pytest.raises(HodorError, match=r"DAVIS-2017-trainval-480p\.zip: missing archive; fetch davis again"):
        make.again("davis")
    (tmp_path / "archives/davis/archives.json").unlink()
    with pytest.raises(HodorError, match=r"archives\.json: no such file; fetch davis first"):
        make.again("davis")


def test_archives_beside_the_required_ones_are_extracted_and_counted(make, youtube_root, tmp_path):
    before = make("youtube-vos", youtube_root)
    folder = tmp_path / "archives" / "youtube-vos"
    with zipfile.ZipFile(folder / "valid_truth.zip", "w") as archive:
        archive.writestr("valid_truth/meta.json", "{}")
    record = json.loads((folder / "archives.json").read_text())
    digest = hashlib.sha256((folder / "valid_truth.zip").read_bytes()).hexdigest()
    (folder / "archives.json").write_text(json.dumps(record | {"valid_truth.zip": {"size": 1, "sha256": digest}}))
    after = make.again("youtube-vos")
    assert after["files"] == before["files"] + 1 and after["archives"]["valid_truth.zip"] == digest
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


REAL = {
    "coco": {
        "train2017": {"images": 343, "skipped_unannotated": 3, "objects": 2974, "crowds": 29, "empty_masks": 0},
        "val2017": {"images": 60, "skipped_unannotated": 0, "objects": 599, "crowds": 9, "empty_masks": 0},
    },
    "davis": {
        "train": {"videos": 2, "frames": 152, "masks": 152, "objects": 3, "objects_not_on_first_frame": 0},
        "val": {"videos": 6, "frames": 380, "masks": 380, "objects": 7, "objects_not_on_first_frame": 0},
        "test-dev": {"videos": 1, "frames": 31, "masks": 1, "objects": 2, "objects_not_on_first_frame": 0},
    },
}


@pytest.mark.parametrize("dataset", list(REAL))
def test_real_archives_go_through(dataset, shared_data, root, tmp_path):
    entries = sources.archives(root / "config" / "datasets.csv", dataset, "subset")
    origin = {"dataset": dataset, "edition": "subset", "mirror": str(shared_data), "archives": entries}
    fetch({"settings": origin}, tmp_path / "archives")
    stamp = {"settings": {"dataset": dataset, "edition": "subset"}}
    prepare(stamp, tmp_path / "archives", tmp_path / dataset, tmp_path / "manifest.json")
    assert json.loads((tmp_path / "manifest.json").read_text())["splits"] == REAL[dataset]
    if dataset == "davis":
        from hodor.data.davis import load_davis

        bear, tennis = load_davis(tmp_path / dataset, "train")
        assert set(tennis.first_seen) == {1, 2} and 255 in tennis.labels("00013") and 255 not in tennis.labels("00012")
    if dataset == "coco":
        from hodor.data.coco import load_coco

        images = {image.id: image for image in load_coco(tmp_path / dataset, "train2017").images}
        assert not {250, 508, 262284} & set(images), "images without annotation are skipped"
        gray = images[86].read()
        assert gray.shape == (640, 512, 3) and (gray == gray[..., :1]).all()
