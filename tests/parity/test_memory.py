"""STM and STCN (with a channel for other objects) at paper size compute what the authors' code computes."""

import numpy as np
import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.models.base import build_method
from hodor.models.checkpoints.releases import STCN, STM
from hodor.models.frames import MEAN, STD


@pytest.fixture(scope="module")
def case(request, read_case, recipe, filled):
    """Method with the recipe's weights, video in 0..255 (T, 3, H, W), labels (T, H, W), expected outputs."""
    name, expected = request.param, read_case(request.param)
    seed, height, width, objects, frames, every = (
        int(expected[key]) for key in ("seed", "height", "width", "objects", "frames", "mem_every")
    )
    settings = {"short_side": min(height, width), "memory_every": every}
    video = torch.from_numpy(recipe.image("video", (frames, 3, height, width), seed))
    if name == "stcn":
        settings["top_k"] = int(expected["top_k"])
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        video = video * std + mean
    else:
        video = torch.from_numpy(np.clip(0.2 * video.numpy() + 0.5, 0, 1)) * 255
    method = build_method(name, {"others": True} if name == "stcn" else {}, InferenceOptions(**settings)).eval()
    filled(method, {"stm": STM, "stcn": STCN}[name], seed)
    return method, video, recipe.discs(frames, objects, height, width), expected


@pytest.mark.parametrize("case", ["stm"], indirect=True)
def test_memory_and_first_logits(case, given_frames, binary, relative):
    method, video, labels, expected = case
    network = method.network
    frames, geometry = given_frames(method, video)
    with torch.no_grad():
        queries = method.features(frames[:2])
        masks = torch.zeros(1, int(expected["objects"]), *geometry.padded)
        masks[(..., *geometry.window)] = binary(labels[0], int(expected["objects"]))
        key, value = network.memorise(queries[0].frame, masks, None)
        assert relative(key, expected["memory_key"]) < 1e-4
        assert relative(value, expected["memory_value"]) < 1e-4
        logits = network.clip(torch.stack([q.frame for q in queries], 1), masks)[0]
        assert relative(logits[(..., *geometry.window)], expected["logit_frame1"]) < 1e-4


@pytest.mark.parametrize("case", ["stcn"], indirect=True)
def test_key_and_value_of_a_frame(case, recipe, binary, relative):
    method, _, labels, expected = case
    seed, height, width = (int(expected[key]) for key in ("seed", "height", "width"))
    frame = torch.from_numpy(recipe.image("video", (int(expected["frames"]), 3, height, width), seed))[:1]
    with torch.no_grad():
        query = method.network.query(frame)
        assert relative(query.key, expected["key"]) < 1e-4
        assert relative(query.value, expected["key_comp"]) < 1e-4
        _, value = method.network.memorise(frame, binary(labels[0], int(expected["objects"])), query)
        assert relative(value, expected["value"]) < 1e-4


@pytest.mark.parametrize("case", ["stm", "stcn"], indirect=True)
def test_inference(case, given_frames, run_video, relative):
    method, video, labels, expected = case
    frames, _ = given_frames(method, video)
    ours, probabilities = run_video(method, frames, labels, int(expected["objects"]))
    if "top_k" in expected:
        assert relative(probabilities[0], expected["probabilities_frame1"]) < 1e-4
    assert relative(probabilities[-1], expected["probabilities_last"]) < 1e-3
    assert (ours == expected["inference_labels"]).mean(axis=(1, 2)).min() >= 0.999


@pytest.mark.parametrize(("name", "millions"), [("stm", 38.93), ("stcn", 54.43)])
def test_paper_size(name, millions):
    """STCN without the channel of other objects."""
    parameters = sum(p.numel() for p in build_method(name, {}).parameters())
    assert round(parameters / 1e6, 2) == millions
