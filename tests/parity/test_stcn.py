"""STCN at paper size, with a channel for other objects, computes what the authors' code computes."""

import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.models.base import build_method
from hodor.models.checkpoints.releases import STCN
from hodor.models.frames import MEAN, STD


@pytest.fixture(scope="module")
def case(read_case, recipe, filled):
    """Method with the recipe's weights, video in 0..255 (T, 3, H, W), labels (T, H, W), expected outputs."""
    expected = read_case("stcn")
    seed, height, width, objects, frames, every, top_k = (
        int(expected[key]) for key in ("seed", "height", "width", "objects", "frames", "mem_every", "top_k")
    )
    options = InferenceOptions(short_side=min(height, width), memory_every=every, top_k=top_k)
    method = build_method("stcn", {"others": True}, options).eval()
    filled(method, STCN, seed)
    video = torch.from_numpy(recipe.image("video", (frames, 3, height, width), seed))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return method, video * std + mean, recipe.discs(frames, objects, height, width), expected


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


def test_inference(case, given_frames, run_video, relative):
    method, video, labels, expected = case
    frames, _ = given_frames(method, video)
    ours, probabilities = run_video(method, frames, labels, int(expected["objects"]))
    assert relative(probabilities[0], expected["probabilities_frame1"]) < 1e-4
    assert relative(probabilities[-1], expected["probabilities_last"]) < 1e-3
    assert (ours == expected["inference_labels"]).mean(axis=(1, 2)).min() >= 0.999


def test_paper_size():
    """Static STCN, without the channel of other objects."""
    parameters = sum(p.numel() for p in build_method("stcn", {}).parameters())
    assert round(parameters / 1e6, 2) == 54.43
