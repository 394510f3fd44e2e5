"""The DAVIS protocol and the verb: equal to the official toolkit on real masks, strict on bad input."""

import json
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodor.cli.main import main
from hodor.config.benchmarks import BENCHMARKS, get_benchmark
from hodor.data.images import AGAIN, read_labels, write_labels
from hodor.errors import HodorError
from hodor.provenance import sha256_file, sha256_json
from hodor.scoring.protocols import open_benchmark
from hodor.scoring.score import score
from hodor.scoring.sequences import check_prediction, score_sequence
from tests.refused import refused

from .conftest import CSVS, VAL, boxes, cut, read, read_record, relabel, set_pixel


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
            for column in list(wanted)[:keys]:
                assert mine[column] == wanted[column]
            for column in list(wanted)[keys:]:
                assert float(mine[column]) == pytest.approx(float(wanted[column]), abs=1e-12, rel=0), wanted


def test_frames_objects_and_means_of_the_protocol(tree, tmp_path):
    # An object of a later frame is not scored.
    relabel(tree.truth_path("run", 2), lambda labels: labels.__setitem__(np.s_[30:40, 30:40], 2))
    score(tree.pred, tree.root, VAL, tmp_path / "out")
    frames = read(tmp_path / "out" / "per_frame.csv")
    # In the order of the split's list, without the first and the last frame of each sequence.
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
    for frame in range(5):  # `run` vanishes: one object of three, not one sequence of two
        relabel(tree.pred_path("run", frame), np.zeros_like)
    score(tree.pred, tree.root, VAL, tmp_path / "out")
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert float(overall["J-Mean"]) == pytest.approx(9 / 11 * 2 / 3)
    assert float(overall["J-Recall"]) == pytest.approx(2 / 3)


def test_same_bytes_with_void_other_folders_and_threads(tree, tmp_path, monkeypatch):
    score(tree.pred, tree.root, VAL, tmp_path / "plain", jobs=1)
    score(tree.pred, tree.root / "DAVIS", VAL, tmp_path / "davis", jobs=2)
    for sequence, frames in (("walk", 6), ("run", 5)):
        for frame in range(frames):
            relabel(tree.truth_path(sequence, frame), lambda labels: labels.__setitem__(np.s_[40:, :20], 255))
    # A list with a byte order mark, as Windows editors write it.
    tree.split_file().write_text(tree.split_file().read_text(), encoding="utf-8-sig")
    monkeypatch.chdir(tree.root / "DAVIS")
    score(tree.pred, Path("."), VAL, tmp_path / "void")
    for name in CSVS:
        plain = (tmp_path / "plain" / name).read_bytes()
        assert (tmp_path / "davis" / name).read_bytes() == (tmp_path / "void" / name).read_bytes() == plain


def test_memory_does_not_grow_with_the_length(make_tree):
    tree = make_tree({"short": (6, 1), "long": (90, 1)})
    peaks = {}
    tasks = {task.video.name: task for task in open_benchmark(get_benchmark(VAL), tree.root)[1]}
    score_sequence(tasks["short"], tree.pred)  # imports and caches
    for name, task in tasks.items():
        tracemalloc.start()
        score_sequence(task, tree.pred)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # A mask is 3 KiB: 84 more of them, kept, would be 250 KiB.
    assert peaks["long"] < peaks["short"] + 60_000


def in_colours(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to(target: str):
    def damage(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return damage


# What is damaged: the mask of an even frame of walk (predicted, unless another is named), and a keyword of the message.
DAMAGES = {
    "missing frame": (Path.unlink, "frame missing"),
    "extra frame": (lambda path: shutil.copy(path.with_name("00002.png"), path), "no such frame", ("walk", 6)),
    "size": (lambda path: relabel(path, lambda labels: labels[:, :60]), "60x48"),
    "colours": (in_colours, "RGB"),
    "id beyond the objects": (lambda path: relabel(path, set_pixel(3)), "object id 3"),
    "id on an unscored frame": (lambda path: relabel(path, set_pixel(7)), "object id 7", ("walk", 0)),
    "0 and 255 for two objects": (lambda path: relabel(path, lambda x: 255 * (x > 0)), "two levels"),
    "1 bit for two objects": (lambda path: one_bit(path), "two levels"),
    "truncated": (cut, "truncated"),
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "named pipe": (pipe, "regular file"),
    "device": (link_to("/dev/zero"), "regular file"),
}
TRUTH_DAMAGES = {
    "size": (lambda path: relabel(path, lambda labels: labels[:, :60]), "60x48"),
    "colours": (in_colours, "RGB"),
    "truncated": (cut, "truncated"),
    "missing": (Path.unlink, "missing"),
}


def refused_after(tree, path: Path, damage, keyword: str, out: Path, *fixes: str) -> None:
    score(tree.pred, tree.root, VAL, out)  # results of an earlier call, which must not survive
    damage(path)
    message = refused(keyword, score, tree.pred, tree.root, VAL, out)
    assert message.startswith(str(path))
    assert any(fix in message for fix in fixes), message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_masks_are_refused_and_leave_no_scores(tree, tmp_path, name):
    damage, keyword, place = (*DAMAGES[name], ("walk", 2))[:3]
    refused_after(tree, tree.pred_path(*place), damage, keyword, tmp_path / "out", "make", "remove", "save", "write")


@pytest.mark.parametrize("name", TRUTH_DAMAGES)
def test_bad_ground_truth_is_refused_with_advice_for_data(tree, tmp_path, name):
    refused_after(tree, tree.truth_path("walk", 2), *TRUTH_DAMAGES[name], tmp_path / "out", "prepare", AGAIN)


def one_bit(path: Path) -> None:
    Image.fromarray(read_labels(path) > 0).save(path)


def of_other_tools(pred: Path) -> None:
    """Files of other programs, further sequences, and masks of unscored frames missing."""
    shutil.copytree(pred / "run", pred / "swim")
    for name in ("__MACOSX/run/._00001.png", "run/._00001.png", ".DS_Store"):
        (pred / name).parent.mkdir(parents=True, exist_ok=True)
        (pred / name).write_bytes(b"x")
    for name in ("walk/00000", "walk/00005", "run/00004"):
        (pred / f"{name}.png").unlink()


OTHER_FILES = "masks: ignored 8 file(s) that the benchmark does not use, .DS_Store first"


@pytest.mark.parametrize(
    "place, change, ignored",
    [
        (
            "benchmark",
            lambda pred: [relabel(path, lambda labels: 255 * labels) for path in (pred / "run").iterdir()],
            "",
        ),
        ("Annotations", lambda pred: [one_bit(path) for path in (pred / "run").iterdir()], ""),
        ("benchmark", of_other_tools, OTHER_FILES),
        ("Annotations/480p", of_other_tools, OTHER_FILES),
        (".", lambda pred: shutil.make_archive(pred.with_name("masks"), "zip", pred.parent, "masks"), ""),
    ],
    ids=["0 and 255", "1 bit", "other files", "other files by folder", "archive"],
)
def test_masks_of_any_origin(tree, tmp_path, monkeypatch, capsys, place, change, ignored):
    """As users have them, and against any folder of masks, the scores are the same."""
    (tree.pred / ".snakemake_timestamp").touch()  # which every workflow leaves and nobody needs to be warned of
    score(tree.pred, tree.root, VAL, tmp_path / "plain")
    change(tree.pred)
    archive = tree.pred.with_name("masks.zip")
    arguments = ["--pred", archive if archive.exists() else tree.pred, "--truth", tree.root, "--benchmark", VAL]
    if place != "benchmark":
        (tmp_path / "truth" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(tree.root / "DAVIS" / "Annotations" / "480p", tmp_path / "truth" / place)
        arguments[3:] = [tmp_path / "truth"]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["score", *map(str, arguments)]) == 0
    out = tmp_path / f"{arguments[1].name}-scores"
    printed = capsys.readouterr()
    assert printed.out == f"J&F-Mean 90.9, J-Mean 81.8, F-Mean 100.0; unrounded and by object: {out.name}\n"
    assert ("ignored" in printed.err) == bool(ignored) and ignored in printed.err
    assert ("the DAVIS protocol over the 2 sequences" in printed.err) == (place != "benchmark")
    assert read_record(out)["benchmark"] == (VAL if place == "benchmark" else None)
    for name, row in (("per_object", "object"), ("per_frame", "frame")):
        lines, plain = (sorted(map(str, read(of / f"{name}.csv"))) for of in (out, tmp_path / "plain"))
        assert lines == plain and row in lines[0]
    assert {path.name for path in out.iterdir()} == {*CSVS, "score.json"}


@pytest.mark.parametrize("frame", range(6))
def test_only_frames_that_are_not_scored_may_be_missing(tree, frame):
    tasks = open_benchmark(get_benchmark(VAL), tree.root)[1]
    tree.pred_path("walk", frame).unlink()
    if f"{frame:05d}" in tasks[0].scored[1]:
        refused(f"walk/{frame:05d}.png: frame missing; the protocol scores", check_prediction, tasks, tree.pred)
        return
    assert f"{frame:05d}" in (walk := check_prediction(tasks, tree.pred)[0]).video.frames and len(walk.demanded) == 5


def test_ground_truth_of_any_origin(tree, tmp_path, capsys):
    """Masks of 0 and 255, ids with gaps, frame names without zeros; and what cannot be scored."""
    truth = tmp_path / "truth"
    for t in (1, 2, 9, 10, 11):
        for folder, value in ((truth / "walk", 255), (tmp_path / "pred" / "walk", 1)):
            write_labels(folder / f"{t}.png", boxes(t, 1, 48, 64) * np.uint8(value))
        for folder in (truth, tmp_path / "pred"):
            write_labels(folder / "run" / f"{t}.png", np.array([0, 2, 7, 0], np.uint8)[boxes(t, 2, 48, 64)])
    score(tmp_path / "pred", truth, None, tmp_path / "out")
    assert {(row["sequence"], row["object"], row["frame"]) for row in read(tmp_path / "out" / "per_frame.csv")} == {
        (*of, t) for of in (("walk", "1"), ("run", "2"), ("run", "7")) for t in ("2", "9", "10")
    }
    assert {row["J-Mean"] for row in read(tmp_path / "out" / "per_object.csv")} == {"1.0"}
    relabel(truth / "run" / "1.png", np.zeros_like)
    refused("run/1.png: no object", score, tmp_path / "pred", truth, None, tmp_path / "out")
    for t in (1, 2, 9):
        (truth / "run" / f"{t}.png").unlink()
    refused("run: 2 frames.*at least 3", score, tmp_path / "pred", truth, None, tmp_path / "out")
    (truth / "swim").mkdir()
    refused("swim: no masks", score, tmp_path / "pred", truth, None, tmp_path / "out")
    with pytest.raises(HodorError, match="no masks in the layout of DAVIS.*--benchmark"):
        score(tmp_path / "pred", tmp_path / "out", None, tmp_path / "out")


def test_missing_sequences_folders_and_benchmarks(tree, tmp_path):
    shutil.rmtree(tree.pred / "run")
    refused("run: sequence missing", score, tree.pred, tree.root, VAL, tmp_path / "out")
    for pred in (tmp_path / "none", Path("/dev/zero"), tree.pred_path("walk", 1)):
        refused("give the folder", score, pred, tree.root, VAL, tmp_path / "out")
    with pytest.raises(HodorError, match="davis2017-vall.*davis2017-val, davis2017-test-dev, ytvos2018-val"):
        score(tree.pred, tree.root, "davis2017-vall", tmp_path / "out")
    refused("no DAVIS data here", score, tree.pred, tmp_path, VAL, tmp_path / "out")
    assert all(get_benchmark(id).id == id for id in BENCHMARKS)


def test_test_dev_is_scored_only_where_its_masks_are_known(make_tree, tmp_path):
    tree = make_tree({"walk": (6, 2)}, split="test-dev")
    score(tree.pred, tree.root, "davis2017-test-dev", tmp_path / "out")
    assert len(read(tmp_path / "out" / "per_object.csv")) == 2
    for frame in range(1, 6):
        tree.truth_path("walk", frame).unlink()
    refused("1 of 6 frames.*secret.*server", score, tree.pred, tree.root, "davis2017-test-dev", tmp_path / "out")


def write_inputs(tree) -> dict:
    """Write masks.json and the data manifest; return a stamp."""
    masks = {path.relative_to(tree.pred).as_posix(): sha256_file(path) for path in sorted(tree.pred.glob("*/*.png"))}
    (tree.pred.parent / "masks.json").write_text(json.dumps({"stamp": "s", "masks": masks}))
    (tree.root.parent / "davis.json").write_text("{}")
    content = {"step": "score", "scale": "tiny", "settings": {"benchmark": VAL}, "recipes": {}}
    return content | {"sha256": sha256_json(content)}


def test_the_record_names_stamp_masks_ground_truth_and_metric(tree, tmp_path):
    stamp = write_inputs(tree)
    score(tree.pred, tree.root, VAL, tmp_path / "out", stamp)
    record = read_record(tmp_path / "out")
    assert record["stamp"] == stamp["sha256"] == sha256_json(record["stamp_content"])
    assert record["masks"] == sha256_file(tree.pred.parent / "masks.json")
    assert record["truth"] == sha256_file(tree.root.parent / "davis.json")
    assert "hodor.scoring" in record["metric"] and "toolkit itself was not used" in record["metric"]
    assert record["official"] is None
    assert record["files"] == {name: sha256_file(tmp_path / "out" / name) for name in CSVS}
    assert (record["sequences"], record["objects"], record["frames"]) == (2, 3, 7)
    shutil.copy(tree.pred_path("walk", 3), tree.pred_path("walk", 2))
    refused(r"walk/00002\.png.*masks\.json", score, tree.pred, tree.root, VAL, tmp_path / "out", stamp)


@pytest.mark.parametrize("name, step", [("masks.json", "segment"), ("davis.json", "prepare")])
def test_inside_the_workflow_both_inputs_are_recorded(tree, tmp_path, name, step):
    stamp = write_inputs(tree)
    ({"masks.json": tree.pred.parent, "davis.json": tree.root.parent}[name] / name).unlink()
    refused(f"{name}: missing; run the step {step} again", score, tree.pred, tree.root, VAL, tmp_path / "out", stamp)
    score(tree.pred, tree.root, VAL, tmp_path / "out")  # a person's own masks have no record
