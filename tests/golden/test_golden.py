"""What every recipe computes is what it computed when its version was last raised."""

import cv2
import pytest

import hodor.attention
import hodor.models.memory.readout as bank
import hodor.scoring.jf
from hodor.config.recipes import RECIPES
from tests.golden import files
from tests.golden.compute import Golden


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> Golden:
    return Golden(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_computes_what_its_version_did(golden, recipe):
    files.check(recipe, golden.compute(recipe))


def test_every_recipe_has_a_golden_value_and_no_other_file_is_there():
    assert not files.stale()
    assert all(files.path_of(recipe).is_file() for recipe in RECIPES)


def _negative_alpha(monkeypatch) -> None:
    init = hodor.attention.SoftMaskedAttention.__init__

    def negative(self, *args, **kwargs) -> None:
        init(self, *args, **kwargs)
        self.mask_scale = -self.mask_scale

    monkeypatch.setattr(hodor.attention.SoftMaskedAttention, "__init__", negative)


def _keys_of_other_frames(monkeypatch) -> None:
    readers = bank.Bank.readers

    def reversed_keys(self) -> list:
        return [reader._replace(keys=reader.keys.flip(0)) for reader in readers(self)]

    monkeypatch.setattr(bank.Bank, "readers", reversed_keys)


def _nearest_pixel(monkeypatch) -> None:
    monkeypatch.setattr(cv2, "INTER_LINEAR", cv2.INTER_NEAREST)


def _wider_boundary(monkeypatch) -> None:
    monkeypatch.setattr(hodor.scoring.jf, "BOUNDARY_TOLERANCE", 0.016)


MUTATIONS = {
    _negative_alpha: ("train/hodor", "segment/hodor"),
    _keys_of_other_frames: ("segment/stm", "segment/kmn", "segment/stcn"),
    _nearest_pixel: ("clips",),
    _wider_boundary: ("score/davis", "score/davis2016", "score/youtube-vos", "tables"),
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__.strip("_"))
def test_mutations_are_noticed(golden, monkeypatch, mutation):
    mutation(monkeypatch)
    for recipe in MUTATIONS[mutation]:
        with pytest.raises(AssertionError, match=rf"raise RECIPES\['{recipe}'\] in hodor/config/recipes.py to"):
            files.check(recipe, golden.compute(recipe))


def test_a_raised_version_asks_for_new_values(monkeypatch):
    monkeypatch.setitem(RECIPES, "tables", RECIPES["tables"] + 1)
    with pytest.raises(AssertionError, match=files.COMMAND):
        files.check("tables", {})
