"""YouTube-VOS and its hold-out: which frames and objects count, the means of seen and unseen categories, DAVIS-2016."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hodor.config.benchmarks import UNSEEN
from hodor.config.datasets import GeneratedOptions
from hodor.data.davis import load_davis2016
from hodor.data.images import read_labels, write_labels
from hodor.data.synthetic import generate
from hodor.data.youtube_vos import load_ground_truth, load_youtube_vos, read_categories, read_meta
from hodor.scoring.jf import frame_scores
from hodor.scoring.score import score
from tests.refused import refused

from .conftest import read, read_record, relabel, set_pixel

OPTIONS = GeneratedOptions(
    davis_train=1,
    davis_val=2,
    davis_size=(64, 112),
    davis_frames=5,
    youtube_train=8,
    youtube_valid=6,
    youtube_sizes=[(64, 112), (72, 96)],
    youtube_frames=6,
    objects=(1, 3),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    for dataset in ("davis2016", "youtube-vos"):
        for archive in generate(dataset, OPTIONS, folder / "archives"):
            zipfile.ZipFile(archive).extractall(folder / dataset)
    return folder


def predict(videos, folder: Path, shift: int = 2) -> Path:
    """Predictions: the ground truth of every frame, moved to the right."""
    for video in videos:
        for frame in video.frames:
            write_labels(folder / video.name / f"{frame}.png", np.roll(video.labels(frame), shift, axis=1))
    return folder


def test_valid_scores_seen_and_unseen_categories_apart(data, tmp_path):
    root = data / "youtube-vos"
    videos = load_ground_truth(root)
    pred = predict(videos, tmp_path / "masks")
    # One unseen object is lost altogether, so that the two means differ.
    categories, trained = read_categories(root / "valid_truth" / "meta.json"), set()
    for objects in read_categories(root / "train" / "meta.json").values():
        trained |= set(objects.values())
    kinds = {(v, i): "seen" if name in trained else "unseen" for v, of in categories.items() for i, name in of.items()}
    assert set(kinds.values()) == {"seen", "unseen"}
    lost = next(key for key, kind in kinds.items() if kind == "unseen")
    for path in (pred / lost[0]).iterdir():
        relabel(path, lambda labels: np.where(labels == lost[1], 0, labels))
    score(pred, root, "ytvos2019-val", tmp_path / "out")

    # Anew, in the plainest way: every listed frame but the given one, means over objects of a kind, then over kinds.
    listed = read_meta(root / "valid_truth" / "meta.json")
    means: dict[str, list] = {"seen": [], "unseen": []}
    for video in videos:
        for i, frames in listed[video.name].items():
            found = [
                frame_scores(video.labels(f), read_labels(pred / video.name / f"{f}.png"), [i])[0] for f in frames[1:]
            ]
            means[kinds[video.name, i]].append(np.mean(found, axis=0))
    expected = {kind: np.mean(values, axis=0) for kind, values in means.items()}
    (overall,) = read(tmp_path / "out" / "global.csv")
    for kind, (j, f) in expected.items():
        assert float(overall[f"J-{kind}"]) == pytest.approx(j, abs=1e-12)
        assert float(overall[f"F-{kind}"]) == pytest.approx(f, abs=1e-12)
    g = np.mean([*expected["seen"], *expected["unseen"]])
    assert float(overall["G"]) == pytest.approx(g, abs=1e-12)
    assert overall["G"] == overall["J&F-Mean"] and abs(expected["seen"][0] - expected["unseen"][0]) > 0.05
    objects = {row["object"]: row for row in read(tmp_path / "out" / "per_object.csv")}
    assert {name: row["category"] for name, row in objects.items()} == {f"{v}_{i}": k for (v, i), k in kinds.items()}
    frames = {(r["sequence"], int(r["object"]), r["frame"]) for r in read(tmp_path / "out" / "per_frame.csv")}
    assert frames == {(v, i, f) for v, of in listed.items() for i, fs in of.items() for f in fs[1:]}
    record = read_record(tmp_path / "out")
    assert record["protocol"]["frames"].startswith("6 a second") and record["objects"] == len(kinds)


def test_the_holdout_knows_its_unseen_categories(data, tmp_path):
    root = data / "youtube-vos"
    videos = load_youtube_vos(root, "holdout")
    score(predict(videos, tmp_path / "masks"), root, "ytvos-holdout", tmp_path / "out")
    categories = read_categories(root / "train" / "meta.json")
    rows = {row["object"]: row["category"] for row in read(tmp_path / "out" / "per_object.csv")}
    assert rows == {
        f"{video.name}_{i}": "unseen" if categories[video.name][i] in UNSEEN else "seen"
        for video in videos
        for i in video.first_seen
    }
    assert {"seen", "unseen"} == set(rows.values())


def test_a_kind_without_objects_is_in_no_mean(data, tmp_path):
    root = tmp_path / "youtube-vos"
    shutil.copytree(data / "youtube-vos", root)
    path = root / "valid_truth" / "meta.json"
    content = json.loads(path.read_text())
    for video in content["videos"].values():
        for entry in video["objects"].values():
            entry["category"] = "blob"
    path.write_text(json.dumps(content))
    score(predict(load_ground_truth(root), tmp_path / "masks"), root, "ytvos2019-val", tmp_path / "out")
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert "J-unseen" not in overall
    assert float(overall["G"]) == pytest.approx((float(overall["J-seen"]) + float(overall["F-seen"])) / 2)


def test_frames_that_no_list_names_need_no_mask(data, tmp_path):
    root = tmp_path / "youtube-vos"
    shutil.copytree(data / "youtube-vos", root)
    name = sorted(path.name for path in (root / "valid" / "JPEGImages").iterdir())[0]
    folder = root / "valid" / "JPEGImages" / name
    shutil.copy(next(folder.iterdir()), folder / "00999.jpg")
    pred = predict(load_ground_truth(data / "youtube-vos"), tmp_path / "masks")
    score(pred, root, "ytvos2019-val", tmp_path / "out")
    assert "00999" not in (tmp_path / "out" / "per_frame.csv").read_text()
    write_labels(pred / name / "00999.png", read_labels(pred / name / "00005.png"))
    score(pred, root, "ytvos2019-val", tmp_path / "out")
    (pred / name / "00999.png").rename(pred / name / "01000.png")
    refused(r"01000\.png: the sequence has no such frame", score, pred, root, "ytvos2019-val", tmp_path / "out")


# Name -> damage, given the data set's folder, a mask (frame 00010 of a video) and its ground truth; and the message.
DAMAGES = {
    "missing": (lambda root, mask, truth: mask.unlink(), r"00010\.png: frame missing"),
    "id": (lambda root, mask, truth: relabel(mask, set_pixel(77)), r"00010\.png: object id 77, but"),
    "category": (
        lambda root, mask, truth: shutil.copy(root / "valid" / "meta.json", root / "valid_truth" / "meta.json"),
        "has no category",
    ),
    "ground truth": (lambda root, mask, truth: truth.unlink(), "missing mask"),
    "secret": (lambda root, mask, truth: shutil.rmtree(root / "valid_truth"), "secret"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_input_is_refused(data, tmp_path, name):
    damage, message = DAMAGES[name]
    root = tmp_path / "youtube-vos"
    shutil.copytree(data / "youtube-vos", root)
    videos = load_ground_truth(root)
    pred = predict(videos, tmp_path / "masks")
    damage(root, pred / videos[0].name / "00010.png", videos[0].label_path("00010"))
    refused(message, score, pred, root, "ytvos2019-val", tmp_path / "out")
    assert not (tmp_path / "out" / "global.csv").exists()


def test_davis_2016_is_scored_as_one_object(data, tmp_path):
    root = data / "davis2016"
    videos = load_davis2016(root, "val")
    pred = predict(videos, tmp_path / "masks", shift=1)
    score(pred, root, "davis2016-val", tmp_path / "out")
    first, second = read(tmp_path / "out" / "per_object.csv")
    assert (first["object"], second["object"]) == ("val-000_1", "val-001_1")
    frames = videos[0].frames[1:-1]
    masks = [read_labels(pred / videos[0].name / f"{frame}.png") for frame in frames]
    found = [frame_scores(videos[0].labels(f), mask, [1])[0] for f, mask in zip(frames, masks, strict=True)]
    assert (float(first["J-Mean"]), float(first["F-Mean"])) == pytest.approx(tuple(np.mean(found, axis=0)), abs=1e-12)
    relabel(pred / "val-000" / "00002.png", set_pixel(2))
    refused(r"val-000/00002\.png: object id 2, but .* 1 object", score, pred, root, "davis2016-val", tmp_path / "out")


def test_davis_2016_accepts_masks_of_0_and_255(data, tmp_path):
    root, pred = data / "davis2016", tmp_path / "masks"
    for video in load_davis2016(root, "val"):
        for frame in video.frames:
            write_labels(pred / video.name / f"{frame}.png", read_labels(video.label_path(frame)))
    score(pred, root, "davis2016-val", tmp_path / "out")
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert float(overall["J&F-Mean"]) == 1
    relabel(pred / "val-000" / "00002.png", lambda labels: np.where(labels == 0, 1, labels))
    refused(r"val-000/00002\.png: object id 255, but", score, pred, root, "davis2016-val", tmp_path / "out")
