"""Attention variants: a registered module is an option of HODOR."""

import sys
import types

import pytest
import torch
from torch import nn

from hodor.attention import MODES
from hodor.config.methods import ATTENTION
from hodor.config.rows import options_class
from hodor.errors import HodorError
from hodor.models.base import build_method
from tests.narrow import TWO_LAYERS


class Mean(nn.Module):
    """The mean pixel under the mask, times a strength for each of eight heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(heads))

    def forward(self, query, pixels, mask):
        return self.alpha.mean() * (mask @ pixels) / mask.sum(-1, keepdim=True).clamp(min=1)


@pytest.fixture
def mean(monkeypatch):
    """Register a variant `mean-pixel` without a file."""
    module = types.ModuleType("hodor.models.hodor.variants.mean_pixel")
    module.build = lambda options: Mean(options.heads)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(ATTENTION, "mean-pixel", module.__name__)
    return "mean-pixel"


def test_the_modes_of_the_paper_are_those_of_the_attention():
    assert set(MODES) <= set(ATTENTION)


def test_a_variant_is_in_every_encoder_layer_and_logs_its_alphas(mean):
    method = build_method("hodor", TWO_LAYERS | {"attention": mean, "decay_alpha": False})
    layers = [layer.cross_attention for layer in method.network.encoder.layers]
    assert [type(layer) for layer in layers] == [Mean, Mean]
    assert method.log_values() == {"alpha": [[1.0] * 8] * 2}
    assert [id(p) for p in method.undecayed_parameters()] == [id(layer.alpha) for layer in layers]


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="'mean-pixel' is none of none, hard, soft"):
        options_class("hodor")(attention="mean-pixel")
    with pytest.raises((ValueError, HodorError)):
        build_method("hodor", TWO_LAYERS | {"attention": "mean-pixel"})
