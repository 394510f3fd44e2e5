"""Deformable convolution against the definition."""

import itertools

import torch
from torch.autograd import gradcheck
from torch.nn import functional

from hodor.models.deformable import DeformableConv, deformable_conv2d


def by_definition(x, offsets, weight, bias):
    """Each output pixel and tap by hand; reading is bilinear, outside is 0."""
    batch, channels, height, width = x.shape
    out = bias.view(1, -1, 1, 1).repeat(batch, 1, height, width)

    def read(b, y, x_):
        value = torch.zeros(channels, dtype=x.dtype)
        top, left = int(y // 1), int(x_ // 1)
        for row, column in itertools.product((top, top + 1), (left, left + 1)):
            if 0 <= row < height and 0 <= column < width:
                value += (1 - abs(y - row)) * (1 - abs(x_ - column)) * x[b, :, row, column]
        return value

    for b, i, j, tap in itertools.product(range(batch), range(height), range(width), range(9)):
        dy, dx = offsets[b, 2 * tap, i, j].item(), offsets[b, 2 * tap + 1, i, j].item()
        out[b, :, i, j] += weight[:, :, tap // 3, tap % 3] @ read(b, i + tap // 3 - 1 + dy, j + tap % 3 - 1 + dx)
    return out


def inputs(height=4, width=5, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, height, width, generator=generator, dtype=dtype)
    offsets = scale * torch.randn(2, 18, height, width, generator=generator, dtype=dtype)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=dtype)
    return x, offsets, weight, torch.randn(4, generator=generator, dtype=dtype)


def test_equals_the_definition_also_far_outside():
    for height, width, scale in ((4, 5, 2.0), (1, 6, 1.0), (3, 3, 8.0)):
        arguments = inputs(height, width, scale)
        assert torch.allclose(deformable_conv2d(*arguments), by_definition(*arguments), atol=1e-9)


def test_without_offsets_it_is_a_convolution():
    x, offsets, weight, bias = inputs()
    expected = functional.conv2d(x, weight, bias, padding=1)
    assert torch.allclose(deformable_conv2d(x, 0 * offsets, weight, bias), expected, atol=1e-9)


def test_gradients():
    x, offsets, weight, bias = inputs(3, 3)
    arguments = [t.requires_grad_() for t in (x[:1], offsets[:1], weight, bias)]
    assert gradcheck(deformable_conv2d, arguments)


def test_layer_starts_with_offsets_that_move():
    torch.manual_seed(0)
    layer = DeformableConv(32)
    x = torch.randn(1, 32, 6, 6)
    assert layer.conv_offsets(x).abs().max() > 0.05
    assert layer(x).shape == x.shape
