"""The 3x3 convolution with fewer products against the direct one."""

import pytest
import torch
from torch.nn import functional

from hodor.models import winograd
from hodor.models.forms import plain_forms
from hodor.models.winograd import Conv3x3, winograd_conv2d


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (7, 30), (33, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_direct_convolution(size, bias, monkeypatch):
    monkeypatch.setattr(winograd, "_TILES", 5)  # several blocks, the last one smaller
    torch.manual_seed(0)
    x, weight = torch.randn(2, 32, *size), torch.randn(48, 32, 3, 3)
    shift = torch.randn(48) if bias else None
    expected = functional.conv2d(x.double(), weight.double(), None if shift is None else shift.double(), padding=1)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = winograd_conv2d(given, weight, shift)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.fixture
def calls(monkeypatch):
    """How often the form with fewer products runs."""
    out, own = [], winograd.winograd_conv2d
    monkeypatch.setattr(winograd, "winograd_conv2d", lambda *a: out.append(1) or own(*a))
    return out


def test_runs_without_gradients_alone(calls):
    torch.manual_seed(0)
    layer, x = Conv3x3(32, 32), torch.randn(1, 32, 40, 40)
    direct = layer(x)
    direct.sum().backward()
    assert not calls and layer.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(layer(x), direct, atol=1e-4, rtol=0)
        assert calls == [1]
        with plain_forms():
            assert torch.equal(layer(x), direct)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        layer.double()(x.double())
        assert torch.equal(
            layer.float()(x[..., :8, :8]), functional.conv2d(x[..., :8, :8], layer.weight, layer.bias, padding=1)
        )
    assert calls == [1]


def test_weights_are_those_of_a_plain_convolution():
    assert list(Conv3x3(8, 4, bias=False).state_dict()) == ["weight"]
    torch.manual_seed(0)
    ours = Conv3x3(8, 4).state_dict()
    torch.manual_seed(0)
    assert all(
        torch.equal(ours[name], value) for name, value in torch.nn.Conv2d(8, 4, 3, padding=1).state_dict().items()
    )
