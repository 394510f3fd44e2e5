"""Attention variants: a file of their folder is an option of HODOR, and its code counts for its rows alone."""

import sys
import types

import pytest
import torch
from torch import nn

from hodor import closure, config
from hodor.attention import MODES
from hodor.errors import HodorError
from hodor.models.base import build_method
from hodor.models.hodor import variants
from hodor.stamps import MODULES, Stamps

NARROW = {
    "backbone": "convnet",
    "backbone_width": 8,
    "backbone_depths": (1, 1, 1, 1),
    "dim": 32,
    "encoder_layers": 2,
    "encoder_hidden": 32,
    "decoder_layers": 1,
    "decoder_hidden": 32,
}


class Mean(nn.Module):
    """The mean pixel under the mask, times a strength for each of eight heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(heads))

    def forward(self, query, pixels, mask):
        return self.alpha.mean() * (mask @ pixels) / mask.sum(-1, keepdim=True).clamp(min=1)


@pytest.fixture
def mean(monkeypatch):
    """A variant `mean-pixel` without a file."""
    module = types.ModuleType("hodor.models.hodor.variants.mean_pixel")
    module.build = lambda options: Mean(options.heads)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(variants, "names", lambda: (*variants.BUILT_IN, "mean-pixel"))
    return "mean-pixel"


def test_the_modes_of_the_paper_are_those_of_the_attention():
    assert set(variants.BUILT_IN) == set(MODES) and set(variants.names()) >= set(MODES)


def test_a_variant_stands_in_every_encoder_layer_and_logs_its_alphas(mean):
    method = build_method("hodor", NARROW | {"attention": mean, "decay_alpha": False})
    layers = [layer.cross_attention for layer in method.network.encoder.layers]
    assert [type(layer) for layer in layers] == [Mean, Mean]
    assert method.log_values() == {"alpha": [[1.0] * 8] * 2}
    assert [id(p) for p in method.undecayed_parameters()] == [id(layer.alpha) for layer in layers]


def test_the_code_of_a_variant_counts_for_its_rows_alone(mean):
    options = config.options_class("hodor")
    assert options(attention=mean).modules() == ["hodor.models.hodor.variants.mean_pixel"]
    assert options(attention="soft").modules() == []
    for step in ("train", "segment"):
        found = closure.closure([MODULES[step], "hodor.models.hodor.method"])
        assert not [name for name in found if name.startswith("hodor.models.hodor.variants.")]


def test_the_stamps_hash_what_a_rows_options_choose(root, monkeypatch):
    loaded = config.load(root / "config", {"scale": "tiny"})
    before = Stamps(loaded, root).contents
    options = config.options_class("hodor")
    monkeypatch.setattr(options, "modules", lambda self: ["hodor.models.copy.method"] * (self.attention == "soft"))
    after = Stamps(loaded, root).contents
    soft = {row for row in loaded.selected if loaded.options[row].get("attention") == "soft"}
    changed = {
        (content["step"], content["row"])
        for name, content in after.items()
        if content != before[name] and "row" in content
    }
    assert changed == {(step, row) for step in ("train", "segment") for row in soft} and soft


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="'mean-pixel' is none of none, hard, soft"):
        config.options_class("hodor")(attention="mean-pixel")
    with pytest.raises((ValueError, HodorError)):
        build_method("hodor", NARROW | {"attention": "mean-pixel"})
