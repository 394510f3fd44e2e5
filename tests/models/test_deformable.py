"""Deformable convolution against the definition."""

import sys
import types

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.autograd import gradcheck

from hodor.models import deformable
from hodor.models.deformable import deformable_conv2d


def by_definition(x, offsets, weight, bias):
    """Compute tap by tap; maps are read bilinearly and are 0 outside."""
    batch, channels, height, width = x.shape
    rows, columns = np.mgrid[:height, :width]
    out = bias.view(1, -1, 1, 1).repeat(batch, 1, height, width)
    for b, tap, channel in np.ndindex(batch, 9, channels):
        dy, dx = offsets[b, 2 * tap : 2 * tap + 2].numpy()
        places = [rows + tap // 3 - 1 + dy, columns + tap % 3 - 1 + dx]
        read = map_coordinates(x[b, channel].numpy(), places, order=1, mode="grid-constant")
        out[b] += weight[:, channel, tap // 3, tap % 3].view(-1, 1, 1) * torch.from_numpy(read)
    return out


def inputs(height=4, width=5, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, height, width, generator=generator, dtype=dtype)
    offsets = scale * torch.randn(2, 18, height, width, generator=generator, dtype=dtype)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=dtype)
    return x, offsets, weight, torch.randn(4, generator=generator, dtype=dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_the_definition_also_far_outside(layout):
    for height, width, scale in ((4, 5, 2.0), (1, 6, 1.0), (3, 3, 8.0)):
        x, *others = inputs(height, width, scale)
        found = deformable_conv2d(x.contiguous(memory_format=layout), *others)
        assert torch.allclose(found, by_definition(x, *others), atol=1e-9)


def test_nan_and_infinite_offsets_reach_the_result():
    """So that a training that diverges ends with the error of its loss, not with that of an index."""
    x, offsets, weight, bias = inputs()
    expected = deformable_conv2d(x, offsets, weight, bias)
    offsets[0, 4, 1, 2], offsets[1, :, 3, 4] = torch.nan, torch.inf
    found = deformable_conv2d(x, offsets, weight, bias)
    assert found[0, :, 1, 2].isnan().all() and torch.equal(found[1, :, 3, 4], bias)
    changed = (found != expected).any(1).nonzero().tolist()
    assert changed == [[0, 1, 2], [1, 3, 4]]


def test_gradients():
    x, offsets, weight, bias = inputs(3, 3)
    arguments = [t.requires_grad_() for t in (x[:1], offsets[:1], weight, bias)]
    assert gradcheck(deformable_conv2d, arguments)


@pytest.fixture
def torchvision(monkeypatch):
    """Replace torchvision by a module whose operator records its arguments and computes the definition."""
    calls = []

    def deform_conv2d(input, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None):
        calls.append({"stride": stride, "padding": padding, "dilation": dilation, "mask": mask})
        assert padding == 1  # that of the definition
        return by_definition(input, offset, weight, bias)

    ops = types.ModuleType("torchvision.ops")
    ops.deform_conv2d = deform_conv2d
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    deformable.gpu_operator.cache_clear()
    yield calls
    deformable.gpu_operator.cache_clear()


def test_gpu_uses_torchvisions_operator(torchvision, monkeypatch):
    arguments = inputs()
    expected = deformable_conv2d(*arguments)
    assert torchvision == []  # not for tensors on a CPU
    monkeypatch.setattr(deformable, "on_gpu", lambda x: True)
    assert torch.allclose(deformable_conv2d(*arguments), expected, atol=1e-9)
    assert torchvision == [{"stride": 1, "padding": 1, "dilation": 1, "mask": None}]


def test_deterministic_training_does_not_use_torchvisions_operator(monkeypatch):
    on_a_gpu = types.SimpleNamespace(is_cuda=True)
    assert deformable.on_gpu(on_a_gpu)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not deformable.on_gpu(on_a_gpu)


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_gpu_without_a_working_torchvision_uses_the_plain_form(error, torchvision, monkeypatch):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise error(name)

    monkeypatch.setitem(sys.modules, "torchvision.ops", Broken("torchvision.ops"))
    monkeypatch.setattr(deformable, "on_gpu", lambda x: True)
    arguments = inputs()
    assert torch.allclose(deformable_conv2d(*arguments), by_definition(*arguments), atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_operator_and_plain_form_agree_on_a_gpu():
    arguments = [t.cuda().float().requires_grad_() for t in inputs(12, 20)]
    if deformable.gpu_operator() is None:
        pytest.skip("torchvision is not installed")
    outputs = [f(*arguments) for f in (deformable_conv2d, deformable.sampled_conv2d)]
    gradients = [torch.autograd.grad(out.square().sum(), arguments) for out in outputs]
    assert torch.allclose(*outputs, atol=1e-4)
    assert all(torch.allclose(a, b, atol=1e-2, rtol=1e-3) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_reads_at_the_positions_of_float32(training):
    """Without offsets the result is a plain convolution; on a wide map, rounded positions would show."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 4, 300).bfloat16(), torch.randn(3, 2, 3, 3).bfloat16()
    plain = torch.nn.functional.conv2d(x.float(), weight.float(), padding=1)
    with torch.set_grad_enabled(training):
        ours = deformable_conv2d(x, torch.zeros(1, 18, 4, 300).bfloat16(), weight, None)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - plain).abs().max() < 0.02 * plain.abs().max()
