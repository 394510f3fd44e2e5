"""A small DAVIS tree with predictions, which the scoring tests damage in various ways."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hodor.data.images import read_labels, write_labels
from hodor.scoring import official
from tests.data.datasets import write_davis

VAL = "davis2017-val"
CSVS = ("per_frame.csv", "per_object.csv", "global.csv")


@pytest.fixture(autouse=True)
def without_toolkit(request, monkeypatch):
    """Make tests the same whether the official toolkit is installed or not; those about it ask for `with_toolkit`."""
    if "with_toolkit" not in request.fixturenames:
        monkeypatch.setattr(official, "installed", lambda: False)


@pytest.fixture
def with_toolkit() -> None:
    """Let the official toolkit be found where it is."""


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_record(out: Path) -> dict:
    return json.loads((out / "score.json").read_text())


def relabel(path: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Change the labels of a mask file; `change` returns new labels or edits those given."""
    labels = read_labels(path)
    changed = change(labels)
    write_labels(path, labels if changed is None else changed.astype(np.uint8))


def set_pixel(value: int) -> Callable[[np.ndarray], None]:
    return lambda labels: labels.__setitem__((0, 0), value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@dataclass(frozen=True)
class Tree:
    """root holds DAVIS/; pred holds <sequence>/<frame>.png."""

    root: Path
    pred: Path

    def truth_path(self, sequence: str, frame: int) -> Path:
        return self.root / "DAVIS" / "Annotations" / "480p" / sequence / f"{frame:05d}.png"

    def pred_path(self, sequence: str, frame: int) -> Path:
        return self.pred / sequence / f"{frame:05d}.png"

    def split_file(self, split: str = "val") -> Path:
        return self.root / "DAVIS" / "ImageSets" / "2017" / f"{split}.txt"


def boxes(frame: int, objects: int, height: int, width: int) -> np.ndarray:
    """uint8 (height, width): object k is a square that moves right with the frames."""
    labels = np.zeros((height, width), np.uint8)
    for k in range(objects):
        labels[4 + 14 * k : 14 + 14 * k, 3 + frame : 15 + frame] = k + 1
    return labels


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Tree]:
    """Make a tree from {sequence: (frames, objects)}. Predictions are the ground truth, one pixel further down."""

    def make(sequences: dict[str, tuple[int, int]], split: str = "val") -> Tree:
        tree = Tree(tmp_path / "davis", tmp_path / "row" / "masks")
        masks = {
            name: [boxes(frame % 30, objects, 48, 64 + 4 * number) for frame in range(frames)]
            for number, (name, (frames, objects)) in enumerate(sequences.items())
        }
        write_davis(tree.root, split, masks)
        for name, given in masks.items():
            for frame, labels in enumerate(given):
                write_labels(tree.pred_path(name, frame), np.roll(labels, 1, axis=0))
        return tree

    return make


@pytest.fixture
def tree(make_tree) -> Tree:
    return make_tree({"walk": (6, 2), "run": (5, 1)})
