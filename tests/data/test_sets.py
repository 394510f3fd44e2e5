"""Further data sets of images: a file of hodor/data/sets is known everywhere by its name."""

import sys
import types

import numpy as np
import pytest
from PIL import Image

from hodor import config
from hodor.data import sets
from hodor.data.saliency import Layout, load_layout
from hodor.errors import HodorError
from hodor.stamps import Stamps


def test_a_layout_pairs_images_and_masks(tmp_path):
    for folder, ending in (("images", "jpg"), ("masks", "png")):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 10), 255, np.uint8)).save(tmp_path / folder / f"a.{ending}")
    (image,) = load_layout(tmp_path, Layout("images", "masks"))
    assert (image.height, image.width) == (8, 10) and image.objects[0].mask(8, 10).all()
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "b.png")
    with pytest.raises(HodorError, match="no partner of that name"):
        load_layout(tmp_path, Layout("images", "masks"))


def test_the_reader_of_a_further_data_set_is_part_of_its_hash_and_of_no_other(root, monkeypatch):
    """`coco` stands for one whose module is that of the copy method."""
    loaded = config.load(root / "config", {"scale": "tiny"})
    before = Stamps(loaded, root).contents
    monkeypatch.setattr("hodor.stamps.modules_of", lambda name: ["hodor.models.copy.method"] * (name == "coco"))
    after = Stamps(loaded, root).contents
    changed = {name for name in after if after[name] != before[name]}
    trained = {f"train-{row}-seed0" for row in loaded.needed() if "coco" in loaded.datasets(row)}
    assert {
        name for name in changed if name.partition("-")[0] in ("fetch", "prepare", "train", "segment", "score")
    } == {
        "prepare-coco",
        *trained,
    }


def test_modules_are_found_by_name(monkeypatch):
    module = types.ModuleType("hodor.data.sets.two_words")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sets, "further", lambda: {"two-words": module})
    assert sets.modules_of("two-words") == ["hodor.data.sets.two_words"] and sets.modules_of("coco") == []
