"""Tiny data sets in the three official layouts, for tests to break one thing at a time."""

import json
from pathlib import Path

import numpy as np
import pytest

from hodor.data.images import write_labels
from hodor.data.prepare import prepare
from tests.data.datasets import SIZE, fetch_packed, labels_with, write_coco, write_davis, write_frame


@pytest.fixture
def davis_root(tmp_path) -> Path:
    """train: bear (1 object, 3 frames). val: swan (2 objects, void, 3 frames). test-dev: plane (first mask alone)."""
    for split, name, ids in (("train", "bear", (1,)), ("val", "swan", (1, 2)), ("test-dev", "plane", (1, 2))):
        masks = [labels_with(*ids), labels_with(*ids), labels_with(*ids, 255)]
        write_davis(tmp_path / "davis", split, {name: masks[:1] if split == "test-dev" else masks}, frames=3)
    return tmp_path / "davis"


@pytest.fixture
def youtube_root(tmp_path) -> Path:
    """train: one video, ids 2 and 3, the second from frame 00015 on. valid: one video, masks on first frames alone."""
    root = tmp_path / "youtube-vos"
    frames = ["00005", "00010", "00015", "00020"]
    for split, category in (("train", "penguin"), ("valid", None)):
        video = {"train": "aa11", "valid": "bb22"}[split]
        objects = {
            "2": {"category": category, "frames": frames},
            "3": {"category": category, "frames": frames[2:]},
        }
        for number, frame in enumerate(frames):
            write_frame(root / split / "JPEGImages" / video / f"{frame}.jpg", seed=number)
            if split == "train" or frame in ("00005", "00015"):
                ids = (2,) if number < 2 else (2, 3)
                write_labels(root / split / "Annotations" / video / f"{frame}.png", labels_with(*ids))
        (root / split / "meta.json").write_text(json.dumps({"videos": {video: {"objects": objects}}}))
    return root


@pytest.fixture
def coco_root(tmp_path) -> Path:
    """train2017: a colour image (polygon, crowd), a grayscale one (compressed run lengths), one without annotation.
    val2017: one image."""
    root, (height, width) = tmp_path / "coco", SIZE
    square = [4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]
    crowd = {"size": [height, width], "counts": [height * 10, height * 5, height * (width - 15)]}
    entry = {"image_id": 9, "bbox": [4, 4, 8, 8], "area": 64.0}
    annotations = [
        entry | {"segmentation": [square]},
        entry | {"segmentation": crowd, "iscrowd": 1, "area": 120, "bbox": [10, 0, 5, height]},
        entry | {"segmentation": [square, [20, 2, 24, 2, 22, 6]], "image_id": 86},
    ]
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    grey = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    write_coco(root, "train2017", {9: colours, 86: grey, 250: colours}, annotations)
    write_coco(root, "val2017", {9: colours}, annotations[:1])
    return root


@pytest.fixture
def make(tmp_path):
    """Packs an extracted data set into its official archives, fetches and prepares them; returns the manifest."""

    def run(dataset, root, edition="subset", rename=str, **settings):
        fetch_packed(dataset, root, tmp_path, edition, rename)
        return again(dataset, edition, **settings)

    def again(dataset, edition="subset", **settings):
        out, manifest = tmp_path / "out" / dataset, tmp_path / "out" / f"{dataset}.json"
        stamp = {"settings": {"dataset": dataset, "edition": edition} | settings}
        prepare(stamp, tmp_path / "archives" / dataset, out, manifest)
        return json.loads(manifest.read_text())

    run.again = again
    return run
