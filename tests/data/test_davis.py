"""The readers of DAVIS-2017 and DAVIS-2016: what they return, and every fault named with its file."""

import numpy as np
import pytest
from PIL import Image

from hodor.data.davis import load_davis, load_davis2016
from hodor.data.images import write_labels
from hodor.data.prepare import check_dataset
from hodor.data.readers import load_videos
from hodor.data.still_images import known_defects
from hodor.data.video import object_ids
from hodor.errors import HodorError
from tests.data.datasets import SIZE, labels_with
from tests.refused import refused

FRAMES, MASKS, LIST = "DAVIS/JPEGImages/480p/swan", "DAVIS/Annotations/480p/swan", "DAVIS/ImageSets/2017/val.txt"


def test_opens_every_split(davis_root):
    (swan,) = load_davis(davis_root, "val")
    assert swan.name == "swan" and swan.frames == swan.labelled == ("00000", "00001", "00002")
    assert (swan.height, swan.width) == SIZE and swan.frame("00001").shape == (*SIZE, 3)
    assert swan.first_seen == {1: "00000", 2: "00000"}
    # Void is kept and is no object.
    assert np.unique(swan.labels("00002")).tolist() == [0, 1, 2, 255] and object_ids(swan.labels("00002")) == (1, 2)
    (plane,) = load_davis(davis_root, "test-dev")
    assert plane.labelled == ("00000",) and len(plane.frames) == 3
    assert load_davis(davis_root, "train")[0].first_seen == {1: "00000"}
    refused("no split 'test'; there are train, val, test-dev", load_videos, davis_root.parent, "davis", "test")


def test_object_that_appears_later_is_kept_but_belongs_to_no_benchmark(davis_root):
    write_labels(davis_root / MASKS / "00001.png", labels_with(1, 2, 3))
    (found,) = load_davis(davis_root, "val")
    assert found.first_seen == {1: "00000", 2: "00000"}
    assert 3 in found.labels("00001")


@pytest.mark.parametrize("text", ["swan\r\nbear\n\n", "\ufeffswan\nbear"], ids=["blank lines", "byte order mark"])
def test_order_is_that_of_the_split_file(davis_root, text):
    (davis_root / LIST).write_text(text, encoding="utf-8")
    assert [video.name for video in load_davis(davis_root, "val")] == ["swan", "bear"]


def test_opening_decodes_first_masks_alone(davis_root):
    """Headers and first masks must do: real sets have thousands of files."""
    for path in [*(davis_root / FRAMES).iterdir(), davis_root / MASKS / "00001.png"]:
        path.write_bytes(path.read_bytes()[:-20])
    (found,) = load_davis(davis_root, "val")
    for read in (found.frame, found.labels):
        refused(r"swan/00001\.(jpg|png)", read, "00001")


FAULTS = [
    (f"{FRAMES}/00002.jpg", None, r"masks? without frame"),
    (f"{MASKS}/00001.png", None, r"swan/00001\.png: missing mask"),
    (f"{MASKS}/00007.png", lambda: labels_with(1), r"swan/00007\.png: a mask without frame"),
    (FRAMES, None, r"JPEGImages/480p/swan: no such folder"),
    (f"{FRAMES}/frame_1.jpg", b"", r"swan/frame_1\.jpg: not a frame name"),
    (f"{FRAMES}/00001.png", b"", r"swan/00001\.png: not a frame name"),
    (f"{MASKS}/00000.png", lambda: labels_with(1, 3), r"swan/00000\.png: object ids 1, 3, expected 1 to"),
    (f"{MASKS}/00000.png", lambda: labels_with(255), r"swan/00000\.png: object ids none"),
    (f"{MASKS}/00000.png", lambda: labels_with(1, size=(24, 41)), r"00000\.png: 41x24 pixels .* where 40x24"),
    (f"{FRAMES}/00000.jpg", b"\xff\xd8\xff", r"swan/00000\.jpg: truncated or damaged"),
    (LIST, None, r"2017/val\.txt: no such file"),
    (LIST, b"\n \n", r"val\.txt: an empty list"),
    (LIST, b"swan\nbear\nswan\n", r"val\.txt: names sequence swan twice"),
    (LIST, b"swan\nghost\n", r"480p/ghost: no such folder"),
    (LIST, b"../480p/swan\n", r"val\.txt: '\.\./480p/swan' is no sequence name"),
    (LIST, b"\xff\xfe\x00sw\x80", r"val\.txt: cannot be read"),
]


@pytest.mark.parametrize("name, content, message", FAULTS)
def test_each_fault_names_its_file(davis_root, name, content, message):
    load_davis(davis_root, "val")
    path = davis_root / name
    if content is None:
        path.rename(davis_root / "elsewhere")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_labels(path, content())
    refused(message, load_davis, davis_root, "val")


def test_frames_have_no_gap_and_folders_are_not_empty(davis_root):
    (davis_root / FRAMES / "00001.jpg").unlink()
    (davis_root / MASKS / "00001.png").unlink()
    refused(r"swan/00001\.jpg: missing frame \(the next one is 00002\)", load_davis, davis_root, "val")
    for path in (davis_root / MASKS).iterdir():
        path.unlink()
    refused(r"Annotations/480p/swan: empty folder", load_davis, davis_root, "val")


def test_test_dev_needs_its_first_mask(davis_root):
    masks = davis_root / "DAVIS/Annotations/480p/plane"
    write_labels(masks / "00001.png", labels_with(1))
    assert load_davis(davis_root, "test-dev")[0].labelled == ("00000", "00001")
    (masks / "00000.png").unlink()
    refused(r"plane/00000\.png: missing mask", load_davis, davis_root, "test-dev")


# DAVIS-2016


@pytest.fixture
def root_2016(davis_root):
    """The frames of `davis_root` in the layout of DAVIS-2016: sequence swan in val, bear in train."""
    base = davis_root / "DAVIS"
    (base / "ImageSets" / "480p").mkdir()
    for split, name in (("train", "bear"), ("val", "swan")):
        lines = []
        for number in range(3):
            path = base / "Annotations" / "480p" / name / f"{number:05d}.png"
            mask = np.array(Image.open(path))
            Image.fromarray(np.where((mask > 0) & (mask < 255), 255, 0).astype(np.uint8)).save(path)
            lines.append(f"/JPEGImages/480p/{name}/{number:05d}.jpg /Annotations/480p/{name}/{number:05d}.png\n")
        (base / "ImageSets" / "480p" / f"{split}.txt").write_text("\ufeff" + "".join(lines), encoding="utf-8")
    return davis_root.rename(davis_root.with_name("davis2016"))


def test_the_foreground_is_one_object(root_2016):
    (swan,) = load_videos(root_2016.parent, "davis2016", "val")
    assert swan.first_seen == {1: "00000"} and swan.labelled == swan.frames and len(swan.frames) == 3
    assert np.array_equal(swan.labels("00001"), labels_with(1, 2) > 0) and swan.frame("00001").shape == (*SIZE, 3)
    assert check_dataset("davis2016", "subset", root_2016)["val"]["objects"] == 1
    refused("no split 'test-dev'", load_videos, root_2016.parent, "davis2016", "test-dev")


FAULTS_2016 = [
    ("Annotations/480p/swan/00002.png", lambda mask: np.where(mask > 0, 7, 0), r"00002\.png: value 7 where DAVIS-2016"),
    ("Annotations/480p/swan/00002.png", lambda mask: np.stack([mask] * 3, -1), r"00002\.png: a RGB image"),
    ("Annotations/480p/swan/00000.png", lambda mask: mask * 0, r"00000\.png: no foreground"),
    ("JPEGImages/480p/swan/00001.jpg", None, r"00001\.png: a mask without frame"),
    ("Annotations/480p/swan/00001.png", None, r"00001\.png: in the folder or in the split's list, not in both"),
    ("ImageSets/480p/val.txt", None, r"val\.txt: no such file"),
    ("ImageSets/480p/val.txt", "\n", r"val\.txt: an empty list"),
    ("ImageSets/480p/val.txt", "/JPEGImages/480p/swan/00001.jpg\n", r"val\.txt: the line '/JPEGImages.*' is not"),
]


@pytest.mark.parametrize("name, change, message", FAULTS_2016)
def test_faults_of_davis_2016(root_2016, name, change, message):
    path = root_2016 / "DAVIS" / name
    if change is None:
        path.unlink()
    elif isinstance(change, str):
        path.write_text(change)
    else:
        Image.fromarray(change(np.array(Image.open(path))).astype(np.uint8)).save(path)
    with pytest.raises(HodorError, match=message):
        for video in load_davis2016(root_2016, "val"):
            for frame in video.frames:
                video.labels(frame)


def test_a_mask_with_an_alpha_channel_is_a_known_defect(root_2016):
    """As in bear/00077.png of the official archive."""
    path = root_2016 / "DAVIS/Annotations/480p/bear/00001.png"
    before = load_davis2016(root_2016, "train")[0].labels("00001")
    assert known_defects(root_2016, "davis2016") == {}
    Image.open(path).convert("LA").save(path)
    assert np.array_equal(load_davis2016(root_2016, "train")[0].labels("00001"), before)
    assert list(known_defects(root_2016, "davis2016")) == ["DAVIS/Annotations/480p/bear/00001.png"]
