"""The interface of methods, tested on all of them. A new method needs one line in `SMALL`."""

import numpy as np
import pytest
import torch

from hodor.config.methods import METHODS
from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.inference.segment import segment_video
from hodor.models.base import build_method, load_model, save_model
from tests import narrow
from tests.narrow import TWO_LAYERS as HODOR
from tests.refused import refused
from tests.videos import boxes, frame, save_video

MEMORY = narrow.MEMORY | {"value_dim": 64}
DMN_AOA = narrow.DMN_AOA | {"dim": 32}
# Method, name of the variant, options of a small network.
SMALL = [
    ("copy", "", {}),
    *(("hodor", attention, HODOR | {"attention": attention}) for attention in ("soft", "hard", "none")),
    ("stm", "", MEMORY),
    ("stm", "one encoder", MEMORY | {"one_encoder": True}),
    ("kmn", "", MEMORY),
    ("stcn", "", MEMORY),
    ("dmn-aoa", "", DMN_AOA),
]


def test_every_method_is_tested():
    assert {name for name, _, _ in SMALL} == set(METHODS)


@pytest.fixture(params=SMALL, ids=["-".join(filter(None, case[:2])) for case in SMALL])
def method(request):
    name, _, options = request.param
    torch.manual_seed(0)
    return build_method(name, options, InferenceOptions(short_side=64, feature_batch=2)).eval()


def run(method, frames, given):
    """Return probabilities of the frames after the first, and the state; `given` maps a frame's number to its new masks."""
    state = method.start(frames[0], given[0])
    out = [method.step(state, image, given.get(t)) for t, image in enumerate(frames[1:], 1)]
    return out, state


def check(probabilities, objects: int, size) -> None:
    assert probabilities.shape == (objects + 1, *size)
    assert torch.isfinite(probabilities).all()
    assert probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-5
    assert probabilities.sum(0).max() <= 1 + 1e-4


@pytest.mark.parametrize(("size", "objects"), [((64, 96), 1), ((51, 83), 10), ((97, 66), 2)])
def test_shapes(method, size, objects):
    out, state = run(method, [frame(t, size) for t in range(3)], {0: boxes(*range(1, objects + 1), size=size)})
    assert state.ids == list(range(1, objects + 1))
    for probabilities in out:
        check(probabilities, objects, size)


def test_an_object_that_appears_later(method):
    masks = boxes(1, 2, 3)
    out, state = run(method, [frame(t) for t in range(5)], {0: {2: masks[2]}, 2: {3: masks[3]}, 3: {1: masks[1]}})
    assert state.ids == [2, 3, 1]
    for probabilities, objects in zip(out, (1, 2, 3, 3), strict=True):
        check(probabilities, objects, (64, 96))
    assert (out[1].argmax(0).numpy()[masks[3]] == 2).all(), "its mask on its first frame is the given one"


def test_an_object_that_vanishes(method):
    blank = np.full((64, 96, 3), 128, np.uint8)
    out, state = run(method, [frame(0), blank, blank, blank, frame(0)], {0: boxes(1, 2)})
    assert state.ids == [1, 2]
    for probabilities in out:
        check(probabilities, 2, (64, 96))


def test_an_empty_mask(method):
    empty = np.zeros((64, 96), bool)
    out, state = run(method, [frame(t) for t in range(3)], {0: {1: boxes(1)[1], 2: empty}, 1: {3: empty}})
    assert 1 in state.ids
    for probabilities in out:
        assert torch.isfinite(probabilities).all() and len(probabilities) <= 4
    assert all((out[-1].argmax(0) != state.ids.index(i) + 1).all() for i in state.ids if i != 1)
    try:
        state = method.start(frame(0), {1: empty})
    except HodorError:
        return
    assert torch.isfinite(method.step(state, frame(1))).all()


def test_masks_of_another_size(method):
    refused("size", method.start, frame(0), {1: np.ones((64, 95), bool)})
    state = method.start(frame(0), boxes(1))
    refused("size", method.step, state, frame(1), {2: np.ones((32, 96), bool)})


def test_object_ids(method):
    for object_id in (0, 255):
        refused("ids are 1 to 254", method.start, frame(0), {object_id: boxes(1)[1]})


def test_a_saved_model_loads(method, request, tmp_path):
    path, name = tmp_path / "model.safetensors", request.node.callspec.params["method"][0]
    options = method.options.model_dump(mode="json") if METHODS[name].options else {}
    save_model(path, method, name=name, options=options)
    loaded_name, loaded = load_model(path, method.inference)
    assert loaded_name == name and not loaded.training
    frames, given = [frame(0), frame(1)], {0: boxes(1, 2)}
    assert torch.equal(run(loaded, frames, given)[0][0], run(method, frames, given)[0][0])


def test_determinism(method):
    first, second = (run(method, [frame(t) for t in range(4)], {0: boxes(1, 2)})[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_features_given_ahead_change_nothing(method):
    frames = [frame(t) for t in range(3)]
    plain, _ = run(method, frames, {0: boxes(1, 2)})
    features, state = method.features(frames), method.start(frames[0], boxes(1, 2))
    for t in (1, 2):
        torch.testing.assert_close(method.step(state, frames[t], None, features[t]), plain[t - 1], atol=1e-5, rtol=1e-4)


def clip(objects: int = 2) -> Clip:
    frames = torch.stack([torch.from_numpy(frame(t)).permute(2, 0, 1) for t in range(3)])
    labels = np.zeros((64, 96), np.uint8)
    for object_id, mask in boxes(*range(1, objects + 1)).items():
        labels[mask] = object_id
    labels = torch.from_numpy(labels).expand(2, 3, -1, -1).contiguous()
    valid = torch.ones(2, 3, 64, 96, dtype=torch.bool)
    return Clip(frames.expand(2, -1, -1, -1, -1).contiguous(), labels, valid, objects, (True, True, True))


@pytest.mark.parametrize("objects", [1, 3])
def test_every_parameter_learns(method, objects):
    method.train()
    if not list(method.parameters()):
        with pytest.raises(HodorError):
            method.loss(clip(), 0)
        return
    values = method.loss(clip(objects), 0)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in values.values())
    values["loss"].backward()
    learning = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in learning.items() if p.grad is None or p.grad.abs().max() == 0] == []
    assert {id(p) for p in method.backbone_parameters()} <= {id(p) for p in method.parameters()}


def test_a_training_step_runs_without_content(method):
    """The meta device of torch, on which costs are counted."""
    if list(method.parameters()):
        loss = method.to("meta").train().loss(clip().to("meta"), 0)["loss"]
        assert loss.is_meta and loss.requires_grad


def test_it_learns_a_clip_and_half_precision_agrees(method):
    """It is trained for a few steps first: rounding decides the labels of an untrained network."""
    data = clip(2)
    if list(method.parameters()):
        method.train()
        optimiser, losses = torch.optim.Adam(method.parameters(), lr=2e-3), []
        for step in range(20):
            optimiser.zero_grad()
            loss = method.loss(data, step)["loss"]
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert min(losses[-3:]) < 0.6 * losses[0]
        method.eval()
    frames = list(data.frames[0].permute(0, 2, 3, 1).numpy())
    full, _ = run(method, frames, {0: boxes(1, 2)})
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = run(method, frames, {0: boxes(1, 2)})
    for a, b in zip(full, half, strict=True):
        check(b, 2, (64, 96))
        assert (a.argmax(0) == b.argmax(0)).float().mean() > 0.95


def test_a_video_of_one_frame(method, tmp_path):
    ((name, labels),) = segment_video(method, save_video(tmp_path, 1, {1: 0, 2: 0}, (51, 83)))
    assert name == "00000" and labels.dtype == np.uint8
    assert (labels == sum(i * mask for i, mask in boxes(1, 2, size=(51, 83)).items())).all()


def test_a_whole_video(method, tmp_path):
    """Nothing on frame 0, objects on frames 1 and 3, ids with a gap."""
    labels = dict(segment_video(method, save_video(tmp_path, 7, {4: 1, 9: 3}, (51, 83))))
    masks = boxes(4, 9, size=(51, 83))
    assert list(labels) == [f"{t:05d}" for t in range(7)] and not labels["00000"].any()
    assert all(each.shape == (51, 83) and each.dtype == np.uint8 for each in labels.values())
    assert (labels["00001"][masks[4]] == 4).all() and (labels["00003"][masks[9]] == 9).all()
    for t in range(1, 7):
        assert set(np.unique(labels[f"{t:05d}"])) <= ({0, 4} if t < 3 else {0, 4, 9})
