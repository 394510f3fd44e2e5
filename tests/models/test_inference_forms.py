"""What inference runs on a CPU computes what the plain layers compute."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hodor.config.inference import InferenceOptions
from hodor.models.base import build_method
from hodor.models.forms import cpu_inference, inference, plain_forms
from hodor.models.hodor import method as hodor_method
from hodor.models.hodor.decoder import History
from hodor.models.hodor.method import full_probabilities, paste
from hodor.models.swin import Swin
from hodor.models.swin_rows import window_rows

NARROW = {
    "backbone_width": 32,
    "backbone_depths": (2, 2, 2, 2),
    "dim": 32,
    "encoder_layers": 2,
    "encoder_hidden": 32,
    "decoder_layers": 2,
    "decoder_hidden": 32,
    "dropout": 0.1,
}


def test_forms_for_inference_are_for_what_wants_no_gradient():
    x, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(2))
    assert inference(x) and not inference(x, parameter)
    with torch.no_grad():
        assert inference(x, parameter) and cpu_inference(x, parameter)
        assert not cpu_inference(x.double()) and not cpu_inference(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert inference(x) and not cpu_inference(x)
        with plain_forms():
            assert not inference(x) and not cpu_inference(x)


@pytest.mark.parametrize("size", [(64, 96), (36, 228), (300, 20)])
def test_swin_as_rows(size):
    """Sizes whose maps are whole windows, narrower than one, and odd before merging."""
    torch.manual_seed(0)
    swin = Swin(width=32, depths=(2, 2, 2, 2)).eval()
    for parameter in swin.parameters():  # the biases start at zero, where padding shows nothing
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = swin(x)
        with plain_forms():
            plain = swin(x)
    for a, b in zip(ours, plain, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_windows_show_each_token_once():
    for height, width, shift in ((7, 14, 0), (8, 9, 3), (3, 20, 3)):
        of_window, of_token = window_rows(height, width, shift)
        tokens = height * width
        assert torch.equal(of_window[of_token], torch.arange(tokens))
        assert (of_window == tokens).sum() == len(of_window) - tokens and len(of_window) % 49 == 0


def test_rows_do_not_train():
    """In training, and wherever a gradient is wanted, the plain blocks run: stochastic depth and gradients are theirs."""
    torch.manual_seed(0)
    swin = Swin(width=32, depths=(2, 2, 2, 2), drop_path=0.5)
    x = torch.randn(2, 3, 64, 64)
    swin(x)[-1].sum().backward()
    assert all(
        p.grad is not None for name, p in swin.named_parameters() if not name.startswith(("norm0", "norm1", "norm2"))
    )
    with torch.no_grad():
        assert not torch.equal(swin.train()(x)[-1], swin(x)[-1])


@pytest.mark.parametrize("pasted", [False, True])
def test_full_resolution_in_pieces(monkeypatch, pasted):
    monkeypatch.setattr(hodor_method, "_ROWS", 3)
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 1 + 4 + 2, 10, 6)
    reference = (torch.rand(1, 1, 40, 24) > 0.7).float() if pasted else None
    full = functional.softmax(
        functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False), dim=1
    )
    full = full if reference is None else paste(full, reference)
    expected = torch.cat([full[:, :5].amax(1, keepdim=True), full[:, 5:]], dim=1)
    torch.testing.assert_close(full_probabilities(logits, 4, reference), expected, atol=1e-6, rtol=0)
    with plain_forms():
        torch.testing.assert_close(full_probabilities(logits, 4, reference), expected, atol=1e-6, rtol=0)


def test_a_longer_history_whose_end_does_not_exist_changes_nothing():
    torch.manual_seed(0)
    network = build_method("hodor", NARROW).eval().network
    history = History(torch.randn(1, 2, 3, 32), torch.randn(1, 9, 3, 32))
    longer = history.padded(5)
    assert longer.objects.shape == (1, 2, 5, 32) and longer.valid().sum() == 3 * 11
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 64, 96))
        torch.testing.assert_close(network.decode(features, longer), network.decode(features, history))


@pytest.mark.long
def test_compiled_decoding_changes_nothing():
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8))
    mask = np.zeros((64, 96), bool)
    mask[10:50, 10:50] = True

    def run(**options: bool) -> torch.Tensor:
        torch.manual_seed(0)
        method = build_method("hodor", NARROW, InferenceOptions(short_side=64, temporal_window=2, **options)).eval()
        state = method.start(frames[0], {1: mask})
        given = [None, {2: mask[::-1]}, None]
        return [method.step(state, frame, new) for frame, new in zip(frames[1:], given, strict=True)]

    for a, b in zip(run(compile=True), run(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


def test_a_video_is_segmented_alike():
    """An object that appears later, a frame size that is no multiple of 32, more frames than the window."""
    torch.manual_seed(0)
    options = InferenceOptions(short_side=224, temporal_window=2, feature_batch=2)
    method = build_method("hodor", NARROW, options).eval()
    rng = np.random.default_rng(0)
    size = (100, 150)
    frames = [rng.integers(0, 256, (25, 30, 3), dtype=np.uint8).repeat(4, 0).repeat(5, 1) for _ in range(5)]
    boxes = np.zeros((2, *size), bool)
    boxes[0, 10:60, 10:60] = boxes[1, 30:90, 80:140] = True

    def run() -> torch.Tensor:
        state = method.start(frames[0], {1: boxes[0]})
        features = method.features(frames)
        steps = [method.step(state, frames[t], {2: boxes[1]} if t == 2 else None, features[t]) for t in range(1, 5)]
        return torch.cat(steps)

    ours = run()
    with plain_forms():
        plain = run()
    torch.testing.assert_close(ours, plain, atol=2e-4, rtol=0)
    assert not torch.equal(ours, plain), "the forms were not used"
