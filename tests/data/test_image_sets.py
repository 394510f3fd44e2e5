"""Readers of the data sets of images, their preparation, and tar archives."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from hodor.config import datasets as sources
from hodor.config.stages import Source, StageOptions
from hodor.data.clips_image import ImageClips
from hodor.data.extract import extract_all
from hodor.data.fetch import fetch
from hodor.data.prepare import check_dataset, prepare
from hodor.data.readers import has_instances, load_images
from hodor.data.samplers import pool
from hodor.errors import HodorError

SETS = ("ecssd", "msra10k", "stcn-static", "voc2012", "sbd")

SPLITS = [
    ("ecssd", "all", 2),
    ("msra10k", "all", 2),
    ("stcn-static", "fss", 3),
    ("stcn-static", "DUTS-TR", 1),
    ("stcn-static", "HRSOD_small", 1),
    ("voc2012", "trainval", 1),
    ("sbd", "train", 1),
    ("sbd", "val", 1),
]


@pytest.fixture
def root(tmp_path, files):
    """Folder that a data set is written into: call it with the name."""

    def write(dataset):
        folder = tmp_path / dataset
        files.WRITERS[dataset](folder)
        return folder

    return write


@pytest.mark.parametrize("dataset, split, count", SPLITS)
def test_images_and_objects_of_every_set(root, files, dataset, split, count):
    images = load_images(root(dataset), dataset, split)
    assert len(images) == count
    image = images[0]
    assert (image.height, image.width) == files.SIZE and image.read().shape == (*files.SIZE, 3)
    truth = np.where(files.SCENE == 255, 0, files.SCENE)
    if has_instances(dataset):
        masks = [truth == 1, truth == 2]
    else:
        masks = [truth > 0]
    assert len(image.objects) == len(masks)
    for found, mask in zip(image.objects, masks, strict=True):
        assert np.array_equal(found.mask(*files.SIZE), mask) and found.area == mask.sum() and not found.crowd
        rows, columns = np.nonzero(mask)
        assert found.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    void = image.void()
    assert np.array_equal(void, files.SCENE == 255) if dataset == "voc2012" else void is None or not void.any()


def test_fss_lies_in_folders_of_classes(root):
    paths = [image.path for image in load_images(root("stcn-static"), "stcn-static", "fss")]
    assert [(path.parent.name, path.name) for path in paths] == [("cat", "1.jpg"), ("cat", "2.jpg"), ("dog", "1.jpg")]


def test_masks_are_decided_at_one_half(root, files):
    folder = root("ecssd")
    levels = np.zeros(files.SIZE, np.uint8)
    levels[:, 10], levels[:, 11] = 127, 128
    Image.fromarray(levels).save(folder / "ground_truth_mask" / "0000.png")
    found = load_images(folder, "ecssd", "all")[0].objects[0]
    assert set(np.flatnonzero(found.mask(*files.SIZE).any(0))) == {11}


@pytest.mark.parametrize("dataset", SETS)
def test_unknown_split_is_refused(root, dataset):
    with pytest.raises(HodorError, match=f"{dataset} has no split 'best'; there are "):
        load_images(root(dataset), dataset, "best")


def test_videos_are_no_images(tmp_path):
    with pytest.raises(HodorError, match="davis is no data set of images"):
        load_images(tmp_path, "davis", "train")


def broken(folder, files, change):
    """Makes one thing wrong; returns what the error must say."""
    images, masks = folder / "images", folder / "ground_truth_mask"
    if change == "no mask":
        (masks / "0001.png").unlink()
        return r"images/0001\.jpg: no partner of that name in .*ground_truth_mask \(1 such\)"
    if change == "no image":
        (images / "0001.jpg").unlink()
        return r"ground_truth_mask/0001\.png: no partner"
    if change == "no folder":
        masks.rename(folder / "masks")
        return "ground_truth_mask: no such folder"
    if change == "empty":
        for path in (*images.iterdir(), *masks.iterdir()):
            path.unlink()
        return "images: no image"
    if change == "other ending":
        (images / "0001.jpg").rename(images / "0001.JPG")
        return r"images/0001\.JPG: neither \.jpg nor \.png"
    if change == "other size":
        Image.fromarray(np.zeros((24, 41), np.uint8)).save(masks / "0001.png")
        return r"0001\.png: 41x24 pixels .* 40x24"
    if change == "colours":
        Image.fromarray(files.coloured(files.SCENE)).save(masks / "0001.png")
        return r"0001\.png: a coloured image"
    path = (masks if change == "cut mask" else images) / f"0001.{'png' if change == 'cut mask' else 'jpg'}"
    path.write_bytes(path.read_bytes()[:-30])
    return rf"{path.name}: truncated"


CHANGES = (
    "no mask",
    "no image",
    "no folder",
    "empty",
    "other ending",
    "other size",
    "colours",
    "cut mask",
    "cut image",
)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_wrong_with_a_pair_is_named(root, files, change):
    folder = root("ecssd")
    message = broken(folder, files, change)
    with pytest.raises(HodorError, match=message):
        check_dataset("ecssd", "subset", folder)


def test_notes_among_the_files_are_left_alone(root):
    folder = root("ecssd")
    (folder / "images" / "Readme.txt").write_text("")
    assert len(load_images(folder, "ecssd", "all")) == 2


def test_what_is_wrong_with_voc_and_sbd_is_named(root, files):
    voc, sbd = root("voc2012") / "VOCdevkit" / "VOC2012", root("sbd") / "benchmark_RELEASE" / "dataset"
    path = sbd / "inst" / "2008_000002.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HodorError, match=r"2008_000002\.mat: truncated or damaged label map"):
        load_images(sbd.parent.parent, "sbd", "train")
    path.write_bytes(b"MATLAB 5.0")
    with pytest.raises(HodorError, match=r"2008_000002\.mat: truncated or damaged label map"):
        load_images(sbd.parent.parent, "sbd", "train")
    path.unlink()
    with pytest.raises(HodorError, match=r"2008_000002\.mat: no such file"):
        load_images(sbd.parent.parent, "sbd", "train")
    path.write_bytes(whole)
    files.write_image(sbd / "img" / "2008_000002.jpg", np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(HodorError, match=r"2008_000002\.mat: a label map uint8 \(24, 40\) where uint8 \(10, 10\)"):
        load_images(sbd.parent.parent, "sbd", "train")
    listed = voc / "ImageSets" / "Segmentation" / "trainval.txt"
    listed.write_text("2007_000000\n2007_000000\n")
    with pytest.raises(HodorError, match=r"trainval\.txt: must list each image once"):
        load_images(voc.parent.parent, "voc2012", "trainval")
    listed.write_text("2007_000009\n")
    with pytest.raises(HodorError, match=r"2007_000009\.jpg: no such file"):
        load_images(voc.parent.parent, "voc2012", "trainval")
    listed.unlink()
    with pytest.raises(HodorError, match=r"trainval\.txt: cannot be read"):
        load_images(voc.parent.parent, "voc2012", "trainval")


# Preparation


def pack(dataset, root, folder):
    """Writes the data set's official archives into `folder`."""
    folder.mkdir(parents=True)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        archives = sources.ARCHIVES[dataset]
        target = folder / (archives[0] if len(archives) == 1 else f"{name.split('/')[0]}.zip")
        if target.suffix == ".zip":
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes())
    for name in sources.ARCHIVES[dataset]:
        if not name.endswith(".zip"):
            with tarfile.open(folder / name, "w:gz" if name.endswith(".tgz") else "w") as archive:
                for path in sorted(root.iterdir()):
                    archive.add(path, path.name)


COUNTS = {
    "ecssd": {"all": {"images": 2, "objects": 2, "empty_masks": 0}},
    "msra10k": {"all": {"images": 2, "objects": 2, "empty_masks": 0}},
    "voc2012": {"trainval": {"images": 1, "objects": 2, "empty_masks": 0}},
    "sbd": {split: {"images": 1, "objects": 2, "empty_masks": 0} for split in ("train", "val")},
    "stcn-static": {
        split: {"images": 3 if split == "fss" else 1, "objects": 3 if split == "fss" else 1, "empty_masks": 0}
        for split in ("fss", "DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small")
    },
}


@pytest.mark.parametrize("dataset", SETS)
def test_archives_become_a_prepared_data_set(root, dataset, tmp_path, request):
    folder = root(dataset)
    pack(dataset, folder, tmp_path / "mirror" / dataset)
    table = request.config.rootpath / "config" / "datasets.csv"
    origin = {"dataset": dataset, "edition": "subset", "mirror": str(tmp_path / "mirror")}
    fetch({"settings": origin | {"archives": sources.archives(table, dataset, "subset")}}, tmp_path / "archives")
    out, manifest = tmp_path / "out" / dataset, tmp_path / "out" / f"{dataset}.json"
    prepare({"settings": {"dataset": dataset, "edition": "subset"}}, tmp_path / "archives", out, manifest)
    content = json.loads(manifest.read_text())
    assert content["splits"] == COUNTS[dataset]
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert content["files"] == len(written)
    assert all((out / path.relative_to(folder)).read_bytes() == path.read_bytes() for path in written)
    if dataset != "sbd":
        with pytest.raises(HodorError, match=f"{dataset} .* images, the official edition has "):
            check_dataset(dataset, "official", out)


def test_every_set_has_its_official_sources(request):
    table = request.config.rootpath / "config" / "datasets.csv"
    for dataset in SETS:
        official = sources.archives(table, dataset, "official")
        assert [entry["archive"] for entry in official] == list(sources.ARCHIVES[dataset])
        assert all(entry["log_in"] or entry["address"].endswith(entry["archive"]) for entry in official)


# Tar archives


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


# Pools


def test_pool_repeats_and_limits():
    pools = [Source(dataset="ecssd", split="all", **values) for values in ({}, {"repeat": 3}, {"limit": 5})]
    found = pool([4, 2, 50], pools, seed=0)
    assert found[:10].tolist() == [0, 1, 2, 3, *[4, 5] * 3]
    drawn = found[10:].tolist()
    assert len(set(drawn)) == 5 and all(6 <= i < 56 for i in drawn) and drawn == sorted(drawn)
    assert found.tolist() == pool([4, 2, 50], pools, seed=0).tolist() != pool([4, 2, 50], pools, seed=1).tolist()
    assert pool([3], [pools[2]], seed=0).tolist() == [0, 1, 2]


def test_pools_of_image_stages(tmp_path, files):
    files.write_voc2012(tmp_path / "voc2012", *[files.SCENE] * 6)
    common = {"kind": "images", "steps": 50, "batch": 2, "learning_rate": 1e-3, "pixels": 3072, "min_area": 50}
    train, val = ({"dataset": "voc2012", "split": split} for split in ("train", "val"))

    def shares(*sources):
        stage = StageOptions(**common, min_side=2, sources=list(sources))
        return np.bincount(ImageClips(stage, tmp_path).plan(0).items.ravel(), minlength=6) / 100

    assert np.allclose(shares(train, val), 1 / 6, atol=0.04)
    assert np.allclose(shares(train | {"repeat": 5}, val), [0.5] + [0.1] * 5, atol=0.04)
    assert np.count_nonzero(shares(train, val | {"limit": 2})) == 3
