"""DAVIS-2016: masks of 0 and 255, lists of frame paths."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from hodor.config.generated import GeneratedOptions
from hodor.data.davis2016 import load_davis2016
from hodor.data.prepare import check_dataset
from hodor.data.synthetic import generate
from hodor.data.videos import load_videos
from hodor.errors import HodorError

OPTIONS = GeneratedOptions(davis_train=1, davis_val=2, davis_size=(64, 112), davis_frames=4, objects=(2, 2))


@pytest.fixture
def root(tmp_path):
    for dataset in ("davis2016", "davis"):
        for archive in generate(dataset, OPTIONS, tmp_path / "archives"):
            zipfile.ZipFile(archive).extractall(tmp_path / dataset)
    return tmp_path / "davis2016"


def test_the_foreground_is_one_object(root):
    videos = load_videos(root.parent, "davis2016", "val")
    assert [video.name for video in videos] == ["val-000", "val-001"]
    for video, of_2017 in zip(videos, load_videos(root.parent, "davis", "val"), strict=True):
        assert video.first_seen == {1: "00000"} and video.labelled == video.frames == of_2017.frames
        for frame in video.frames:
            assert np.array_equal(video.labels(frame), of_2017.labels(frame) > 0)
            assert np.array_equal(video.frame(frame), of_2017.frame(frame))
    assert check_dataset("davis2016", "generated", root)["val"]["objects"] == 2


@pytest.mark.parametrize(
    "damage, told",
    [
        ("value", r"val-000/00002\.png: value 7 where DAVIS-2016 has 0 and 255"),
        ("frame", r"val-000/00001\.jpg: in the folder or in the split's list, not in both"),
        ("mask", r"val-000/00001\.png: in the folder or in the split's list"),
        ("colours", r"val-000/00002\.png: a RGB image"),
        ("empty", r"val-000/00000\.png: no foreground"),
        ("list", r"val\.txt, line 2: '/JPEGImages/480p/val-000/00001\.jpg' is not"),
        ("no list", r"val\.txt: no such file"),
        ("empty list", r"val\.txt: an empty list"),
    ],
)
def test_what_is_refused(root, damage, told):
    masks, images = (root / "DAVIS" / kind / "480p" / "val-000" for kind in ("Annotations", "JPEGImages"))
    listing = root / "DAVIS/ImageSets/480p/val.txt"
    mask = np.array(Image.open(masks / "00002.png"))
    if damage == "value":
        mask[0, 0] = 7
        Image.fromarray(mask).save(masks / "00002.png")
    elif damage == "frame":
        (images / "00001.jpg").unlink()
    elif damage == "mask":
        (masks / "00001.png").unlink()
    elif damage == "colours":
        Image.fromarray(mask).convert("RGB").save(masks / "00002.png")
    elif damage == "empty":
        Image.fromarray(np.zeros_like(mask)).save(masks / "00000.png")
    elif damage == "list":
        listing.write_text(listing.read_text().replace(" /Annotations/480p/val-000/00001.png", ""))
    elif damage == "no list":
        listing.unlink()
    else:
        listing.write_text("\n")
    with pytest.raises(HodorError, match=told):
        for video in load_davis2016(root, "val"):
            for frame in video.frames:
                video.labels(frame)
