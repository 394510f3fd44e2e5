"""Which sequences and objects are taken of public data sets, how runs are scored, and what is computed again."""

import json
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from hodor.data.video import Video
from tests.benchmarks.conftest import FindsTheFirst, cells
from tests.refused import refused

SIZE = (48, 64)
LARGE, SMALL = (slice(0, 20), slice(0, 20)), (slice(40, 42), slice(40, 42))
RIGHT, BELOW = (slice(0, 20), slice(30, 50)), (slice(24, 40), slice(0, 20))


def write(path, objects, dtype=np.uint8):
    """Write a label image with some values, and its frame."""
    image = np.zeros(SIZE, dtype)
    for value, place in objects.items():
        image[place] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def mots(tmp_path):
    """A video of 10 frames: two large objects and an ignored region, from the sixth frame on one object."""
    folder = tmp_path / "train"
    for t in range(1, 11):
        objects = {2001: LARGE, 2007: RIGHT, 2009: SMALL, 10000: BELOW} if t < 6 else {2001: LARGE}
        write(folder / "instances" / "0002" / f"{t:06d}.png", objects, np.uint16)
        write(folder / "images" / "0002" / f"{t:06d}.jpg", {})
    (folder / "images" / ".history").touch()
    return folder


@pytest.fixture
def moseg(tmp_path):
    """A sequence of 4 frames, of which the first and the last are annotated, one of a single object, and scenery."""
    folder = tmp_path / "moseg_dataset"
    for name, objects in (
        ("cars1", {255: LARGE, 128: BELOW}),
        ("cars6", {255: LARGE}),
        ("marple2", {255: LARGE, 51: BELOW}),
    ):
        for t in (1, 2, 3, 4):
            write(folder / name / f"{name}_{t:02d}.jpg", {})
        for t in (1, 4):
            write(folder / name / f"{name}_{t:02d}.pgm", objects)
        regions = "".join(f"Scale of region {i}:\n{value}\n" for i, value in enumerate((0, *objects)))
        frames = "".join(f"Frame number:\n{t - 1}\nFile name:\n{name}_{t:02d}.pgm\n" for t in (1, 4))
        (folder / name / f"{name}Def.dat").write_text(regions + frames)
    return folder


def test_sequences_of_the_start_and_the_middle_of_a_video(study, mots, monkeypatch):
    monkeypatch.setattr(study, "FRAMES", 3)
    (sequence,) = study.mots_sequences(mots)  # in the middle there is one object
    assert (sequence.video, sequence.name) == ("mots-0002", "mots-0002-000001")
    assert sequence.frames == ("000001", "000002", "000003")
    assert sequence.values == (2001, 2007)  # neither the small one nor the ignored region
    labels = sequence.labels("000003")
    assert (labels[0, 0], labels[0, 30], labels[30, 0], labels[41, 41]) == (1, 2, 0, 0)


def test_the_largest_objects_are_taken(study, mots, monkeypatch):
    monkeypatch.setattr(study, "MOST_OBJECTS", 1)
    assert next(study.mots_sequences(mots)).values == (2001,)


def test_sequences_with_a_mask_on_some_frames(study, moseg):
    (sequence,) = study.moseg_sequences(moseg)
    assert (sequence.video, len(sequence.frames)) == ("bms-cars1", 4)
    assert sequence.labelled == ("cars1_01", "cars1_04")
    assert sequence.values == (255, 128)
    write(moseg / "cars1" / "cars1_00.jpg", {})  # so that the frames count from another one
    refused("cars1_01.pgm: cars1Def.dat lists it for another frame", list, study.moseg_sequences(moseg))


def test_a_missing_mask_is_named(study, mots):
    (mots / "instances" / "0002" / "000001.png").unlink()
    refused("000001.png: missing or no label image", list, study.mots_sequences(mots))


@pytest.fixture
def run(study, mots, moseg, monkeypatch, tmp_path):
    """Score two rows of scale subset with a stand-in; return the cells of the tables."""
    monkeypatch.setattr(study, "FRAMES", 3)
    monkeypatch.setattr(study, "load_model", lambda path, inference: (None, FindsTheFirst()))
    monkeypatch.setattr(study, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
    rows = ["hodor-soft-coco", "hodor-none-coco"]
    for row in rows:
        folder = tmp_path / "runs" / "subset" / row / "seed0"
        folder.mkdir(parents=True)
        (folder / "train.json").write_text(json.dumps({"model": row}))
    flags = ["--mots", mots, "--moseg", moseg, "--root", tmp_path, "--rows", ",".join(rows), "--seeds", 0, 1]

    def main(kind: str = "real") -> list[list[str]]:
        monkeypatch.setattr("sys.argv", ["several_objects.py", kind, *map(str, flags), "--out", str(tmp_path)])
        study.main()
        return cells(next(tmp_path.glob(f"subset_{kind}-objects_*.md")).read_text())

    return main


def test_scores_of_objects_and_verdicts(run, tmp_path):
    table = run()
    # Of three frames of bms-cars1 only the first is annotated; of the other sequence one of two objects is found.
    assert table[2][:2] == ["hodor-soft-coco", "50"]
    verdict = dict(zip(table[4], table[6], strict=True))
    assert verdict["claim"] == "Trained on images, soft masking is better than no masking."
    assert (verdict["verdict"], verdict["effect"]) == ("undecided", "+0.0")
    scores = pd.read_csv(next(tmp_path.glob("subset_real-objects_*.csv")))
    assert scores[scores["row"] == "hodor-soft-coco"][["J", "F"]].to_numpy().tolist() == [[1, 1], [0, 0]]


def test_every_sequence_gets_a_second_object_of_another_one(study, run, monkeypatch, tmp_path):
    names, videos = ("00000", "00001", "00002"), []
    for name, place in (("a", LARGE), ("b", RIGHT)):
        for frame in names:
            write(tmp_path / name / f"{frame}.jpg", {})
            write(tmp_path / name / f"{frame}.png", {1: place})
        folder = tmp_path / name
        videos.append(Video(name, names, folder, folder, *SIZE, names, {1: names[0]}))
    monkeypatch.setattr(study, "load_videos", lambda *of: videos if of[1:] == ("davis2016", "val") else [])
    assert run("pasted")[2][:2] == ["hodor-soft-coco", "50"]
    scores = pd.read_csv(next(tmp_path.glob("subset_pasted-objects_*.csv")))
    columns = scores[scores["row"] == "hodor-soft-coco"][["video", "sequence", "object", "J"]]
    assert columns.to_numpy().tolist() == [["a", "a", 1, 1], ["a", "a", 2, 0], ["b", "b", 1, 1], ["b", "b", 2, 0]]


def test_real_videos_need_their_folders(study, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["several_objects.py", "real", "--mots", "train"])
    with pytest.raises(SystemExit):
        study.main()
    assert "real needs --mots and --moseg" in capsys.readouterr().err


def test_a_run_is_scored_once_and_again_with_other_weights(study, run, monkeypatch, tmp_path):
    run()
    scored, score_run = [], study.score_run
    monkeypatch.setattr(study, "score_run", lambda task: scored.append(task[1]) or score_run(task))
    run()
    assert scored == []
    record = tmp_path / "runs" / "subset" / "hodor-none-coco" / "seed0" / "train.json"
    record.write_text(json.dumps({"model": "other"}))
    run()
    assert scored == ["hodor-none-coco"]
    scores = pd.read_csv(next(tmp_path.glob("subset_real-objects_*.csv")))
    assert sorted(scores["model"].unique()) == ["hodor-soft-coco", "other"]


def test_a_row_without_any_run_is_an_error(run, tmp_path):
    (tmp_path / "runs" / "subset" / "hodor-none-coco" / "seed0" / "train.json").unlink()
    refused("no run of hodor-none-coco; train the row", run)
