import json

import pytest
from PIL import Image

from hodor.data.images import write_labels
from hodor.data.youtube_vos import check_labels, check_objects, load_youtube_vos, read_meta
from hodor.errors import HodorError


def change_meta(root, change, split="train"):
    path = root / split / "meta.json"
    meta = json.loads(path.read_text())
    change(meta["videos"])
    path.write_text(json.dumps(meta))


def ids_of(video):
    return {frame: check_labels(video, frame) for frame in video.labelled}


def test_opens_both_splits(youtube_root, draw):
    (train,) = load_youtube_vos(youtube_root, "train")
    assert train.name == "aa11" and train.frames == train.labelled == ("00005", "00010", "00015", "00020")
    assert train.first_seen == {2: "00005", 3: "00015"}, "ids with gaps are official"
    assert (train.height, train.width) == draw.size
    (valid,) = load_youtube_vos(youtube_root, "valid")
    assert valid.labelled == ("00005", "00015") and len(valid.frames) == 4
    assert ids_of(valid) == {"00005": (2,), "00015": (2, 3)}
    assert check_objects(valid, ids_of(valid), "valid") == 0


def test_opening_decodes_nothing(youtube_root):
    for path in (youtube_root / "train").rglob("*.[jp][pn]g"):
        path.write_bytes(path.read_bytes()[:-20])
    (train,) = load_youtube_vos(youtube_root, "train")
    with pytest.raises(HodorError, match=r"aa11/00010\.jpg"):
        train.frame("00010")
    with pytest.raises(HodorError, match=r"aa11/00010\.png"):
        train.labels("00010")


def test_frames_and_masks_beyond_the_lists_are_allowed(youtube_root, draw):
    draw.frame(youtube_root / "train/JPEGImages/aa11/00000.jpg")
    draw.frame(youtube_root / "valid/JPEGImages/bb22/00000.jpg")
    write_labels(youtube_root / "valid/Annotations/bb22/00020.png", draw.labels(2, 3))
    assert load_youtube_vos(youtube_root, "train")[0].frames[0] == "00000"
    assert load_youtube_vos(youtube_root, "valid")[0].labelled == ("00005", "00015", "00020")


def test_sizes_may_differ_between_videos(youtube_root, draw):
    def second(videos):
        videos["aa00"] = {"objects": {"1": {"category": "ape", "frames": ["00000"]}}}

    change_meta(youtube_root, second)
    draw.frame(youtube_root / "train/JPEGImages/aa00/00000.jpg", size=(30, 20))
    write_labels(youtube_root / "train/Annotations/aa00/00000.png", draw.labels(1, size=(30, 20)))
    sizes = {video.name: (video.height, video.width) for video in load_youtube_vos(youtube_root, "train")}
    assert sizes == {"aa00": (30, 20), "aa11": draw.size}


def break_meta_missing(root, draw):
    (root / "train/meta.json").unlink()
    return r"train/meta\.json: no such file"


def break_meta_cut(root, draw):
    path = root / "train/meta.json"
    path.write_text(path.read_text()[:-5])
    return r"train/meta\.json: broken"


def break_meta_binary(root, draw):
    (root / "train/meta.json").write_bytes(b"\x80\x81")
    return r"train/meta\.json: broken"


def break_meta_list(root, draw):
    (root / "train/meta.json").write_text("[]")
    return r"train/meta\.json: broken"


def break_meta_empty(root, draw):
    change_meta(root, lambda videos: videos.clear())
    return r"train/meta\.json: broken \(no video\)"


def break_meta_no_videos(root, draw):
    (root / "train/meta.json").write_text("{}")
    return r"train/meta\.json: incomplete, key 'videos' is missing"


def break_meta_no_objects(root, draw):
    change_meta(root, lambda videos: videos["aa11"].pop("objects"))
    return r"train/meta\.json: incomplete, key 'objects'"


def break_meta_no_frames(root, draw):
    change_meta(root, lambda videos: videos["aa11"]["objects"]["3"].pop("frames"))
    return r"train/meta\.json: incomplete, key 'frames'"


def break_meta_empty_frames(root, draw):
    change_meta(root, lambda videos: videos["aa11"]["objects"]["3"]["frames"].clear())
    return r"meta\.json: broken \(video aa11, object 3: `frames`"


def break_meta_order(root, draw):
    change_meta(root, lambda videos: videos["aa11"]["objects"]["3"]["frames"].reverse())
    return r"meta\.json: broken \(video aa11, object 3: frames out of order"


def break_meta_void_id(root, draw):
    change_meta(root, lambda videos: videos["aa11"]["objects"].update({"255": {"frames": ["00005"]}}))
    return r"meta\.json: broken \(video aa11: object id '255'"


def break_meta_text_id(root, draw):
    change_meta(root, lambda videos: videos["aa11"]["objects"].update({"x": {"frames": ["00005"]}}))
    return r"meta\.json: broken \(video aa11: object id 'x'"


def break_meta_name_twice(root, draw):
    entry = json.dumps({"objects": {"2": {"frames": ["00005"]}}})
    (root / "train/meta.json").write_text(f'{{"videos": {{"aa11": {entry}, "aa11": {entry}}}}}')
    return r"meta\.json: broken \(name 'aa11' twice"


def break_frame_missing(root, draw):
    (root / "train/JPEGImages/aa11/00010.jpg").unlink()
    return r"JPEGImages/aa11/00010\.jpg: missing frame, meta\.json lists it"


def break_mask_missing(root, draw):
    (root / "train/Annotations/aa11/00010.png").unlink()
    return r"Annotations/aa11/00010\.png: missing mask"


def break_mask_extra(root, draw):
    write_labels(root / "train/Annotations/aa11/00025.png", draw.labels(2))
    return r"Annotations/aa11/00025\.png: a mask without frame"


def break_video_missing(root, draw):
    (root / "train/JPEGImages/aa11").rename(root / "gone")
    return r"JPEGImages/aa11: no such folder"


def break_video_unknown(root, draw):
    draw.frame(root / "train/JPEGImages/cc33/00000.jpg")
    return r"JPEGImages/cc33: not in meta\.json"


def break_frames_not_there(root, draw):
    """What a folder with meta.json alone looks like."""
    (root / "train/JPEGImages").rename(root / "gone")
    return r"train/JPEGImages: no such folder; the frames come in train\.zip"


BREAKS = [value for name, value in list(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda f: f.__name__)
def test_each_fault_names_its_file(youtube_root, draw, break_it):
    load_youtube_vos(youtube_root, "train")
    message = break_it(youtube_root, draw)
    with pytest.raises(HodorError, match=message):
        load_youtube_vos(youtube_root, "train")


def test_valid_needs_the_mask_of_each_first_frame(youtube_root):
    (youtube_root / "valid/Annotations/bb22/00015.png").unlink()
    with pytest.raises(HodorError, match=r"valid/Annotations/bb22/00015\.png: missing mask"):
        load_youtube_vos(youtube_root, "valid")


@pytest.mark.parametrize("split, video, frame", [("train", "aa11", "00010"), ("valid", "bb22", "00015")])
def test_id_that_meta_does_not_know(youtube_root, draw, split, video, frame):
    write_labels(youtube_root / split / "Annotations" / video / f"{frame}.png", draw.labels(2, 4))
    (opened,) = load_youtube_vos(youtube_root, split)
    with pytest.raises(HodorError, match=rf"{frame}\.png: object id 4 is not in meta\.json, which has 2, 3"):
        ids_of(opened)


def test_object_of_meta_that_no_mask_has(youtube_root, draw):
    for frame in ("00015", "00020"):
        write_labels(youtube_root / f"train/Annotations/aa11/{frame}.png", draw.labels(2))
    (train,) = load_youtube_vos(youtube_root, "train")
    with pytest.raises(HodorError, match=r"00015\.png: object 3 is not in this mask"):
        check_objects(train, ids_of(train), "train")


def test_object_absent_on_its_first_frame_counts_in_train_and_fails_in_valid(youtube_root, draw):
    for split, video in (("train", "aa11"), ("valid", "bb22")):
        write_labels(youtube_root / split / "Annotations" / video / "00015.png", draw.labels(2))
        write_labels(youtube_root / split / "Annotations" / video / "00020.png", draw.labels(2, 3))
    (train,) = load_youtube_vos(youtube_root, "train")
    assert check_objects(train, ids_of(train), "train") == 1
    (valid,) = load_youtube_vos(youtube_root, "valid")
    with pytest.raises(HodorError, match=r"bb22/00015\.png: object 3"):
        check_objects(valid, ids_of(valid), "valid")


def test_mask_of_another_size_or_in_colours_is_refused_when_read(youtube_root, draw):
    (train,) = load_youtube_vos(youtube_root, "train")
    write_labels(train.label_path("00010"), draw.labels(2, size=(24, 44)))
    with pytest.raises(HodorError, match=r"00010\.png: 44x24"):
        train.labels("00010")
    Image.open(train.label_path("00015")).convert("RGB").save(train.label_path("00015"))
    with pytest.raises(HodorError, match=r"00015\.png: a RGB image"):
        train.labels("00015")


def test_unknown_split(youtube_root):
    with pytest.raises(HodorError, match="no split 'test'; there are train, valid"):
        load_youtube_vos(youtube_root, "test")


def test_official_lists_are_read(shared_data):
    """Ids with gaps, lists with holes, one video with every third frame: all official, none an error."""
    train = read_meta(shared_data / "youtube-vos/train/meta.json")
    valid = read_meta(shared_data / "youtube-vos/valid/meta.json")
    assert (len(train), len(valid)) == (3471, 474)
    assert (sum(map(len, train.values())), sum(map(len, valid.values()))) == (5945, 894)
    assert list(train["0ac8c560ae"]) == [2, 3]
    assert valid["8aa47fac99"][1][:3] == ("00000", "00003", "00006")
    with pytest.raises(HodorError, match=r"train/JPEGImages: no such folder; the frames come in train\.zip"):
        load_youtube_vos(shared_data / "youtube-vos", "train")
