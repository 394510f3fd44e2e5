"""DMN+AOA: regions, alignment, templates, training and videos."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from hodor.models.backbones.resnet import ResNet
from hodor.models.base import build_method
from hodor.models.dmn_aoa import Alignment
from hodor.models.regions import enlarge, mask_regions, paste, roi_align, tight_boxes
from tests.narrow import small
from tests.videos import box, frame

# Regions


def test_boxes_of_masks():
    masks = torch.zeros(2, 2, 20, 40)
    masks[0, 0, 5:10, 8:20] = 0.51
    masks[0, 1, 19, 39] = 1
    masks[1, 0] = 0.5
    masks[1, 1] = 1
    boxes, found = tight_boxes(masks)
    assert found.tolist() == [[True, True], [False, True]]
    expected = [[[0.2, 0.25, 0.5, 0.5], [0.975, 0.95, 1, 1]], [[0, 0, 1, 1], [0, 0, 1, 1]]]
    torch.testing.assert_close(boxes, torch.tensor(expected))


def test_a_shifted_box_still_holds_the_old_one():
    corner, side = torch.rand(5, 7, 2) * 0.5, torch.rand(5, 7, 2) * 0.5
    boxes = torch.cat([corner, corner + side], -1)
    scale = 1.5 + 0.5 * torch.rand(5, 7, 1)
    for shift in (torch.ones(5, 7, 2), -torch.ones(5, 7, 2)):
        out = enlarge(boxes, scale, (0.0, 0.0), shift)
        assert (out[..., :2] <= boxes[..., :2] + 1e-6).all() and (out[..., 2:] >= boxes[..., 2:] - 1e-6).all()
        near = out[..., :2] - boxes[..., :2] if shift[0, 0, 0] > 0 else out[..., 2:] - boxes[..., 2:]
        torch.testing.assert_close(near, torch.zeros_like(near), atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [1, 3])
def test_roi_align_is_the_mean_of_bilinear_samples(samples):
    """Values of a map are at the middles of its cells; it is 0 outside."""
    maps, size = torch.rand(2, 3, 7, 9), 4
    boxes = torch.tensor([[[0.1, 0.2, 0.55, 0.9], [0.5, 0.5, 0.6, 0.6]], [[0, 0, 1, 1], [-0.2, 0.3, 0.4, 1.3]]])
    got = roi_align(maps, boxes, size, samples)
    assert got.shape == (2, 2, 3, size, size)
    places = (np.arange(size * samples) + 0.5) / (size * samples)
    for b, k in np.ndindex(2, 2):
        left, top, right, bottom = (boxes[b, k] * torch.tensor([9, 7, 9, 7])).tolist()
        y, x = top + places * (bottom - top) - 0.5, left + places * (right - left) - 0.5
        grid = np.meshgrid(y, x, indexing="ij")
        read = map_coordinates(maps[b, 1].numpy(), grid, order=1, mode="grid-constant")
        expected = read.reshape(size, samples, size, samples).mean((1, 3))
        np.testing.assert_allclose(got[b, k, 1].numpy(), expected, atol=1e-5)


def test_each_mask_is_read_in_its_own_box():
    masks = torch.zeros(2, 2, 16, 16)
    masks[0, 0, :8], masks[0, 1, 8:], masks[1, 1, :, :4] = 1, 1, 1
    boxes = torch.tensor([0.0, 0.0, 1.0, 0.5]).expand(2, 2, 4)
    inside = mask_regions(masks, boxes, 2, 4)
    assert inside.shape == (2, 2, 1, 2, 2)
    assert inside.flatten(2).mean(2).tolist() == [[1, 0], [0, 0.25]]


def test_paste_inverts_roi_align():
    y, x = torch.meshgrid(torch.linspace(0, 3, 40), torch.linspace(0, 3, 60), indexing="ij")
    image = (torch.sin(x + 1) * torch.cos(y)).view(1, 1, 40, 60).expand(1, 2, -1, -1)
    boxes = torch.tensor([[[0.2, 0.25, 0.7, 0.75], [-0.25, 0.5, 0.25, 1.0]]])
    regions = mask_regions(image, boxes, 64, 1).squeeze(2)
    out = paste(regions, boxes, (40, 60))
    assert out.shape == (1, 2, 40, 60)
    torch.testing.assert_close(out[0, 0, 10:30, 12:42], image[0, 0, 10:30, 12:42], atol=0.02, rtol=0)
    torch.testing.assert_close(out[0, 1, 21:39, 1:14], image[0, 1, 21:39, 1:14], atol=0.02, rtol=0)
    outside = torch.ones(40, 60, dtype=torch.bool)
    outside[10:30, 12:42] = False
    assert (out[0, 0, outside] == 0).all()


# Alignment


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 2)])
def test_alignment_recovers_a_translation(local, down, right):
    size = 12
    align = Alignment(size)
    with torch.no_grad():
        align.log_sharpness.fill_(math.log(200))
    key = torch.randn(1, 64, size, size)
    template = torch.rand(1, 3, size, size)
    moved = torch.roll(key, (down, right), (2, 3))  # cell (y, x) shows what the template has at (y - down, x - right)
    offsets = align.offsets(moved, key, torch.tensor([local]))[0] * size
    aligned = align(moved, key, template, torch.tensor([local]))
    expected = torch.roll(template, (down, right), (2, 3))
    inner = (slice(3, -3), slice(3, -3))
    torch.testing.assert_close(offsets[inner][..., 0], torch.full((6, 6), -float(right)), atol=1e-2, rtol=0)
    torch.testing.assert_close(offsets[inner][..., 1], torch.full((6, 6), -float(down)), atol=1e-2, rtol=0)
    torch.testing.assert_close(aligned[(..., *inner)], expected[(..., *inner)], atol=1e-2, rtol=0)


def test_without_a_match_a_local_cell_stays_and_another_sees_the_middle():
    align = Alignment(8)
    with torch.no_grad():
        align.log_reach.fill_(math.log(0.02))
    flat = torch.ones(2, 4, 8, 8)
    near, far = align.offsets(flat, flat, torch.tensor([True, False]))
    torch.testing.assert_close(near, torch.zeros(8, 8, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(far + align.positions.view(8, 8, 2), torch.full((8, 8, 2), 0.5))


# Templates


def test_an_empty_mask_leaves_the_template_and_searches_everywhere():
    network = small("dmn-aoa").network
    with torch.no_grad():
        maps = network.query(torch.randn(1, 3, 64, 96))
        masks = torch.zeros(1, 2, 64, 96)
        masks[0, 0, 10:30, 20:50] = masks[0, 1, 40:50, 60:70] = 1
        templates = network.start(maps, masks)
        regions = network.regions(templates, (64, 96))
        assert regions.local.all()
        _, aligned = network.segment(maps, templates, regions)
        masks[0, 1] = 0
        after = network.update(maps, templates, regions, aligned, masks)
        assert after.found.tolist() == [[True, False]]
        assert torch.equal(after.dynamic[1], templates.dynamic[1])
        assert not torch.allclose(after.dynamic[0], templates.dynamic[0])
        assert after.first is templates.first
        regions = network.regions(after, (64, 96))
        assert regions.boxes[0, 1].tolist() == [0, 0, 1, 1] and regions.local.tolist() == [[True, False]]


def test_an_unchanging_frame_keeps_the_geometry_of_its_template():
    """The state of the memory is the old template, moved from the region to the new mask's."""
    network = small("dmn-aoa").network
    masks = torch.zeros(1, 1, 64, 96)
    masks[0, 0, 16:40, 24:56] = 1
    states = []
    network.memory.forward = lambda state, x: states.append(state) or state
    with torch.no_grad():
        maps = network.query(torch.randn(1, 3, 64, 96))
        templates = network.start(maps, masks)
        regions = network.regions(templates, (64, 96))
        ramp = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 16, 6, 6)
        network.update(maps, templates, regions, ramp, masks)
        network.update(maps, templates, regions, ramp, masks.roll(8, 3))
    torch.testing.assert_close(states[0], ramp)
    step = 8 / 96 / (regions.boxes[0, 0, 2] - regions.boxes[0, 0, 0]) * 6
    torch.testing.assert_close(states[1][..., :4], ramp[..., :4] + step)


# Training


def test_training_regions_hold_the_object():
    network = small("dmn-aoa", training_lost=0.25).network
    masks = torch.zeros(8, 2, 64, 96)
    masks[:, 0, 10:40, 20:60] = 1
    templates = network.start(network.query(torch.zeros(8, 3, 64, 96)), masks)
    targets = torch.zeros(8, 2, 64, 96)
    targets[:, 0, 30:50, 50:80] = 1
    torch.manual_seed(0)
    regions = [network.training_regions(templates, targets, torch.rand(4, 8, 2)) for _ in range(30)]
    boxes, local = (torch.cat([getattr(r, name)[:, 0] for r in regions]) for name in ("boxes", "local"))
    assert local.float().mean().item() == pytest.approx(0.75, abs=0.08)
    assert (boxes[~local] == torch.tensor([0.0, 0, 1, 1])).all()
    boxes = boxes[local] * torch.tensor([96, 64, 96, 64])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert width.min() >= 1.5 * 30 - 1e-3 and width.max() <= 2 * 30 + 1e-3 and width.max() - width.min() > 12
    assert height.min() >= 32 - 1e-3 and height.max() <= 40 + 1e-3
    assert (boxes[:, 0] < 50).all() and (boxes[:, 2] > 80).all()
    assert ((boxes[:, 0] + boxes[:, 2]) / 2 - 65).abs().max() > 3, "regions are shifted"
    never = torch.cat([r.boxes[:, 1] for r in regions])
    assert (never == torch.tensor([0.0, 0, 1, 1])).all(), "an object that never appeared is searched in the whole frame"
    gone = network.training_regions(templates, torch.zeros(8, 2, 64, 96), torch.rand(4, 8, 2))
    around = gone.boxes[gone.local]
    assert len(around) and (around[:, 0] * 96 < 20).all() and (around[:, 3] * 64 > 40).all(), (
        "the region is around the last mask"
    )
    assert (around[:, 2] - around[:, 0] <= 2 * 40 / 96 + 1e-5).all()


# Videos


def test_objects_follow_their_own_templates():
    method = small("dmn-aoa")
    state = method.start(frame(0), {3: box(8, 8)})
    method.step(state, frame(1), {2: box(30, 60)})
    assert state.ids == [3, 2] and state.templates.first.shape == (2, 16, 6, 6)
    found = state.templates.boxes[0, 1] * torch.tensor([96, 64, 96, 64])
    torch.testing.assert_close(found, torch.tensor([60.0, 30, 84, 54]))
    fresh = method.start(frame(1), {2: box(30, 60)})
    torch.testing.assert_close(state.templates.first[1:], fresh.templates.first)
    torch.testing.assert_close(state.templates.dynamic[1:], fresh.templates.first)


def test_templates_are_updated_with_predictions_without_the_pixels_of_a_new_object():
    method, given = small("dmn-aoa"), []
    update = method.network.update
    method.network.update = lambda *inputs: given.append(inputs[-1]) or update(*inputs)
    state = method.start(frame(0), {1: box(8, 8)})
    p = method.step(state, frame(1), {2: box(16, 16)})
    assert torch.equal(given[0], p[None, 1:2]) and (given[0] > 0).any()
    assert (given[0][0, 0].numpy()[box(16, 16)] == 0).all()


# Sizes and settings


def test_published_kind_of_backbone_and_size():
    with torch.device("meta"):
        method = build_method("dmn-aoa", {})
    assert sum(p.numel() for p in method.parameters()) / 1e6 == pytest.approx(32.41, abs=0.005)
    assert isinstance(method.network.encoder, ResNet) and method.network.encoder.kind == "resnet50"
    assert {id(p) for p in method.backbone_parameters()} == {id(p) for p in method.network.encoder.parameters()}
