"""YouTube-VOS and its hold-out: which frames and objects count, the means of seen and unseen categories, DAVIS-2016."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hodor.config.generated import GeneratedOptions
from hodor.config.holdout import UNSEEN
from hodor.data.images import read_labels, write_labels
from hodor.data.synthetic import generate
from hodor.data.youtube_vos import load_truth, load_youtube_vos, read_categories, read_meta
from hodor.errors import HodorError
from hodor.scoring.jf import frame_scores
from hodor.scoring.score import score

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


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict(videos, folder: Path, shift: int = 2) -> Path:
    """Predictions: the truth of every frame, moved to the right."""
    for video in videos:
        for frame in video.frames:
            write_labels(folder / video.name / f"{frame}.png", np.roll(video.labels(frame), shift, axis=1))
    return folder


def test_valid_scores_seen_and_unseen_categories_apart(data, tmp_path):
    root = data / "youtube-vos"
    videos = load_truth(root)
    pred = predict(videos, tmp_path / "masks")
    # One unseen object is lost altogether, so that the two means differ.
    categories, trained = read_categories(root / "valid_truth" / "meta.json"), set()
    for objects in read_categories(root / "train" / "meta.json").values():
        trained |= set(objects.values())
    kinds = {(v, i): "seen" if name in trained else "unseen" for v, of in categories.items() for i, name in of.items()}
    assert set(kinds.values()) == {"seen", "unseen"}
    lost = next(key for key, kind in kinds.items() if kind == "unseen")
    for path in (pred / lost[0]).iterdir():
        labels = read_labels(path)
        labels[labels == lost[1]] = 0
        write_labels(path, labels)
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
    record = json.loads((tmp_path / "out" / "score.json").read_text())
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
    score(predict(load_truth(root), tmp_path / "masks"), root, "ytvos2019-val", tmp_path / "out")
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert "J-unseen" not in overall
    assert float(overall["G"]) == pytest.approx((float(overall["J-seen"]) + float(overall["F-seen"])) / 2)


def test_frames_that_no_list_names_need_no_mask(data, tmp_path):
    root = tmp_path / "youtube-vos"
    shutil.copytree(data / "youtube-vos", root)
    name = sorted(path.name for path in (root / "valid" / "JPEGImages").iterdir())[0]
    folder = root / "valid" / "JPEGImages" / name
    shutil.copy(next(folder.iterdir()), folder / "00999.jpg")
    pred = predict(load_truth(data / "youtube-vos"), tmp_path / "masks")
    score(pred, root, "ytvos2019-val", tmp_path / "out")
    assert "00999" not in (tmp_path / "out" / "per_frame.csv").read_text()
    write_labels(pred / name / "00999.png", read_labels(pred / name / "00005.png"))
    score(pred, root, "ytvos2019-val", tmp_path / "out")
    (pred / name / "00999.png").rename(pred / name / "01000.png")
    with pytest.raises(HodorError, match=r"01000\.png: the sequence has no such frame"):
        score(pred, root, "ytvos2019-val", tmp_path / "out")


@pytest.mark.parametrize(
    "damage, told",
    [
        ("missing", r"00010\.png: frame missing"),
        ("sequence", "sequence missing"),
        ("size", r"00010\.png: 8x8 pixels"),
        ("id", r"00010\.png: object id 77, but the truth of this sequence has"),
        ("truncated", r"00010\.png: truncated"),
        ("category", "has no category"),
        ("true mask", r"missing mask"),
        ("secret", "are secret and its server scores them"),
    ],
)
def test_what_is_refused(data, tmp_path, damage, told):
    root = tmp_path / "youtube-vos"
    shutil.copytree(data / "youtube-vos", root)
    videos = load_truth(root)
    pred = predict(videos, tmp_path / "masks")
    path = pred / videos[0].name / "00010.png"
    labels = read_labels(path)
    if damage == "missing":
        path.unlink()
    elif damage == "sequence":
        shutil.rmtree(path.parent)
    elif damage == "size":
        write_labels(path, labels[:8, :8])
    elif damage == "id":
        labels[0, 0] = 77
        write_labels(path, labels)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "category":
        meta = root / "valid_truth" / "meta.json"
        shutil.copy(root / "valid" / "meta.json", meta)
    elif damage == "true mask":
        videos[0].label_path("00010").unlink()
    else:
        shutil.rmtree(root / "valid_truth")
    with pytest.raises(HodorError, match=told):
        score(pred, root, "ytvos2019-val", tmp_path / "out")
    assert not (tmp_path / "out" / "global.csv").exists()


def test_davis_2016_is_scored_as_one_object(data, tmp_path):
    root = data / "davis2016"
    from hodor.data.davis import load_davis2016

    videos = load_davis2016(root, "val")
    pred = predict(videos, tmp_path / "masks", shift=1)
    score(pred, root, "davis2016-val", tmp_path / "out")
    assert [row["object"] for row in read(tmp_path / "out" / "per_object.csv")] == ["val-000_1", "val-001_1"]
    video = videos[0]
    found = [
        frame_scores(video.labels(f), read_labels(pred / video.name / f"{f}.png"), [1])[0] for f in video.frames[1:-1]
    ]
    first = read(tmp_path / "out" / "per_object.csv")[0]
    assert (float(first["J-Mean"]), float(first["F-Mean"])) == pytest.approx(tuple(np.mean(found, axis=0)), abs=1e-12)
    labels = read_labels(pred / "val-000" / "00002.png")
    labels[0, 0] = 2
    write_labels(pred / "val-000" / "00002.png", labels)
    with pytest.raises(
        HodorError, match=r"val-000/00002\.png: object id 2, but the truth of this sequence has 1 object"
    ):
        score(pred, root, "davis2016-val", tmp_path / "out")


def test_davis_2016_takes_masks_of_0_and_255_as_its_truth_has_them(data, tmp_path):
    from hodor.data.davis import load_davis2016

    root, pred = data / "davis2016", tmp_path / "masks"
    for video in load_davis2016(root, "val"):
        for frame in video.frames:
            write_labels(pred / video.name / f"{frame}.png", read_labels(video.label_path(frame)))
    score(pred, root, "davis2016-val", tmp_path / "out")
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert float(overall["J&F-Mean"]) == 1
    labels = read_labels(pred / "val-000" / "00002.png")
    labels[labels == 0] = 1
    write_labels(pred / "val-000" / "00002.png", labels)
    with pytest.raises(HodorError, match=r"val-000/00002\.png: object id 255, but"):
        score(pred, root, "davis2016-val", tmp_path / "out")
