"""The protocol and the verb: equal to the official toolkit on real masks, strict on bad input."""

import csv
import json
import os
import shutil
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodor.config.benchmarks import BENCHMARKS, get_benchmark
from hodor.data.images import read_labels, write_labels
from hodor.errors import HodorError
from hodor.provenance import sha256_file, sha256_json
from hodor.scoring import sequences
from hodor.scoring.davis import davis_tasks
from hodor.scoring.score import score

CSVS = ("per_frame.csv", "per_object.csv", "global.csv")
VAL = "davis2017-val"


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_equal_to_the_official_toolkit_on_real_masks(shared_data, tmp_path):
    reference = shared_data.parent / "reference"
    archive = shared_data / "davis" / "DAVIS-2017-trainval-480p.zip"
    if not archive.is_file() or not (reference / "osvos_val_masks.zip").is_file():
        pytest.skip("the real DAVIS sequences and their reference scores are not here")
    for source, folder in ((archive, "davis"), (reference / "osvos_val_masks.zip", "masks")):
        with zipfile.ZipFile(source) as zipped:
            zipped.extractall(tmp_path / folder)
    score(tmp_path / "masks", tmp_path / "davis", VAL, tmp_path / "out")
    for name, keys in (("per_frame", 3), ("per_object", 1), ("global", 0)):
        ours, official = read(tmp_path / "out" / f"{name}.csv"), read(reference / f"osvos_val_{name}.csv")
        assert len(ours) == len(official) > 0
        for mine, wanted in zip(ours, official, strict=True):
            assert list(mine) == list(wanted)
            columns = list(wanted)
            assert [mine[column] for column in columns[:keys]] == [wanted[column] for column in columns[:keys]]
            for column in columns[keys:]:
                assert float(mine[column]) == pytest.approx(float(wanted[column]), abs=1e-12, rel=0), (
                    name,
                    wanted,
                )


def test_frames_objects_and_means_of_the_protocol(tree, tmp_path):
    score(tree.pred, tree.root, VAL, tmp_path / "out")
    frames = read(tmp_path / "out" / "per_frame.csv")
    # In the order of the split's list; the first and the last frame of each sequence are absent.
    expected = [("walk", str(k), f"{t:05d}") for k in (1, 2) for t in (1, 2, 3, 4)]
    expected += [("run", "1", f"{t:05d}") for t in (1, 2, 3)]
    assert [(row["sequence"], row["object"], row["frame"]) for row in frames] == expected
    objects = read(tmp_path / "out" / "per_object.csv")
    assert [row["object"] for row in objects] == ["walk_1", "walk_2", "run_1"]
    # Squares of 10 x 12 shifted by one row: 9 of 11 rows; F is 1, the tolerance being one pixel.
    assert [float(row["J-Mean"]) for row in objects] == pytest.approx([9 / 11] * 3)
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert float(overall["J&F-Mean"]) == pytest.approx((9 / 11 + 1) / 2)


def test_the_mean_is_over_objects_not_sequences(tree, tmp_path):
    for frame in range(5):  # `run` vanishes: 0 for one object of three, not for one sequence of two
        write_labels(tree.pred_path("run", frame), np.zeros_like(read_labels(tree.pred_path("run", frame))))
    score(tree.pred, tree.root, VAL, tmp_path / "out")
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert float(overall["J-Mean"]) == pytest.approx(9 / 11 * 2 / 3)
    assert float(overall["J-Recall"]) == pytest.approx(2 / 3)


def test_void_in_the_truth_is_background(tree, tmp_path):
    score(tree.pred, tree.root, VAL, tmp_path / "plain")
    for sequence, frames in (("walk", 6), ("run", 5)):
        for frame in range(frames):
            labels = read_labels(tree.truth_path(sequence, frame))
            labels[40:, :20] = 255
            write_labels(tree.truth_path(sequence, frame), labels)
    score(tree.pred, tree.root, VAL, tmp_path / "void")
    for name in CSVS:
        assert (tmp_path / "void" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_mask_of_0_and_255_is_no_silent_zero(tree, tmp_path):
    """The official toolkit takes 255 for an object too many, and dies of it."""
    path = tree.pred_path("run", 2)
    write_labels(path, np.where(read_labels(path) == 1, 255, 0).astype(np.uint8))
    with pytest.raises(HodorError, match=r"run/00002\.png: object id 255, but .* 1 object\(s\), ids 1;"):
        score(tree.pred, tree.root, VAL, tmp_path / "out")


def test_an_object_that_appears_later_in_the_truth_is_not_scored(tree, tmp_path):
    labels = read_labels(tree.truth_path("run", 2))
    labels[30:40, 30:40] = 2
    write_labels(tree.truth_path("run", 2), labels)
    score(tree.pred, tree.root, VAL, tmp_path / "out")
    assert [row["object"] for row in read(tmp_path / "out" / "per_object.csv")] == [
        "walk_1",
        "walk_2",
        "run_1",
    ]


def test_the_same_bytes_from_one_process_and_from_two(tree, tmp_path, monkeypatch):
    tasks = davis_tasks(tree.root, "val")
    one = sequences.score_sequences(tasks, tree.pred, jobs=2)
    monkeypatch.setattr(sequences, "_SMALL_WORK", 0)
    started = []
    pool = sequences.ProcessPoolExecutor
    monkeypatch.setattr(sequences, "ProcessPoolExecutor", lambda *a, **k: started.append(a) or pool(*a, **k))
    two = sequences.score_sequences(tasks, tree.pred, jobs=2)
    assert started == [(2,)]
    for a, b in zip(one, two, strict=True):
        assert a.name == b.name
        for x, y in zip(a.objects, b.objects, strict=True):
            assert (x.id, x.frames) == (y.id, y.frames)
            assert np.array_equal(x.j, y.j) and np.array_equal(x.f, y.f)
    # An error in another process arrives as what it is.
    tree.pred_path("walk", 3).write_bytes(tree.pred_path("walk", 3).read_bytes()[:-20])
    with pytest.raises(HodorError, match=r"walk/00003\.png"):
        sequences.score_sequences(tasks, tree.pred, jobs=2)


class Deadly:
    """Ends the process that it is sent to."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_process_that_is_killed_is_one_line(tree, monkeypatch):
    monkeypatch.setattr(sequences, "_SMALL_WORK", 0)
    tasks = [replace(task, category=Deadly()) for task in davis_tasks(tree.root, "val")]
    with pytest.raises(HodorError, match="a scoring process was killed .* fewer --jobs"):
        sequences.score_sequences(tasks, tree.pred, jobs=2)


def test_memory_does_not_grow_with_the_length(make_tree):
    tree = make_tree({"short": (6, 1), "long": (90, 1)})
    peaks = {}
    tasks = {task.video.name: task for task in davis_tasks(tree.root, "val")}
    sequences.score_sequence(tasks["short"], tree.pred)  # imports and caches
    for name, task in tasks.items():
        tracemalloc.start()
        sequences.score_sequence(task, tree.pred)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # A mask is 3 KiB: 84 more of them, kept, would be 250 KiB and as booleans per object the same again.
    assert peaks["long"] < peaks["short"] + 60_000


def damage_missing_sequence(tree):
    shutil.rmtree(tree.pred / "run")
    return tree.pred / "run"


def damage_extra_sequence(tree):
    shutil.copytree(tree.pred / "run", tree.pred / "swim")
    return tree.pred / "swim"


def damage_missing_frame(tree):
    tree.pred_path("walk", 2).unlink()
    return tree.pred_path("walk", 2)


def damage_missing_last_frame(tree):
    tree.pred_path("walk", 5).unlink()
    return tree.pred_path("walk", 5)


def damage_extra_frame(tree):
    shutil.copy(tree.pred_path("walk", 2), tree.pred_path("walk", 6))
    return tree.pred_path("walk", 6)


def damage_size(tree):
    write_labels(tree.pred_path("walk", 2), np.zeros((48, 60), np.uint8))
    return tree.pred_path("walk", 2)


def damage_colours(tree):
    path = tree.pred_path("walk", 2)
    Image.open(path).convert("RGB").save(path)
    return path


def damage_sixteen_bits(tree):
    path = tree.pred_path("walk", 2)
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(path)
    return path


def damage_size_of_truth(tree):
    write_labels(tree.truth_path("walk", 2), np.zeros((48, 60), np.uint8))
    return tree.truth_path("walk", 2)


def damage_colours_of_truth(tree):
    path = tree.truth_path("walk", 2)
    Image.open(path).convert("RGB").save(path)
    return path


def damage_id_beyond_the_objects(tree):
    path = tree.pred_path("run", 2)
    labels = read_labels(path)
    labels[0, 0] = 2
    write_labels(path, labels)
    return path


def damage_id_on_an_unscored_frame(tree):
    path = tree.pred_path("run", 0)
    labels = read_labels(path)
    labels[0, 0] = 7
    write_labels(path, labels)
    return path


def damage_truncated(tree):
    path = tree.pred_path("walk", 2)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def damage_empty_file(tree):
    tree.pred_path("walk", 2).write_bytes(b"")
    return tree.pred_path("walk", 2)


def damage_truth(tree):
    path = tree.truth_path("walk", 3)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def damage_missing_truth(tree):
    tree.truth_path("walk", 3).unlink()
    return tree.truth_path("walk", 3)


def damage_no_prediction(tree):
    shutil.rmtree(tree.pred)
    return tree.pred


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.removeprefix("damage_"))
def test_bad_input_is_refused_and_leaves_no_numbers(tree, tmp_path, damage):
    out = tmp_path / "out"
    score(tree.pred, tree.root, VAL, out)  # numbers of an earlier call, which must not be taken for this one's
    path = damage(tree)
    with pytest.raises(HodorError) as error:
        score(tree.pred, tree.root, VAL, out)
    message = str(error.value)
    assert message.startswith(str(path)), "the message begins with the file"
    assert "\n" not in message
    # The mend: of masks, they are not in any archive; of the truth, it is not segmented.
    mends = ("prepare", "archive") if str(tree.root) in message else ("segment", "remove", "give the folder")
    assert any(mend in message for mend in mends), message
    assert list(out.iterdir()) == []


def test_unknown_benchmark_and_folder_without_data(tree, tmp_path):
    with pytest.raises(HodorError, match="davis2017-vall.*davis2017-val, davis2017-test-dev, ytvos2018-val"):
        score(tree.pred, tree.root, "davis2017-vall", tmp_path / "out")
    with pytest.raises(HodorError, match="no DAVIS data here"):
        score(tree.pred, tmp_path, VAL, tmp_path / "out")
    assert all(get_benchmark(id).id == id for id in BENCHMARKS)


def test_a_sequence_of_two_frames_has_nothing_to_score(make_tree, tmp_path):
    tree = make_tree({"blink": (2, 1)})
    with pytest.raises(HodorError, match="at least 3"):
        score(tree.pred, tree.root, VAL, tmp_path / "out")


def test_the_davis_folder_itself_will_do(tree, tmp_path, monkeypatch):
    score(tree.pred, tree.root, VAL, tmp_path / "a")
    score(tree.pred, tree.root / "DAVIS", VAL, tmp_path / "b")
    monkeypatch.chdir(tree.root / "DAVIS")
    score(tree.pred, Path("."), VAL, tmp_path / "c")
    for name in CSVS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_test_dev_is_scored_only_where_its_masks_are_known(make_tree, tmp_path):
    tree = make_tree({"walk": (6, 2)}, split="test-dev")
    score(tree.pred, tree.root, "davis2017-test-dev", tmp_path / "out")
    assert len(read(tmp_path / "out" / "per_object.csv")) == 2
    for frame in range(1, 6):
        tree.truth_path("walk", frame).unlink()
    with pytest.raises(HodorError, match="1 of 6 frames.*secret.*server"):
        score(tree.pred, tree.root, "davis2017-test-dev", tmp_path / "out")


def write_chain(tree) -> dict:
    masks = {path.relative_to(tree.pred).as_posix(): sha256_file(path) for path in sorted(tree.pred.glob("*/*.png"))}
    (tree.pred.parent / "masks.json").write_text(
        json.dumps({"stamp": "s", "weights": "w", "data": "d", "masks": masks})
    )
    (tree.root.parent / "davis.json").write_text("{}")
    content = {"step": "score", "scale": "tiny", "settings": {"benchmark": VAL}, "recipes": {}}
    stamp = content | {"sha256": sha256_json(content)}
    return stamp


def test_provenance_names_stamp_masks_truth_and_metric(tree, tmp_path):
    stamp = write_chain(tree)
    score(tree.pred, tree.root, VAL, tmp_path / "out", stamp)
    record = json.loads((tmp_path / "out" / "score.json").read_text())
    assert record["stamp"] == stamp["sha256"] == sha256_json(record["stamp_content"])
    assert record["masks"] == sha256_file(tree.pred.parent / "masks.json")
    assert record["truth"] == sha256_file(tree.root.parent / "davis.json")
    assert "hodor.scoring" in record["metric"] and "toolkit itself was not used" in record["metric"]
    assert record["official"] is None
    assert record["files"] == {name: sha256_file(tmp_path / "out" / name) for name in CSVS}
    assert (record["sequences"], record["objects"], record["frames"]) == (2, 3, 7)


def test_a_mask_that_segment_did_not_write_is_refused(tree, tmp_path):
    stamp = write_chain(tree)
    shutil.copy(tree.pred_path("walk", 3), tree.pred_path("walk", 2))
    with pytest.raises(HodorError, match=r"walk/00002\.png.*masks\.json"):
        score(tree.pred, tree.root, VAL, tmp_path / "out", stamp)


@pytest.mark.parametrize("name, maker", [("masks.json", "segment"), ("davis.json", "prepare")])
def test_inside_the_workflow_the_chain_must_be_whole(tree, tmp_path, name, maker):
    stamp = write_chain(tree)
    path = {"masks.json": tree.pred.parent, "davis.json": tree.root.parent}[name] / name
    path.unlink()
    with pytest.raises(HodorError, match=f"{name}: missing; the step {maker}"):
        score(tree.pred, tree.root, VAL, tmp_path / "out", stamp)
    score(tree.pred, tree.root, VAL, tmp_path / "out")  # a person's own masks have no chain


def test_scoring_and_the_benchmark_table_start_fast():
    """Neither torch nor pandas; the benchmarks, which the workflow reads at every start, nothing heavy."""
    import subprocess
    import sys

    code = "import sys, hodor.scoring.{}; print([m for m in {} if m in sys.modules])"
    for module, heavy in (
        ("score", ["torch", "pandas", "skimage", "segmetric", "davis2017"]),
        ("benchmarks", ["torch", "pandas", "numpy", "cv2"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module, heavy)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"
