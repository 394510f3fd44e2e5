"""Segmenting videos with memory methods: schedule, objects that appear later, padding, settings."""

import numpy as np
import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.models.frames import MEAN, STD, Geometry
from tests.narrow import small
from tests.refused import refused
from tests.videos import SIZE, box, frame


def memories(method, frames, later=None):
    """Return frame t -> the memorised frames when it is segmented, for t from 1 on, and the state."""
    state = method.start(frame(0), {1: box(8, 8)})
    seen = {}
    for t in range(1, frames):
        seen[t] = state.bank.frames
        method.step(state, frame(t), (later or {}).get(t))
    return seen, state


@pytest.mark.parametrize(
    ("name", "inference", "expected"),
    [
        *((name, {}, {1: [0], 2: [0, 1], 6: [0, 5], 11: [0, 5, 10], 12: [0, 5, 10, 11]}) for name in ("stm", "kmn")),
        ("stcn", {}, {12: [0, 5, 10]}),
        ("stcn", {"memory_every": 3}, {12: [0, 3, 6, 9]}),
        ("stm", {"memory_previous": False}, {7: [0, 5]}),
        ("stm", {"memory_every": 1, "memory_frames": 3}, {8: [0, 6, 7]}),
    ],
)
def test_frames_in_memory(name, inference, expected):
    """By default every fifth frame, and the previous one for STM and KMN."""
    seen, _ = memories(small(name, inference=inference), max(expected) + 1)
    assert {t: seen[t] for t in expected} == expected


def test_settings_of_inference_come_before_the_methods():
    method = small("kmn", inference={"top_k": 3, "kernel_sigma": 2.0})
    assert (method.top_k, method.kernel_sigma) == (3, 2.0)
    assert (small("kmn").kernel_sigma, small("stm").kernel_sigma) == (7.0, None)
    assert (small("stcn").top_k, small("stm").top_k) == (20, 0)
    assert small("stcn", inference={"top_k": 0}).top_k == 0


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_a_frame_with_a_new_object_is_memorised_for_all(name):
    seen, state = memories(small(name), 14, later={7: {4: box(30, 60)}})
    assert state.ids == [1, 4] and state.bank.objects == 2
    kept = [t for t in seen[13] if t != 12 or name == "stcn"]
    assert kept == ([0, 5, 7, 12] if name == "stcn" else [0, 5, 7])
    first, late = (x for reader in state.bank.readers() for x in reader.values.values())
    cells = 4 * 6
    assert len(first) == len(state.bank.frames) * cells
    assert len(late) == len(first) - 2 * cells, "object 4 appears after the frames 0 and 5"


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_a_new_object_overwrites_its_pixels(name):
    method = small(name)
    state = method.start(frame(0), {3: box(8, 8)})
    alone = method.step(state, frame(1))
    state = method.start(frame(0), {3: box(8, 8)})
    new = box(16, 16)
    p = method.step(state, frame(1), {2: new})
    assert state.ids == [3, 2] and p.shape == (3, 64, 96)
    assert (p[2].numpy() == new).all() and (p[:2, torch.from_numpy(new)] == 0).all()
    torch.testing.assert_close(p[:2, torch.from_numpy(~new)], alone[:, torch.from_numpy(~new)])


def test_an_object_without_a_pixel_is_not_followed():
    method, empty = small("stcn"), np.zeros(SIZE, bool)
    state = method.start(frame(0), {1: box(8, 8), 2: empty})
    assert state.ids == [1]
    assert method.step(state, frame(1), {3: empty}).shape == (2, 64, 96) and state.ids == [1]
    for masks in ({}, {1: empty}):
        refused("large enough", method.start, frame(0), masks)


def test_kmn_with_an_endless_kernel_is_stm():
    results = {}
    for name, sigma in (("stm", None), ("kmn", 1e9), ("kmn", 1.0)):
        method = small(name, inference={"kernel_sigma": sigma})
        state = method.start(frame(0), {1: box(8, 8), 2: box(20, 50)})
        results[name, sigma] = torch.stack([method.step(state, frame(t)) for t in range(1, 5)])
    assert torch.equal(results["stm", None], results["kmn", 1e9])
    assert not torch.equal(results["stm", None], results["kmn", 1.0])


def test_stm_pads_black_and_stcn_with_the_mean():
    shown, pixels = frame(0, (50, 90)), {}
    for name in ("stm", "stcn"):
        method = small(name, inference={"short_side": 50})
        pixels[name] = method.features([shown])[0].frame[0]
        assert pixels[name].shape == (3, 64, 96)
        inside = pixels[name][:, 7:57, 3:93].permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)
        np.testing.assert_allclose(inside.numpy(), shown, atol=1e-3)
    assert (pixels["stcn"][:, :7] == 0).all()
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(pixels["stm"][:, 0, 0], black)


def test_padding_of_memorised_masks():
    """Predictions on the padding are 0 in STM's memory and stay in STCN's."""
    for name, blank in (("stm", True), ("stcn", False)):
        masks, size = [], (50, 90)
        method = small(name, inference={"short_side": 50, "memory_every": 1})
        memorise = method.network.memorise
        method.network.memorise = lambda frame, m, q, memorise=memorise, masks=masks: (
            masks.append(m) or memorise(frame, m, q)
        )
        state = method.start(frame(0, size), {1: box(8, 8, size=size)})
        method.step(state, frame(1, size))
        assert bool((masks[1][..., :7, :] == 0).all()) == blank
        assert (masks[1][..., 7:57, 3:93] > 0).any()


# Padding


def test_centred_padding_is_removed():
    options = InferenceOptions(short_side=480)
    geometry = Geometry.of((480, 854), options, multiple=16, centred=True)
    assert geometry.padded == (480, 864) and geometry.corner == (0, 5)
    for size in ((33, 97), (200, 121)):
        geometry = Geometry.of(size, InferenceOptions(short_side=min(size)), multiple=16, centred=True)
        x = torch.zeros(1, 1, *geometry.padded)
        image = torch.rand(size)
        x[(0, 0, *geometry.window)] = image
        assert torch.equal(geometry.restore(x)[0, 0], image)
        top, left = geometry.corner
        assert 0 <= geometry.padded[0] - size[0] - 2 * top <= 1 and 0 <= geometry.padded[1] - size[1] - 2 * left <= 1


# A channel for other objects that training never had


@pytest.mark.parametrize("backbone", ["convnet", "resnet", "efficientnet-lite0"])
def test_others_channel_of_static_stcn(backbone):
    out, methods = {}, {}
    for kind in ("none", "zeros", "orthogonal"):
        method = small("stcn", backbone=backbone, inference={"others_channel": kind})
        state = method.start(frame(0), {1: box(8, 8), 2: box(20, 50)})
        out[kind], methods[kind] = method.step(state, frame(1)), method
    torch.testing.assert_close(out["none"], out["zeros"], atol=1e-5, rtol=1e-4)
    assert not torch.equal(out["orthogonal"], out["none"])
    filters = methods["orthogonal"].network.memory_encoder.further.flatten(1)
    product = filters @ filters.t() if len(filters) < filters.shape[1] else filters.t() @ filters
    torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-5, rtol=0)
    assert len({tuple(method.state_dict()) for method in methods.values()}) == 1


def test_others_channel_is_for_encoders_that_lack_it():
    refused("others_channel", small, "stcn", inference={"others_channel": "zeros"}, others=True, backbone="resnet")
