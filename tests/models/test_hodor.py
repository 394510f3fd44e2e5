"""HODOR's network, cycles and inference on a narrow instance."""

import pytest
import torch

from hodor.config.methods import HODOROptions
from hodor.models.base import save_model
from hodor.models.frames import split
from hodor.models.hodor.cycles import run_cycles
from hodor.models.hodor.decoder import DescriptorAttention, History
from hodor.models.hodor.encoder import initial_descriptors, patch_grid, predicted_masks
from hodor.models.hodor.network import Network
from tests.narrow import TWO_LAYERS, small
from tests.refused import refused
from tests.videos import box, frame


def narrow(**options):
    """Return a narrow network with a window of three frames."""
    return small("hodor", inference={"temporal_window": 3} | options.pop("inference", {}), **options)


def test_paper_size_has_the_published_number_of_parameters():
    """As in specification section 12, which includes parameters that the release never uses."""
    network = Network(HODOROptions())
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in network.named_children()}
    dead = {"pyramid": 2 * (256 * 256 * 9 + 256), "norms": 3 * 512, "decoder": 256 * 256 + 512}
    assert count["backbone"] == 27_520_698
    assert count["pyramid"] + dead["pyramid"] == 2_729_984
    assert count["norms"] + dead["norms"] == 2_560
    assert count["encoder"] == 5_269_800
    assert count["decoder"] + dead["decoder"] == 6_568_026


@pytest.mark.parametrize(
    ("attention", "detach", "reached"),
    [("soft", False, True), ("soft", True, False), ("hard", False, False), ("none", False, False)],
)
def test_unlabelled_frames_learn_through_attached_soft_masks_alone(attention, detach, reached, squares):
    """In sparse clips the loss is of frame 0 alone; predictions 2, 4 and 5 of 6 are of the other frames."""
    network = narrow(attention=attention).network
    features = split(network.features(torch.randn(3, 3, 64, 96)), 1)
    data = squares(batch=1)
    reference = torch.stack([data.labels[:, 0] == 1, data.labels[:, 0] == 2], 1).float()
    visible = [torch.ones(1, 2, dtype=torch.bool)] * 3
    predictions = run_cycles(network, features, reference, visible, 0, detach=detach)
    for prediction in predictions:
        prediction.logits.retain_grad()
    sum(p.logits.square().mean() for p in predictions if p.frame == 0).backward()
    for number in (1, 3, 4):
        gradient = predictions[number].logits.grad
        if reached:
            assert gradient.abs().max() > 0
        else:
            assert gradient is None or gradient.abs().max() == 0


def test_sparse_loss_ignores_frames_without_annotation(squares):
    data, other = (squares(annotated=(True, False, False)) for _ in range(2))
    other.labels[:, 1:] = 1  # must not matter
    method = narrow().train()
    assert torch.equal(method.loss(data, 0)["loss"], method.loss(other, 0)["loss"])
    dense = squares()
    assert not torch.equal(method.loss(dense, 0)["loss"], method.loss(data, 0)["loss"])


# Masks


def test_patches_cover_the_frame_once_and_the_last_includes_the_remainder():
    grid = patch_grid(10, 11, (3, 3), torch.device("cpu"))
    assert grid.shape == (9, 10, 11) and (grid.sum(0) == 1).all()
    assert grid[0].sum() == 9 and grid[8].sum() == 4 * 5


def test_first_descriptors_are_means_peaks_and_zeros():
    pixels = torch.arange(8.0).view(1, 4, 2)
    masks = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.45, 0.3]]])
    out = initial_descriptors(pixels, masks, backgrounds=1)
    assert out[0].tolist() == [[0, 0], [1, 2], [4, 5]]  # empty background, mean of two, peak at pixel 2


def encoded(**options) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the descriptors of a random map and a fixed mask: of nine background patches and one object."""
    network = narrow(**options).network
    torch.manual_seed(1)
    objects = torch.zeros(1, 1, 8, 12)
    objects[:, :, 2:6, 2:6] = 0.9
    return network.encoder(torch.randn(1, 32, 8, 12), *predicted_masks(objects, (3, 3)))


@pytest.mark.parametrize(
    ("option", "modes"),
    [
        ({"mask_threshold": 0.95}, {"hard"}),
        ({"empty_mask": "peak", "mask_threshold": 1.0}, {"hard"}),
        ({"mask_backgrounds": False}, {"hard", "soft"}),
        ({"masked_initialisation": False}, {"none", "hard", "soft"}),
        ({"alpha_inside_scale": True}, {"soft"}),
    ],
)
def test_open_decisions_change_the_variants_that_they_concern(option, modes):
    base = {"mask_threshold": 1.0} if "empty_mask" in option else {}
    for mode in ("none", "hard", "soft"):
        ours, theirs = (torch.cat(encoded(attention=mode, **o), 1) for o in (base, option))
        assert torch.allclose(ours, theirs) == (mode not in modes), mode


def test_alpha_set_to_zero_is_the_same_weights_without_masking():
    """Descriptors are still initialised with their masks."""
    soft = narrow(attention="soft").network.encoder
    weights = soft.state_dict()
    zero, none = (narrow(**o).network.encoder for o in ({"zero_alpha": True}, {"attention": "none"}))
    zero.load_state_dict(weights)
    none.load_state_dict({name: value for name, value in weights.items() if not name.endswith("alpha")})
    torch.manual_seed(1)
    features, objects = torch.randn(1, 32, 8, 12), torch.zeros(1, 1, 8, 12)
    objects[:, :, 2:6, 2:6] = 0.9
    masks = predicted_masks(objects, (3, 3))
    ours, expected, full = (torch.cat(encoder(features, *masks), 1) for encoder in (zero, none, soft))
    assert torch.allclose(ours, expected, atol=1e-6) and (ours - full).abs().max() > 0.01
    with pytest.raises(ValueError, match="hard masking has no alpha"):
        HODOROptions(attention="hard", zero_alpha=True)


# Inference


@torch.no_grad()
def test_history_is_the_window_and_may_keep_the_first_frame():
    for keep, expected in ((False, 3), (True, 4)):
        method = narrow(inference={"keep_first": keep})
        state = method.start(frame(0), {1: box(4, 4)})
        first = state.history[0]
        for t in range(1, 7):
            method.step(state, frame(t))
            assert len(state.history) <= expected
        assert len(state.history) == expected
        assert any(entry is first for entry in state.history) == keep


@torch.no_grad()
def test_the_window_decides_what_a_frame_is_decoded_with():
    """Windows of 2 and 5 frames decode frame 2 alike and frame 4 differently."""

    def last(window: int, length: int) -> torch.Tensor:
        method = narrow(inference={"temporal_window": window})
        state = method.start(frame(0), {1: box(4, 4)})
        before = None
        for t in range(1, length):
            before = method.step(state, frame(t))
        return before

    assert torch.equal(last(2, 3), last(5, 3))
    assert not torch.equal(last(2, 5), last(5, 5))


@torch.no_grad()
def test_objects_too_small_to_see_are_left_out_and_none_left_is_an_error():
    method = narrow()
    dot = box(10, 10, side=1)
    state = method.start(frame(0), {1: box(4, 40), 2: dot})
    assert state.ids == [1]
    refused("large enough", method.start, frame(0), {2: dot})


def test_equal_weights_make_equal_files(tmp_path):
    method = narrow()
    for name in "abcdefgh":
        save_model(tmp_path / name, method, name="hodor", options=TWO_LAYERS)
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


def test_padding_a_history_changes_nothing():
    network = narrow().network
    history = History(torch.randn(1, 2, 3, 32), torch.randn(1, 9, 3, 32))
    longer = history.padded(5)
    assert longer.objects.shape == (1, 2, 5, 32) and longer.valid.sum() == 3 * 11
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 64, 96))
        torch.testing.assert_close(network.decode(features, longer), network.decode(features, history))


def test_attention_to_descriptors_is_the_same_without_dropout_in_training_and_evaluation():
    """A dropout that drops nothing uses the explicit form."""
    torch.manual_seed(0)
    layer = DescriptorAttention(32, 8, dropout=1e-12)
    history = History(torch.randn(1, 2, 3, 32), torch.randn(1, 9, 3, 32)).padded(4)
    inputs = torch.randn(1, 20, 32), history, (torch.randn(32), torch.randn(9, 32))
    torch.testing.assert_close(layer.train()(*inputs), layer.eval()(*inputs))


@pytest.mark.long
@torch.no_grad()
def test_compiled_decoding_changes_nothing():
    def run(**options: bool) -> list[torch.Tensor]:
        method = narrow(inference={"temporal_window": 2, **options})
        state = method.start(frame(0), {1: box(4, 4)})
        given = [None, {2: box(30, 60)}, None]
        return [method.step(state, frame(t), new) for t, new in enumerate(given, 1)]

    for a, b in zip(run(compile=True), run(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)
