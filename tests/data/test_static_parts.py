"""The parts of static-image clips: Hide-and-Seek, thin-plate splines, colour jitter, warps at any positions."""

import cv2
import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from hodor.config.stages import HideAndSeek
from hodor.data import warps
from hodor.data.augment import turn_hue
from hodor.data.batches import Sample
from hodor.data.hide_and_seek import hide, hiding_probability
from hodor.data.jitter import Strength, greyscale, jitter
from hodor.data.thin_plate import POINTS, random_points, source_positions

# Hide-and-Seek


def sample(side=48, frames=3) -> Sample:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (frames, side, side)).astype(np.uint8)
    labels[:, 0] = 255
    valid = np.ones((frames, side, side), bool)
    valid[:, :, -5:] = False
    return Sample(rng.integers(1, 256, (frames, side, side, 3), dtype=np.uint8), labels, valid, (True,) * frames)


def test_nothing_is_hidden_with_probability_0_and_all_with_1():
    whole = sample()
    same = hide(whole, HideAndSeek(), 0.0, np.random.default_rng(0))
    for name in ("frames", "labels", "valid"):
        assert np.array_equal(getattr(same, name), getattr(whole, name))
    nothing = hide(whole, HideAndSeek(), 1.0, np.random.default_rng(0))
    assert not nothing.valid.any() and not nothing.frames.any() and not nothing.labels.any()
    assert nothing.annotated == whole.annotated


def test_hidden_cells_of_a_384_crop_are_16_pixels_and_independent_between_frames():
    whole = sample(384)
    hidden = ~hide(whole, HideAndSeek(), 0.5, np.random.default_rng(1)).valid & whole.valid
    cells = hidden[:, :, :368].reshape(3, 24, 16, 23, 16)
    assert np.array_equal(cells.any((2, 4)), cells.all((2, 4)))  # a cell is hidden as a whole
    pattern = cells.all((2, 4))
    assert 0.42 < pattern.mean() < 0.58
    assert 0.4 < (pattern[0] == pattern[1]).mean() < 0.6 and 0.4 < (pattern[1] == pattern[2]).mean() < 0.6


@pytest.mark.parametrize("side", [50, 96])
def test_every_grid_covers_the_frame(side):
    grid = HideAndSeek(grid=7)
    hidden = ~hide(sample(side), grid, 1.0, np.random.default_rng(0)).valid
    assert hidden.all()
    some = ~hide(sample(side), grid, 0.5, np.random.default_rng(3)).valid[0, :, : side - 5]
    changes = np.flatnonzero((some[1:] != some[:-1]).any(1)) + 1
    assert set(changes) <= {-(-side * i // 7) for i in range(1, 7)}


def test_the_reference_frame_may_be_left_alone_and_labels_kept():
    whole = sample()
    found = hide(whole, HideAndSeek(reference=False, labels="keep"), 1.0, np.random.default_rng(0))
    assert np.array_equal(found.frames[0], whole.frames[0]) and np.array_equal(found.valid[0], whole.valid[0])
    assert not found.valid[1:].any() and np.array_equal(found.labels, whole.labels)


def test_probability_rises_over_half_of_the_steps():
    options = HideAndSeek()
    found = [hiding_probability(options, step, 1000) for step in (0, 125, 250, 500, 501, 999)]
    assert found == [0, 0.125, 0.25, 0.5, 0.5, 0.5]
    assert hiding_probability(HideAndSeek(ramp=0), 0, 1000) == 0.5
    assert hiding_probability(HideAndSeek(ramp=1, probability=0.2), 500, 1000) == pytest.approx(0.1)


# Thin-plate splines


def centres(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + 0.5
    return np.stack([x, y], -1)


def test_a_spline_without_displacement_is_the_identity():
    points, displacements = random_points(np.random.default_rng(0), sigma=0.0)
    assert points.shape == (POINTS, 2) and not displacements.any()
    assert np.allclose(source_positions(points, displacements, 64), centres(64), atol=1e-3)


def test_a_spline_passes_through_its_control_points():
    """The content at a point moves by its displacement: there, the output reads from where the point was."""
    side = 100
    places = np.array([[10, 20], [80, 30], [50, 70], [20, 90], [90, 85], [40, 10], [60, 45]])
    moved = (places + 0.5) / side
    displacements = np.random.default_rng(1).normal(0, 0.03, moved.shape)
    found = source_positions(moved - displacements, displacements, side)
    for (x, y), shift in zip(places, displacements, strict=True):
        assert np.allclose(found[y, x], [x + 0.5 - shift[0] * side, y + 0.5 - shift[1] * side], atol=0.02)


def test_a_spline_keeps_affine_maps_exact():
    rng = np.random.default_rng(2)
    points = rng.random((12, 2))
    matrix, shift = np.array([[1.1, 0.05], [-0.03, 0.95]]), np.array([0.02, -0.04])
    found = source_positions(points, points @ matrix.T + shift - points, 80)
    wanted = (centres(80) / 80 - shift) @ np.linalg.inv(matrix).T * 80
    assert np.allclose(found, wanted, atol=0.01)


def test_between_its_points_a_spline_is_the_one_of_scipy():
    rng = np.random.default_rng(4)
    points, displacements = random_points(rng)
    reference = RBFInterpolator(points + displacements, points, kernel="thin_plate_spline", degree=1)
    wanted = reference(centres(40).reshape(-1, 2) / 40).reshape(40, 40, 2) * 40
    assert np.abs(source_positions(points, displacements, 40) - wanted).max() < 0.02


def test_displacements_have_their_deviation():
    drawn = [random_points(np.random.default_rng(seed)) for seed in range(300)]
    points, moves = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    assert abs(moves.std() - 0.02) < 0.001 and abs(moves.mean()) < 0.001
    assert points.min() < 0.01 and points.max() > 0.99 and abs(points.mean() - 0.5) < 0.02


# Reading at positions


def test_reading_at_pixel_centres_changes_nothing_and_outside_is_not_shown():
    rng = np.random.default_rng(0)
    image, labels = rng.integers(1, 256, (20, 30, 3), dtype=np.uint8), rng.integers(1, 9, (20, 30), dtype=np.uint8)
    y, x = np.mgrid[:20, :30] + 0.5
    positions = np.stack([x, y], -1).astype(np.float32)
    same = warps.read_at(image, labels, positions)
    assert np.array_equal(same[0], image) and np.array_equal(same[1], labels) and same[2].all()
    moved, moved_labels, valid = warps.read_at(image, labels, positions + np.float32([4, -3]))
    assert np.array_equal(moved[3:, :26], image[:17, 4:]) and np.array_equal(moved_labels[3:, :26], labels[:17, 4:])
    assert (
        valid[3:, :26].all() and valid.sum() == 17 * 26 and not moved[~valid].any() and not moved_labels[~valid].any()
    )
    assert np.array_equal(warps.positions_through(warps.move(4, -3), positions), positions + np.float32([4, -3]))


def test_covers_is_where_apply_shows_the_source():
    rng = np.random.default_rng(0)
    for _ in range(10):
        homography = warps.move(*rng.uniform(-9, 9, 2)) @ warps.zoom((20, 30), *rng.uniform(0.7, 1.4, 2))
        shown = warps.apply(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), homography, (16, 24))[2]
        assert np.array_equal(warps.covers((20, 30), homography, (16, 24)), shown)


@pytest.mark.parametrize("values", [4, 255, 256])
@pytest.mark.parametrize("cubic", [False, True])
def test_one_reading_for_labels_and_what_is_shown_is_as_good_as_two(values, cubic):
    """Also with void (255), with labels of all 256 values, and for frames that lie wholly in the picture or beside it."""
    rng = np.random.default_rng(values)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    labels = np.resize(rng.permutation(values).astype(np.uint8), (60, 80))
    if values == 255:
        labels[labels == 3] = 255
    half = warps.move(0.5, 0.5)
    shares = set()
    for scale in (0.5, 0.9, 1.6, 2.5):
        for _ in range(4):
            turn = warps.affine((60, 80), shift=tuple(rng.uniform(-0.2, 0.2, 2)), rotation=9, shear=4)
            bend = warps.perspective((60, 80), rng.uniform(0, 0.2, (4, 2)))
            homography = warps.zoom((60, 80), scale, scale) @ turn @ (bend if rng.random() < 0.5 else np.eye(3))
            matrix, where = np.linalg.inv(half) @ homography @ half, (80, 60)
            reading = {"flags": cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
            wanted = cv2.warpPerspective(image, matrix, where, **reading)
            shown = cv2.warpPerspective(np.ones((60, 80), np.uint8), matrix, where, flags=cv2.INTER_NEAREST) > 0
            wanted[~shown] = 0
            found = warps.apply(image, labels, homography, (60, 80), cubic=cubic)
            moved = cv2.warpPerspective(labels, matrix, where, flags=cv2.INTER_NEAREST)
            for ours, theirs in zip(found, (wanted, moved, shown), strict=True):
                assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
            shares.add(bool(shown.all()))
    assert shares == {True, False}


def test_zoom_is_about_the_centre():
    matrix = warps.zoom((20, 30), 2.0, 0.5)
    assert np.allclose(matrix @ [15, 10, 1], [15, 10, 1]) and np.allclose(matrix @ [16, 12, 1], [17, 11, 1])


# Colours


def test_hues_turned_in_their_own_channel_are_those_of_a_table_for_three():
    rng = np.random.default_rng(0)
    image, keep = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.arange(256, dtype=np.uint8)
    wheel, scale = (np.roll(keep[:180], 40).repeat(2)[:256] % 180), np.minimum(keep, 200)
    tables = np.stack([wheel, scale, keep], -1)[None]
    wanted = cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables), cv2.COLOR_HSV2RGB)
    before = image.copy()
    assert np.array_equal(turn_hue(image, wheel, scale), wanted) and np.array_equal(image, before)


GREY = np.full((8, 8, 3), 100, np.uint8)


def test_each_factor_does_what_its_name_says():
    rng = np.random.default_rng
    means = [jitter(GREY, Strength(0.1, 0, 0, 0), rng(seed)).mean() for seed in range(200)]
    assert 90 <= min(means) < 91 and 109 < max(means) <= 110
    flat = [jitter(GREY, Strength(0, 0.5, 0.5, 0.5), rng(seed)) for seed in range(20)]
    assert all(np.abs(found.astype(int) - 100).max() <= 1 for found in flat)  # grey and flat: nothing to change
    ramp = np.repeat(np.arange(50, 201, 10, dtype=np.uint8)[None, :, None], 3, 2)
    spreads = [jitter(ramp, Strength(0, 0.2, 0, 0), rng(seed)) for seed in range(200)]
    ratios = np.array([np.ptp(found) / 150 for found in spreads])
    assert 0.79 < ratios.min() < 0.82 and 1.18 < ratios.max() < 1.21
    assert all(abs(found.mean() - 125) < 1 for found in spreads)
    red = np.full((4, 4, 3), (200, 100, 100), np.uint8)
    saturation = np.array([np.ptp(jitter(red, Strength(0, 0, 0.3, 0), rng(seed))) / 100 for seed in range(200)])
    assert 0.68 < saturation.min() < 0.73 and 1.27 < saturation.max() < 1.32
    hues = np.stack([jitter(red, Strength(0, 0, 0, 0.05), rng(seed))[0, 0] for seed in range(100)]).astype(int)
    assert (hues.max(1) == 200).all() and (abs(hues.min(1) - 100) <= 1).all()  # value and saturation stay
    assert hues[:, 1].max() > 120 and hues[:, 2].max() > 120 and hues[:, 1:].max() <= 100 + 31


def test_no_strength_no_change_and_the_picture_given_is_left_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    before = image.copy()
    assert np.array_equal(jitter(image, Strength(0, 0, 0, 0), np.random.default_rng(0)), image)
    changed = jitter(image, Strength(0.1, 0.1, 0.1, 0.1), np.random.default_rng(0))
    assert np.array_equal(image, before) and not np.array_equal(changed, image)


def test_contrast_takes_its_mean_over_what_is_shown():
    half = GREY.copy()
    half[:, 4:] = 0
    valid = np.zeros((8, 8), bool)
    valid[:, :4] = True
    for seed in range(10):
        found = jitter(half, Strength(0, 0.5, 0, 0), np.random.default_rng(seed), valid)
        assert np.abs(found[:, :4].astype(int) - 100).max() <= 1


def test_greyscale_has_equal_channels():
    found = greyscale(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    assert found[0, :, 0].tolist() == [76, 150, 29] and (found == found[..., :1]).all()
