"""The hold-out of YouTube-VOS train: fixed, whole categories unseen, an object given where it shows."""

import csv
import json

import numpy as np
import pytest

from hodor.config.holdout import UNSEEN, held_out
from hodor.data.images import read_labels, write_labels
from hodor.data.youtube_vos import load_youtube_vos, read_categories, read_meta
from hodor.errors import HodorError


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


def test_an_object_is_given_where_a_mask_shows_it_first(world, tmp_path):
    video = next(v for v in load_youtube_vos(world / "youtube-vos", "train") if held_out_video(world, v.name))
    folder = tmp_path / "train"
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / video.name).symlink_to((world / "youtube-vos" / "train" / kind / video.name).resolve())
    frames = read_meta(world / "youtube-vos" / "train" / "meta.json")[video.name]
    names = read_categories(world / "youtube-vos" / "train" / "meta.json")[video.name]
    objects = {str(i): {"category": names[i], "frames": list(f)} for i, f in frames.items()}
    (folder / "meta.json").write_text(json.dumps({"videos": {video.name: {"objects": objects}}}))
    hidden = min(frames)
    masks = tmp_path / "masks"
    for frame in video.frames:
        labels = read_labels(video.label_path(frame))
        if frame == frames[hidden][0]:
            labels[labels == hidden] = 0
        write_labels(masks / f"{frame}.png", labels)
    (folder / "Annotations" / video.name).unlink()
    (folder / "Annotations" / video.name).symlink_to(masks.resolve())
    (found,) = load_youtube_vos(tmp_path, "holdout")
    assert found.first_seen[hidden] == next(
        f for f in frames[hidden][1:] if np.any(read_labels(masks / f"{f}.png") == hidden)
    )
    with pytest.raises(HodorError, match="no video of it is in split train-without-holdout"):
        load_youtube_vos(tmp_path, "train-without-holdout")


def held_out_video(world, name):
    return held_out(name, read_categories(world / "youtube-vos" / "train" / "meta.json")[name].values())
