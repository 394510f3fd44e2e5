"""Still images with masks: what the readers return, faults, known defects of published archives, preparation."""

import numpy as np
import pytest
from PIL import Image

from hodor.data.prepare import check_dataset
from hodor.data.readers import has_instances, load_images
from hodor.errors import HodorError
from tests.data.datasets import SCENE, SIZE, WRITERS, coloured, write_image
from tests.refused import refused

SPLITS = [
    *[("ecssd", "all", 2), ("msra10k", "all", 2), ("voc2012", "trainval", 1), ("sbd", "train", 1), ("sbd", "val", 1)],
    *[("stcn-static", "fss", 3), ("stcn-static", "DUTS-TR", 1), ("stcn-static", "HRSOD_small", 1)],
]


@pytest.fixture
def root(tmp_path):
    """Folder that a data set is written into: call it with the name."""

    def write(dataset):
        WRITERS[dataset](tmp_path / dataset)
        return tmp_path / dataset

    return write


@pytest.mark.parametrize("dataset, split, count", SPLITS)
def test_images_and_objects_of_every_set(root, dataset, split, count):
    images = load_images(root(dataset), dataset, split)
    assert len(images) == count
    image, void = images[0], images[0].void()
    assert (image.height, image.width) == SIZE and image.read().shape == (*SIZE, 3)
    labels = np.where(SCENE == 255, 0, SCENE)
    masks = [labels == 1, labels == 2] if has_instances(dataset) else [labels > 0]
    for found, mask in zip(image.objects, masks, strict=True):
        assert np.array_equal(found.mask(*SIZE), mask) and found.area == mask.sum() and not found.crowd
        rows, columns = np.nonzero(mask)
        assert found.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert np.array_equal(void, SCENE == 255) if dataset == "voc2012" else void is None or not void.any()
    if split == "fss":
        names = [(image.path.parent.name, image.path.name) for image in images]
        assert names == [("cat", "1.jpg"), ("cat", "2.jpg"), ("dog", "1.jpg")]


def test_masks_are_decided_at_one_half_and_notes_are_ignored(root):
    folder = root("ecssd")
    levels = np.zeros(SIZE, np.uint8)
    levels[:, 10], levels[:, 11] = 127, 128
    Image.fromarray(levels).save(folder / "ground_truth_mask" / "0000.png")
    (folder / "images" / "Readme.txt").write_text("")
    first, _ = load_images(folder, "ecssd", "all")
    assert set(np.flatnonzero(first.objects[0].mask(*SIZE).any(0))) == {11}


def test_unknown_splits_and_videos_are_refused(root, tmp_path):
    refused("sbd has no split 'best'; there are ", load_images, root("sbd"), "sbd", "best")
    refused("davis is no data set of images", load_images, tmp_path, "davis", "train")


FAULTS = {
    r"/0001\.jpg: no partner of that name in .*ground_truth_mask \(1 such\)": lambda i, m: (m / "0001.png").unlink(),
    r"ground_truth_mask/0001\.png: no partner": lambda i, m: (i / "0001.jpg").unlink(),
    "ground_truth_mask: no such folder": lambda i, m: m.rename(m.with_name("masks")),
    "images: no image": lambda i, m: [path.unlink() for path in (*i.iterdir(), *m.iterdir())],
    r"images/0001\.JPG: neither \.jpg nor \.png": lambda i, m: (i / "0001.jpg").rename(i / "0001.JPG"),
    r"0001\.png: a coloured image": lambda i, m: write_image(m / "0001.png", coloured(SCENE)),
    r"0001\.jpg: truncated": lambda i, m: (i / "0001.jpg").write_bytes((i / "0001.jpg").read_bytes()[:-30]),
}


@pytest.mark.parametrize("message", FAULTS)
def test_whatever_is_wrong_with_a_pair_is_named(root, message):
    folder = root("ecssd")
    FAULTS[message](folder / "images", folder / "ground_truth_mask")
    refused(message, check_dataset, "ecssd", "subset", folder)


def test_what_is_wrong_with_voc_and_sbd_is_named(root):
    voc, sbd = root("voc2012") / "VOCdevkit" / "VOC2012", root("sbd") / "benchmark_RELEASE" / "dataset"
    path = sbd / "inst" / "2008_000002.mat"
    whole = path.read_bytes()
    faults = [
        (whole[: len(whole) // 2], "truncated or damaged"),
        (b"MATLAB 5.0", "truncated or damaged"),
        (None, "no such file"),
    ]
    for content, message in faults:
        path.unlink() if content is None else path.write_bytes(content)
        refused(rf"2008_000002\.mat: {message}", load_images, sbd.parent.parent, "sbd", "train")
    path.write_bytes(whole)
    write_image(sbd / "img" / "2008_000002.jpg", np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(HodorError, match=r"2008_000002\.mat: a label map uint8 \(24, 40\) where uint8 \(10, 10\)"):
        load_images(sbd.parent.parent, "sbd", "train")
    listed = voc / "ImageSets" / "Segmentation" / "trainval.txt"
    faults = [
        ("2007_000000\n" * 2, r"trainval\.txt: must list each image once"),
        ("2007_000009", r"2007_000009\.jpg: no such file"),
    ]
    for text, message in [*faults, (None, r"trainval\.txt: no such file")]:
        listed.unlink() if text is None else listed.write_text(text)
        refused(message, load_images, voc.parent.parent, "voc2012", "trainval")


# Preparation


COUNTS = {
    "ecssd": {"all": (2, 2)},
    "msra10k": {"all": (2, 2)},
    "voc2012": {"trainval": (1, 2)},
    "sbd": {"train": (1, 2), "val": (1, 2)},
    "stcn-static": {"fss": (3, 3)} | dict.fromkeys(("DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small"), (1, 1)),
}
"""Data set -> split -> number of images and objects."""


@pytest.mark.parametrize("dataset", COUNTS)
def test_archives_become_a_prepared_data_set(root, dataset, make, tmp_path):
    folder, out = root(dataset), tmp_path / "out" / dataset
    content = make(dataset, folder)
    assert "known_defects" not in content and content["splits"] == {
        split: {"images": images, "objects": objects, "empty_masks": 0}
        for split, (images, objects) in COUNTS[dataset].items()
    }
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert content["files"] == len(written)
    assert all((out / path.relative_to(folder)).read_bytes() == path.read_bytes() for path in written)


def test_known_defects_of_stcns_archive_are_counted_and_do_not_stop_it(root, make, tmp_path):
    folder = root("stcn-static")
    falcon = folder / "fss" / "peregine_falcon"
    write_image(falcon / "8.jpg", coloured(SCENE))
    write_image(falcon / "8.png", np.zeros((30, 20), np.uint8))
    write_image(falcon / "7.jpg", coloured(SCENE))
    write_image(falcon / "7.png", np.zeros(SIZE, np.uint8))
    write_image(folder / "fss" / "cat" / "1.jpeg", coloured(SCENE))
    content, out = make("stcn-static", folder), tmp_path / "out" / "stcn-static"
    assert set(content["known_defects"]) == {"fss/peregine_falcon/8.jpg", "fss/cat/1.jpeg"}
    assert content["splits"]["fss"] == {"images": 5, "left_out": 1, "objects": 4, "empty_masks": 1}
    assert "8.jpg" not in [image.path.name for image in load_images(out, "stcn-static", "fss")]
    # Elsewhere the same fault is one.
    write_image(folder / "fss" / "cat" / "2.png", np.zeros((30, 20), np.uint8))
    refused(r"cat/2\.png: 20x30 pixels", check_dataset, "stcn-static", "subset", folder)
