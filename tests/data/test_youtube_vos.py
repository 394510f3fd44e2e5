"""The reader of YouTube-VOS: official facts are no errors, every fault is named, the hold-out is fixed."""

import csv
import json

import pytest

from hodor.config.benchmarks import UNSEEN, held_out
from hodor.data.images import write_labels
from hodor.data.youtube_vos import check_objects, load_youtube_vos, read_categories, read_meta
from hodor.errors import HodorError
from tests.data.datasets import SIZE, labels_with, write_frame
from tests.refused import refused


def change_meta(root, change, split="train"):
    path = root / split / "meta.json"
    meta = json.loads(path.read_text())
    change(meta["videos"])
    path.write_text(json.dumps(meta))


def test_opens_both_splits(youtube_root):
    (train,) = load_youtube_vos(youtube_root, "train")
    assert train.name == "aa11" and train.frames == train.labelled == ("00005", "00010", "00015", "00020")
    assert train.first_seen == {2: "00005", 3: "00015"}, "ids with gaps are official"
    assert (train.height, train.width) == SIZE
    (valid,) = load_youtube_vos(youtube_root, "valid")
    assert valid.labelled == ("00005", "00015") and len(valid.frames) == 4
    assert check_objects(valid, "valid") == 0


def test_opening_decodes_nothing(youtube_root):
    for path in (youtube_root / "train").rglob("*.[jp][pn]g"):
        path.write_bytes(path.read_bytes()[:-20])
    (train,) = load_youtube_vos(youtube_root, "train")
    refused(r"aa11/00010\.jpg", train.frame, "00010")
    refused(r"aa11/00010\.png", train.labels, "00010")


def test_frames_and_masks_beyond_the_lists_are_allowed(youtube_root):
    write_frame(youtube_root / "train/JPEGImages/aa11/00000.jpg")
    write_frame(youtube_root / "valid/JPEGImages/bb22/00000.jpg")
    write_labels(youtube_root / "valid/Annotations/bb22/00020.png", labels_with(2, 3))
    assert load_youtube_vos(youtube_root, "train")[0].frames[0] == "00000"
    assert load_youtube_vos(youtube_root, "valid")[0].labelled == ("00005", "00015", "00020")


def test_sizes_may_differ_between_videos(youtube_root):
    def second(videos):
        videos["aa00"] = {"objects": {"1": {"category": "ape", "frames": ["00000"]}}}

    change_meta(youtube_root, second)
    write_frame(youtube_root / "train/JPEGImages/aa00/00000.jpg", size=(30, 20))
    write_labels(youtube_root / "train/Annotations/aa00/00000.png", labels_with(1, size=(30, 20)))
    sizes = {video.name: (video.height, video.width) for video in load_youtube_vos(youtube_root, "train")}
    assert sizes == {"aa00": (30, 20), "aa11": SIZE}


META = "train/meta.json"
FRAMES, MASKS = "train/JPEGImages/aa11", "train/Annotations/aa11"
OBJECT = json.dumps({"objects": {"2": {"frames": ["00005"]}}})


def meta(change):
    return lambda root: change_meta(root, change)


def text(content):
    return lambda root: (root / META).write_bytes(content)


def of_object_3(change):
    return meta(lambda videos: change(videos["aa11"]["objects"]["3"]))


def new_id(name):
    return meta(lambda videos: videos["aa11"]["objects"].update({name: {"frames": ["00005"]}}))


def gone(path):
    return lambda root: (root / path).rename(root / "gone")


FAULTS = [
    (gone(META), "no such file"),
    (text(b'{"videos": {"aa11"'), "broken"),
    (text(b"[]"), "broken"),
    (text(b"[" * 200_000), "broken"),
    (text(b"{}"), "incomplete, key 'videos' is missing"),
    (text(f'{{"videos": {{"aa11": {OBJECT}, "aa11": {OBJECT}}}}}'.encode()), r"broken \(name 'aa11' twice"),
    (meta(lambda videos: videos.clear()), r"broken \(no video\)"),
    (meta(lambda videos: videos["aa11"].pop("objects")), "incomplete, key 'objects'"),
    (meta(lambda videos: videos.update({"./aa11": videos["aa11"]})), r"broken \('\./aa11' is no name of a video"),
    (of_object_3(lambda entry: entry.pop("frames")), "incomplete, key 'frames'"),
    (of_object_3(lambda entry: entry["frames"].clear()), r"broken \(video aa11, object 3: `frames`"),
    (of_object_3(lambda entry: entry["frames"].reverse()), r"broken \(video aa11, object 3: frames out of order"),
    (new_id("255"), r"broken \(video aa11: object id '255'"),
    (new_id("x"), r"broken \(video aa11: object id 'x'"),
    (gone(f"{MASKS}/00010.png"), r"aa11/00010\.png: missing mask"),
    (gone(FRAMES), r"JPEGImages/aa11: no such folder"),
    (lambda root: write_frame(root / "train/JPEGImages/cc33/00000.jpg"), r"JPEGImages/cc33: not in meta\.json"),
    # What a folder with meta.json alone looks like.
    (gone("train/JPEGImages"), r"train/JPEGImages: no such folder; the frames come in train\.zip"),
    (gone("valid/Annotations/bb22/00015.png"), r"valid/Annotations/bb22/00015\.png: missing mask"),
    (
        lambda root: [(root / path).unlink() for path in (f"{FRAMES}/00010.jpg", f"{MASKS}/00010.png")],
        r"JPEGImages/aa11/00010\.jpg: missing frame, meta\.json lists it",
    ),
]


@pytest.mark.parametrize("fault, message", FAULTS, ids=[message for _, message in FAULTS])
def test_each_fault_names_its_file(youtube_root, fault, message):
    fault(youtube_root)
    with pytest.raises(HodorError, match=rf"(meta\.json: )?{message}"):
        load_youtube_vos(youtube_root, "valid" if message.startswith("valid") else "train")


def test_a_category_is_a_name(youtube_root):
    of_object_3(lambda entry: entry.update(category=["cat"]))(youtube_root)
    refused(r"meta\.json: broken \(video aa11, object 3: `category`", read_categories, youtube_root / META)


@pytest.mark.parametrize("split, video, frame", [("train", "aa11", "00010"), ("valid", "bb22", "00015")])
def test_id_that_meta_does_not_know(youtube_root, split, video, frame):
    write_labels(youtube_root / split / "Annotations" / video / f"{frame}.png", labels_with(2, 4))
    (opened,) = load_youtube_vos(youtube_root, split)
    refused(rf"{frame}\.png: object id 4 is not in meta\.json, which has 2, 3", check_objects, opened, split)


def test_object_absent_on_its_first_frame_counts_in_train_and_fails_in_valid(youtube_root):
    for split, video in (("train", "aa11"), ("valid", "bb22")):
        write_labels(youtube_root / split / "Annotations" / video / "00015.png", labels_with(2))
        write_labels(youtube_root / split / "Annotations" / video / "00020.png", labels_with(2, 3))
    (train,) = load_youtube_vos(youtube_root, "train")
    assert check_objects(train, "train") == 1
    write_labels(train.label_path("00020"), labels_with(2))
    refused(r"00015\.png: object 3 is not in this mask", check_objects, train, "train")
    (valid,) = load_youtube_vos(youtube_root, "valid")
    refused(r"bb22/00015\.png: object 3", check_objects, valid, "valid")


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


# The hold-out of train


def test_the_committed_list_is_what_the_rule_gives_on_the_official_videos(shared_data, root):
    meta = shared_data / "youtube-vos" / "train" / "meta.json"
    with open(root / "config" / "ytvos_holdout.csv", newline="") as file:
        listed = {row["video"]: (int(row["seen_objects"]), int(row["unseen_objects"])) for row in csv.DictReader(file)}
    categories = {video: list(of.values()) for video, of in read_categories(meta).items()}
    assert len(categories) == 3471
    expected = {}
    for video, names in categories.items():
        if held_out(video, names):
            unseen = sum(name in UNSEEN for name in names)
            expected[video] = (len(names) - unseen, unseen)
    assert listed == expected
    seen, unseen = (sum(column) for column in zip(*listed.values(), strict=True))
    assert len(listed) == 440 and min(seen, unseen) > 350, "both kinds as large as in valid"
    # What is left never shows a category of the hold-out.
    rest = {name for video, names in categories.items() if video not in listed for name in names}
    assert rest.isdisjoint(UNSEEN) and len(rest) == 65 - (len(UNSEEN) - 1)


def test_the_parts_share_no_video_and_make_up_train(world):
    root = world / "youtube-vos"
    parts = {split: {v.name for v in load_youtube_vos(root, split)} for split in ("holdout", "train-without-holdout")}
    whole = {video.name for video in load_youtube_vos(root, "train")}
    assert parts["holdout"] | parts["train-without-holdout"] == whole
    assert parts["holdout"].isdisjoint(parts["train-without-holdout"]) and all(parts.values())


def test_an_object_is_given_where_a_mask_shows_it_first(youtube_root):
    """The penguins of `youtube_root` are a category of the hold-out."""
    write_labels(youtube_root / "train/Annotations/aa11/00015.png", labels_with(2))
    (found,) = load_youtube_vos(youtube_root, "holdout")
    assert found.first_seen == {2: "00005", 3: "00020"}
    refused("no video of it is in split train-without-holdout", load_youtube_vos, youtube_root, "train-without-holdout")
