"""STM at paper size computes what the authors' code computes."""

import numpy as np
import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.models.base import build_method
from hodor.models.checkpoints.releases import STM


@pytest.fixture(scope="module")
def case(read_case, recipe, filled):
    """Method with the recipe's weights, video in 0..255 (T, 3, H, W), labels (T, H, W), expected outputs."""
    expected = read_case("stm")
    seed, height, width, objects, frames, every = (
        int(expected[key]) for key in ("seed", "height", "width", "objects", "frames", "mem_every")
    )
    options = InferenceOptions(short_side=min(height, width), memory_every=every)
    method = build_method("stm", {}, options).eval()
    filled(method, STM, seed)
    video = np.clip(0.2 * recipe.image("video", (frames, 3, height, width), seed) + 0.5, 0, 1)
    return method, torch.from_numpy(video) * 255, recipe.discs(frames, objects, height, width), expected


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


def test_inference(case, given_frames, run_video, relative):
    method, video, labels, expected = case
    frames, _ = given_frames(method, video)
    ours, probabilities = run_video(method, frames, labels, int(expected["objects"]))
    assert relative(probabilities[-1], expected["probabilities_last"]) < 1e-3
    assert (ours == expected["inference_labels"]).mean(axis=(1, 2)).min() >= 0.999


def test_paper_size(case):
    parameters = sum(p.numel() for p in case[0].parameters())
    assert round(parameters / 1e6, 2) == 38.93
