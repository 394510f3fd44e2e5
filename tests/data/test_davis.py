import numpy as np
import pytest
from PIL import Image

from hodor.data.davis import check_labels, load_davis
from hodor.data.images import write_labels
from hodor.errors import HodorError


def frames(root, name="swan"):
    return root / "DAVIS" / "JPEGImages" / "480p" / name


def masks(root, name="swan"):
    return root / "DAVIS" / "Annotations" / "480p" / name


def test_opens_every_split(davis_root, draw):
    (swan,) = load_davis(davis_root, "val")
    assert swan.name == "swan" and swan.frames == swan.labelled == ("00000", "00001", "00002")
    assert (swan.height, swan.width) == draw.size
    assert swan.first_seen == {1: "00000", 2: "00000"}
    assert swan.frame("00001").shape == (*draw.size, 3)
    (plane,) = load_davis(davis_root, "test-dev")
    assert plane.labelled == ("00000",) and len(plane.frames) == 3
    (bear,) = load_davis(davis_root, "train")
    assert bear.first_seen == {1: "00000"}


def test_void_is_kept_and_is_no_object(davis_root):
    (swan,) = load_davis(davis_root, "val")
    assert np.unique(swan.labels("00002")).tolist() == [0, 1, 2, 255]
    assert check_labels(swan, "00002") == ()


def test_object_that_appears_later_is_kept_but_belongs_to_no_benchmark(davis_root, draw):
    write_labels(masks(davis_root) / "00001.png", draw.labels(1, 2, 3))
    (swan,) = load_davis(davis_root, "val")
    assert swan.first_seen == {1: "00000", 2: "00000"}
    assert 3 in swan.labels("00001") and check_labels(swan, "00001") == (3,)


def test_order_is_that_of_the_split_file(davis_root, draw):
    (davis_root / "DAVIS/ImageSets/2017/val.txt").write_text("swan\r\nbear\n\n")
    assert [video.name for video in load_davis(davis_root, "val")] == ["swan", "bear"]


def test_opening_decodes_first_masks_alone(davis_root):
    """Headers and first masks must do: real sets have thousands of files."""
    for path in [*frames(davis_root).iterdir(), masks(davis_root) / "00001.png"]:
        path.write_bytes(path.read_bytes()[:-20])
    (swan,) = load_davis(davis_root, "val")
    with pytest.raises(HodorError, match=r"swan/00001\.jpg"):
        swan.frame("00001")
    with pytest.raises(HodorError, match=r"swan/00001\.png"):
        swan.labels("00001")


def break_frame_gap(root, draw):
    (frames(root) / "00001.jpg").unlink()
    return r"JPEGImages/480p/swan/00001\.jpg: missing frame"


def break_last_frame(root, draw):
    (frames(root) / "00002.jpg").unlink()
    return r"Annotations/480p/swan/00002\.png: a mask without frame"


def break_first_frame_name(root, draw):
    (frames(root) / "00000.jpg").rename(frames(root) / "00003.jpg")
    return r"swan/00000\.jpg: missing frame"


def break_mask_missing(root, draw):
    (masks(root) / "00001.png").unlink()
    return r"swan/00001\.png: missing mask"


def break_mask_extra(root, draw):
    write_labels(masks(root) / "00007.png", draw.labels(1))
    return r"swan/00007\.png: a mask without frame"


def break_no_frames(root, draw):
    frames(root).rename(root / "elsewhere")
    return r"JPEGImages/480p/swan: no such folder"


def break_no_masks(root, draw):
    for path in masks(root).iterdir():
        path.unlink()
    return r"Annotations/480p/swan: empty folder"


def break_unknown_file(root, draw):
    (frames(root) / "frame_1.jpg").write_bytes(b"")
    return r"swan/frame_1\.jpg: not a frame name"


def break_frame_as_png(root, draw):
    (frames(root) / "00001.jpg").rename(frames(root) / "00001.png")
    return r"swan/00001\.png: not a frame name"


def break_ids(root, draw):
    write_labels(masks(root) / "00000.png", draw.labels(1, 3))
    return r"swan/00000\.png: object ids 1, 3, expected 1 to"


def break_no_object(root, draw):
    write_labels(masks(root) / "00000.png", draw.labels(255))
    return r"swan/00000\.png: object ids none"


def break_mask_size(root, draw):
    write_labels(masks(root) / "00000.png", draw.labels(1, 2, size=(24, 41)))
    return r"swan/00000\.png: 41x24 pixels .* where 40x24"


def break_mask_colours(root, draw):
    path = masks(root) / "00000.png"
    Image.open(path).convert("RGB").save(path)
    return r"swan/00000\.png: a RGB image"


def break_header(root, draw):
    (frames(root) / "00000.jpg").write_bytes(b"\xff\xd8\xff")
    return r"swan/00000\.jpg: truncated or damaged"


def break_split_missing(root, draw):
    (root / "DAVIS/ImageSets/2017/val.txt").unlink()
    return r"2017/val\.txt: no such file"


def break_split_empty(root, draw):
    (root / "DAVIS/ImageSets/2017/val.txt").write_text("\n \n")
    return r"val\.txt: an empty list"


def break_split_twice(root, draw):
    (root / "DAVIS/ImageSets/2017/val.txt").write_text("swan\nbear\nswan\n")
    return r"val\.txt: names sequence swan twice"


def break_split_unknown(root, draw):
    (root / "DAVIS/ImageSets/2017/val.txt").write_text("swan\nghost\n")
    return r"480p/ghost: no such folder"


def break_split_escape(root, draw):
    (root / "DAVIS/ImageSets/2017/val.txt").write_text("../480p/swan\n")
    return r"val\.txt: '\.\./480p/swan' is no sequence name"


def break_split_binary(root, draw):
    (root / "DAVIS/ImageSets/2017/val.txt").write_bytes(b"\xff\xfe\x00sw\x80")
    return r"val\.txt: cannot be read"


BREAKS = [value for name, value in list(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda f: f.__name__)
def test_each_fault_names_its_file(davis_root, draw, break_it):
    load_davis(davis_root, "val")
    message = break_it(davis_root, draw)
    with pytest.raises(HodorError, match=message):
        load_davis(davis_root, "val")


def test_test_dev_needs_its_first_mask(davis_root, draw):
    write_labels(masks(davis_root, "plane") / "00001.png", draw.labels(1))
    assert load_davis(davis_root, "test-dev")[0].labelled == ("00000", "00001")
    (masks(davis_root, "plane") / "00000.png").unlink()
    with pytest.raises(HodorError, match=r"plane/00000\.png: missing mask"):
        load_davis(davis_root, "test-dev")


def test_frames_of_another_size_are_found_when_read(davis_root, draw):
    draw.frame(frames(davis_root) / "00002.jpg", size=(20, 40))
    (swan,) = load_davis(davis_root, "val")
    with pytest.raises(HodorError, match=r"00002\.jpg: 40x20 pixels .* where 40x24"):
        swan.frame("00002")


def test_unknown_split(davis_root):
    with pytest.raises(HodorError, match="no split 'test'; there are train, val, test-dev"):
        load_davis(davis_root, "test")
