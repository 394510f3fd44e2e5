"""External masks become the masks of a row: where the sequences may be, and every fault named with its file."""

import json
import shutil

import numpy as np
import pytest

from hodor.data.images import AGAIN, read_labels
from hodor.provenance import sha256_file, sha256_files
from hodor.scoring.external import import_masks
from hodor.scoring.score import score
from tests.refused import refused

from .conftest import VAL, cut, read_record, relabel, set_pixel


def stamp_of(source, benchmark: str = VAL) -> dict:
    settings = {"masks": str(source), "sha256": sha256_files(source), "benchmark": {"id": benchmark}}
    return {"sha256": "0" * 64, "step": "segment", "settings": settings}


@pytest.fixture
def data(tree):
    """Folder of the data sets: davis and its manifest."""
    (tree.root.parent / "davis.json").write_text("{}")
    return tree.root.parent


@pytest.mark.parametrize("place", ["folder", "above", "zip", "zip above"])
def test_masks_in_a_folder_or_an_archive_are_imported(tree, data, tmp_path, place):
    shutil.copytree(tree.pred / "walk", tree.pred / "another")  # archives may hold more than one split
    tree.pred_path("walk", 5).unlink()  # not scored
    source = tree.pred.parent if "above" in place else tree.pred
    if "zip" in place:
        source = shutil.make_archive(tmp_path / "archive", "zip", source)
    out = tmp_path / "run" / VAL
    import_masks(stamp_of(tmp_path / source), data, out)
    record = json.loads((out / "masks.json").read_text())
    names = [f"{name}/{t:05d}.png" for name, frames in (("run", 5), ("walk", 5)) for t in range(frames)]
    assert sorted(record["masks"]) == names and record["weights"] is None
    for name in names:
        assert (read_labels(out / "masks" / name) == read_labels(tree.pred / name)).all()
        assert record["masks"][name] == sha256_file(out / "masks" / name)
    assert json.loads((out / "segment.json").read_text())["frames"] == 10
    assert {path.name for path in out.iterdir()} == {"masks", "masks.json", "segment.json"}
    score(out / "masks", tree.root, VAL, out)
    assert read_record(out)["masks"] == sha256_file(out / "masks.json")


def test_masks_of_davis_2016_may_hold_255(make_tree, tmp_path):
    tree = make_tree({"walk": (4, 1)})
    folder = tree.root / "DAVIS" / "ImageSets" / "480p"
    folder.mkdir()
    lines = (f"/JPEGImages/480p/walk/{t:05d}.jpg /Annotations/480p/walk/{t:05d}.png\n" for t in range(4))
    (folder / "val.txt").write_text("".join(lines))
    tree.root.rename(tmp_path / "davis2016")
    (tmp_path / "davis2016.json").write_text("{}")
    relabel(tree.pred_path("walk", 2), lambda labels: 255 * labels)
    for t in range(4):
        path = tmp_path / "davis2016/DAVIS/Annotations/480p/walk" / f"{t:05d}.png"
        relabel(path, lambda labels: 255 * labels)
    import_masks(stamp_of(tree.pred, "davis2016-val"), tmp_path, tmp_path / "out")
    assert np.unique(read_labels(tmp_path / "out/masks/walk/00002.png")).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("damage", "file", "fault"),
    [
        (lambda pred: (pred / "run/00003.png").unlink(), "run/00003.png", "frame missing"),
        (lambda pred: shutil.rmtree(pred / "run"), "run", "sequence missing"),
        (lambda pred: shutil.copy(pred / "run/00003.png", pred / "walk"), "walk/00003.png", "64x48"),
        (lambda pred: relabel(pred / "run/00003.png", set_pixel(7)), "run/00003.png", "object id 7"),
        (lambda pred: cut(pred / "run/00003.png"), "run/00003.png", "truncated"),
        (lambda pred: shutil.rmtree(pred), "", "sequence missing"),
        (lambda pred: shutil.copytree(pred, pred.parent / "copy"), "copy", "both hold sequences"),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_a_fault_is_named_with_its_file(tree, data, tmp_path, damage, file, fault, archive):
    damage(tree.pred)
    tree.pred.parent.mkdir(exist_ok=True)
    (tree.pred.parent / "README").write_text("an archive needs a member")
    source = tree.pred.parent
    if archive:
        source = shutil.make_archive(tmp_path / "archive", "zip", source)
    text = refused(fault, import_masks, stamp_of(tmp_path / source), data, tmp_path / "out")
    assert str(source) in text and file in text and AGAIN not in text
    assert not (tmp_path / "out" / "masks.json").exists() and not list(tmp_path.glob("out/*extracted*"))


def test_masks_that_change_meanwhile_are_not_imported(tree, data, tmp_path):
    stamp = stamp_of(tree.pred)
    relabel(tree.pred_path("run", 2), set_pixel(1))
    refused("changed while the workflow ran", import_masks, stamp, data, tmp_path / "out")
