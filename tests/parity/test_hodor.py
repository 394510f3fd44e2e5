"""The paper-size network computes what the authors' code computes, forward and in training."""

import numpy as np
import pytest
import torch

from hodor.config.stages import InferenceOptions
from hodor.models.checkpoints.releases import HODOR
from hodor.models.frames import split
from hodor.models.hodor.cycles import run_cycles
from hodor.models.hodor.decoder import History
from hodor.models.hodor.encoder import merge_backgrounds, reference_masks, resize
from hodor.models.hodor.method import Hodor
from hodor.models.losses import cross_entropy_and_dice


@pytest.fixture(scope="module")
def case(read_case, recipe, filled):
    """Network with the recipe's weights, frames (T, 3, H, W), labels (T, H, W), expected outputs."""
    expected = read_case("hodor")
    seed, height, width, objects, frames = (
        int(expected[key]) for key in ("seed", "height", "width", "objects", "frames")
    )
    window = int(expected["temporal_window"])
    method = Hodor({}, InferenceOptions(short_side=min(height, width), temporal_window=window)).eval()
    filled(method, HODOR, seed)
    video = torch.from_numpy(recipe.image("video", (frames, 3, height, width), seed))
    labels = recipe.discs(frames, objects, height, width)
    return method, video, labels, expected


def test_features_descriptors_and_logits(case, binary, relative):
    method, video, labels, expected = case
    network, objects = method.network, int(expected["objects"])
    with torch.no_grad():
        features = network.features(video[:2])
        assert relative(features.stride_4[:1], expected["features_4"]) < 1e-4
        assert relative(features.stride_8[:1], expected["features_8"]) < 1e-4
        masks = reference_masks(binary(labels[0], objects), network.grid)
        first, second = split(features, 1)
        descriptors = network.encode(first, *masks)
        assert relative(descriptors[0], expected["descriptors_bg"]) < 1e-4
        assert relative(descriptors[1], expected["descriptors_fg"]) < 1e-4
        logits = network.decode(second, History.of([descriptors]))
        assert relative(logits, expected["logits_frame1"]) < 1e-4


@pytest.mark.parametrize("key", ["inference_labels_all0", "inference_labels"])
def test_inference(case, key, monkeypatch):
    """A whole video, with all objects given at frame 0 or each at its frame in `first_frames`."""
    method, video, labels, expected = case
    objects = int(expected["objects"])
    with torch.no_grad():
        maps = split(method.network.features(video), 1)
    # The cases hold normalised frames; a frame here is its own number, and its features are looked up.
    monkeypatch.setattr(method, "features", lambda frames: [maps[f[0, 0, 0]] for f in frames])
    frames = [np.full((*labels.shape[1:], 3), t, np.uint8) for t in range(len(video))]
    starts = np.zeros(objects, int) if key.endswith("all0") else expected["first_frames"]
    first = {i: int(start) for i, start in enumerate(starts, 1)}
    assert 0 in first.values()
    given = {t: {i: labels[t] == i for i in first if first[i] == t} for t in set(first.values())}
    state = method.start(frames[0], given[0])
    for t in range(1, len(video)):
        probabilities = method.step(state, frames[t], given.get(t))
        ours = np.array([0, *state.ids])[probabilities.argmax(0).numpy()]
        assert (ours == expected[key][t]).mean() >= 0.999, f"frame {t}"


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("iteration", [0, 1])
def test_training_step(case, iteration, detach, binary, relative):
    method, video, labels, expected = case
    network, objects = method.network, int(expected["objects"])
    prefix = f"train_it{iteration}_{'detached' if detach else 'attached'}_"
    network.zero_grad()
    features = split(network.features(video[:3]), 1)
    visible = [torch.ones(1, objects, dtype=torch.bool)] * 3
    predictions = run_cycles(network, features, binary(labels[0], objects), visible, iteration, detach=detach)
    assert [p.frame for p in predictions] == expected[prefix + "frames"].tolist()
    logits = [resize(merge_backgrounds(p.logits, network.backgrounds), 4) for p in predictions]
    magnitude = torch.stack([x.abs().mean() for x in logits])
    assert relative(magnitude, expected[prefix + "predictions_mean_abs"]) < 1e-4
    targets = [torch.from_numpy(labels[p.frame])[None] for p in predictions]
    cross_entropy, dice = cross_entropy_and_dice(logits, targets)
    assert cross_entropy.item() == pytest.approx(float(expected[prefix + "ce"]), rel=1e-5)
    assert dice.item() == pytest.approx(float(expected[prefix + "dice"]), rel=1e-5)
    (cross_entropy + dice).backward()
    gradients = {HODOR.rename(n): p.grad for n, p in network.named_parameters() if p.grad is not None}
    norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt().item()
    assert norm == pytest.approx(float(expected[prefix + "grad_total_norm"]), rel=1e-3)
    named = [key for key in expected if key.startswith(prefix + "grad_") and not key.endswith("total_norm")]
    assert named
    for key in named:
        bound = 2e-2 if key.endswith("conv_offsets.bias") else 5e-3
        assert relative(gradients[key[len(prefix + "grad_") :]], expected[key]) < bound, key
