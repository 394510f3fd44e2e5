"""Segmenting videos with memory methods: schedule, objects that appear later, padding, settings."""

import numpy as np
import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.errors import HodorError
from hodor.models.frames import MEAN, STD, Geometry


def memories(method, video, frames, *, later=None):
    """Return frame t -> the memorised frames when it is segmented, for t from 1 on, and the state."""
    given = {1: video.box(8, 8)}
    state = method.start(video.frame(0), given)
    seen = {}
    for t in range(1, frames):
        seen[t] = state.bank.frames
        method.step(state, video.frame(t), (later or {}).get(t))
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
def test_frames_in_memory(memory_method, video, name, inference, expected):
    """By default every fifth frame, and the previous one for STM and KMN."""
    seen, _ = memories(memory_method(name, inference=inference), video(), max(expected) + 1)
    assert {frame: seen[frame] for frame in expected} == expected


def test_settings_of_inference_come_before_the_methods(memory_method):
    method = memory_method("kmn", inference={"top_k": 3, "kernel_sigma": 2.0})
    assert (method.top_k, method.kernel_sigma) == (3, 2.0)
    assert (memory_method("kmn").kernel_sigma, memory_method("stm").kernel_sigma) == (7.0, None)
    assert (memory_method("stcn").top_k, memory_method("stm").top_k) == (20, 0)
    assert memory_method("stcn", inference={"top_k": 0}).top_k == 0


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_a_frame_with_a_new_object_is_memorised_for_all(memory_method, video, name):
    v = video()
    seen, state = memories(memory_method(name), v, 14, later={7: {4: v.box(30, 60)}})
    assert state.ids == [1, 4] and state.bank.objects == 2
    kept = [t for t in seen[13] if t != 12 or name == "stcn"]
    assert kept == ([0, 5, 7, 12] if name == "stcn" else [0, 5, 7])
    first, late = (x for reader in state.bank.readers() for x in reader.values.values())
    cells = 4 * 6
    assert len(first) == len(state.bank.frames) * cells
    assert len(late) == len(first) - 2 * cells, "object 4 appears after the frames 0 and 5"


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_a_new_object_overwrites_its_pixels(memory_method, video, name):
    v, method = video(), memory_method(name)
    state = method.start(v.frame(0), {3: v.box(8, 8)})
    alone = method.step(state, v.frame(1))
    state = method.start(v.frame(0), {3: v.box(8, 8)})
    new = v.box(16, 16)
    p = method.step(state, v.frame(1), {2: new})
    assert state.ids == [3, 2] and p.shape == (3, 64, 96)
    assert (p[2].numpy() == new).all() and (p[:2, torch.from_numpy(new)] == 0).all()
    torch.testing.assert_close(p[:2, torch.from_numpy(~new)], alone[:, torch.from_numpy(~new)])


def test_an_object_without_a_pixel_is_not_followed(memory_method, video):
    v, method = video(), memory_method("stcn")
    empty = np.zeros(v.size, bool)
    state = method.start(v.frame(0), {1: v.box(8, 8), 2: empty})
    assert state.ids == [1]
    assert method.step(state, v.frame(1), {3: empty}).shape == (2, 64, 96) and state.ids == [1]
    for masks in ({}, {1: empty}):
        with pytest.raises(HodorError, match="large enough"):
            method.start(v.frame(0), masks)


def test_kmn_with_an_endless_kernel_is_stm(memory_method, video):
    results = {}
    for name, sigma in (("stm", None), ("kmn", 1e9), ("kmn", 1.0)):
        method, v = memory_method(name, inference={"kernel_sigma": sigma}), video()
        state = method.start(v.frame(0), {1: v.box(8, 8), 2: v.box(20, 50)})
        results[name, sigma] = torch.stack([method.step(state, v.frame(t)) for t in range(1, 5)])
    assert torch.equal(results["stm", None], results["kmn", 1e9])
    assert not torch.equal(results["stm", None], results["kmn", 1.0])


def test_stm_pads_black_and_stcn_with_the_mean(memory_method, video):
    v = video((50, 90))
    pixels = {}
    for name in ("stm", "stcn"):
        method = memory_method(name, inference={"short_side": 50})
        frame = method.features([v.frame(0)])[0].frame[0]
        assert frame.shape == (3, 64, 96)
        pixels[name] = frame
        shown = frame[:, 7:57, 3:93] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        np.testing.assert_allclose(shown.permute(1, 2, 0).numpy(), v.frame(0), atol=1e-3)
    assert (pixels["stcn"][:, :7] == 0).all()
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(pixels["stm"][:, 0, 0], black)


def test_padding_of_memorised_masks(memory_method, video):
    """Predictions on the padding are 0 in STM's memory and stay in STCN's."""
    for name, blank in (("stm", True), ("stcn", False)):
        v, masks = video((50, 90)), []
        method = memory_method(name, inference={"short_side": 50, "memory_every": 1})
        memorise = method.network.memorise
        method.network.memorise = lambda frame, m, q, memorise=memorise, masks=masks: (
            masks.append(m) or memorise(frame, m, q)
        )
        state = method.start(v.frame(0), {1: v.box(8, 8)})
        method.step(state, v.frame(1))
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
def test_others_channel_of_static_stcn(memory_method, video, backbone):
    v, out, methods = video(), {}, {}
    for kind in ("none", "zeros", "orthogonal"):
        method = memory_method("stcn", backbone=backbone, inference={"others_channel": kind})
        state = method.start(v.frame(0), {1: v.box(8, 8), 2: v.box(20, 50)})
        out[kind], methods[kind] = method.step(state, v.frame(1)), method
    torch.testing.assert_close(out["none"], out["zeros"], atol=1e-5, rtol=1e-4)
    assert not torch.equal(out["orthogonal"], out["none"])
    filters = methods["orthogonal"].network.memory_encoder.further.flatten(1)
    product = filters @ filters.t() if len(filters) < filters.shape[1] else filters.t() @ filters
    torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-5, rtol=0)
    assert len({tuple(method.state_dict()) for method in methods.values()}) == 1


def test_others_channel_is_for_encoders_that_lack_it(memory_method):
    with pytest.raises(HodorError, match="others_channel"):
        memory_method("stcn", inference={"others_channel": "zeros"}, others=True, backbone="resnet")
