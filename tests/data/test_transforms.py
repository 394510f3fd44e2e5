"""Geometry and colour of clips: warps move image and labels together, random draws stay in their ranges."""

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from hodor.config.stages import HideAndSeek
from hodor.data import augmentations, transforms
from hodor.data.augmentations import Strength, hide, hiding_probability, jitter, random_spline
from hodor.data.transforms import thin_plate_positions

SIZE = (60, 80)
PALETTE = np.array([[40, 40, 40], [220, 30, 30], [30, 30, 220]], np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labelled(size=SIZE) -> np.ndarray:
    labels = np.zeros(size, np.uint8)
    labels[10:35, 12:40] = 1
    labels[30:55, 45:70] = 2
    return labels


LABELS = labelled()
IMAGE = PALETTE[LABELS]  # labels can be read off the image
NOISE = rng().integers(1, 256, (20, 30, 3), dtype=np.uint8)


# Warps


def test_identity_flip_and_crop_match_slicing():
    cut = transforms.scaling(SIZE, (30, 40)) @ transforms.crop(SIZE, top=15, left=20, height=30, width=40)
    for homography, size, part in (
        (np.eye(3), SIZE, (slice(None), slice(None))),
        (transforms.flip(SIZE), SIZE, (slice(None), slice(None, None, -1))),
        (cut, (30, 40), (slice(15, 45), slice(20, 60))),
    ):
        image, labels, valid = transforms.apply(IMAGE, LABELS, homography, size)
        assert np.array_equal(image, IMAGE[part]) and np.array_equal(labels, LABELS[part]) and valid.all()


def test_affine_shifts_by_fractions_and_rotates_about_the_centre():
    move = transforms.affine(SIZE, shift=(0.25, -0.5), rotation=0, shear=0)
    image, labels, valid = transforms.apply(IMAGE, LABELS, move, SIZE)
    assert np.array_equal(labels[:30, 20:], LABELS[30:, :60])
    assert valid[:30, 20:].all() and not valid[30:].any() and not valid[:, :20].any()
    assert not image[~valid].any() and not labels[~valid].any()
    labels, valid = transforms.apply_labels(LABELS, move, SIZE, keep_edge=True)
    image = transforms.apply_image(IMAGE, move, valid)
    assert valid.all() and (image[:, :20] == 40).all() and not labels[:, :20].any()
    square = labelled((61, 61))
    turn = transforms.affine((61, 61), shift=(0, 0), rotation=90, shear=0)
    assert (transforms.apply_labels(square, turn, (61, 61))[0] == np.rot90(square, -1)).mean() > 0.99
    matrix = transforms.zoom((20, 30), 2.0, 0.5)
    assert np.allclose(matrix @ [15, 10, 1], [15, 10, 1]) and np.allclose(matrix @ [16, 12, 1], [17, 11, 1])


@pytest.mark.parametrize("seed", range(10))
def test_labels_move_with_the_image(seed):
    """Whatever the warps drawn: away from edges the colour of a pixel shows its label."""
    labels = labelled((120, 160))
    for homography in augmentations.image_warps(labels, 2, 3, 10, rng(seed)):
        image, moved, valid = transforms.apply(PALETTE[labels], labels, homography, labels.shape)
        nearest = np.abs(image[:, :, None].astype(int) - PALETTE).sum(-1).argmin(-1)
        assert (valid & (nearest != moved)).sum() < 0.02 * valid.sum() + 5


def test_large_images_shrink_before_the_warp():
    stripes = np.zeros((600, 800, 3), np.uint8)
    stripes[:, ::2] = 200  # as fine as can be: averages to 100, aliases otherwise
    small = transforms.shrink(stripes, (150, 200))
    assert small.shape == (150, 200, 3) and abs(small.astype(int) - 100).max() <= 2
    assert set(np.unique(transforms.shrink(LABELS, (20, 27)))) == {0, 1, 2} and transforms.shrink(IMAGE, SIZE) is IMAGE


# Random geometry


def test_crops_keep_objects():
    left_half = transforms.crop(SIZE, 0, 0, 60, 40)
    assert not augmentations.keeps_objects(LABELS, left_half, 2, 0)  # object 2 is gone
    only = np.where(LABELS == 1, 1, 0).astype(np.uint8)
    assert augmentations.keeps_objects(only, left_half, 1, 700)  # 25 x 28 pixels of the source
    assert not augmentations.keeps_objects(only, left_half, 1, 701)
    smallest = np.bincount(LABELS.ravel())[1:].min()
    for seed in range(50):
        cut = augmentations.object_crop(SIZE, LABELS, 2, 10, rng(seed))
        assert augmentations.keeps_objects(LABELS, cut, 2, 10)
        whole = augmentations.preserving_crop(SIZE, rng(seed), LABELS)
        assert augmentations.keeps_objects(LABELS, whole, 2, smallest)
    assert np.array_equal(augmentations.preserving_crop(SIZE, rng(), np.ones(SIZE, np.uint8)), np.eye(3))


# Thin-plate splines


def test_splines_are_those_of_scipy_and_exact_for_affine_maps():
    centres = np.mgrid[:40, :40].T + 0.5
    points, displacements = random_spline(rng(4))
    reference = RBFInterpolator(points + displacements, points, kernel="thin_plate_spline", degree=1)
    wanted = reference(centres.reshape(-1, 2) / 40).reshape(40, 40, 2) * 40
    assert np.abs(thin_plate_positions(points, displacements, 40) - wanted).max() < 0.02
    assert np.allclose(thin_plate_positions(points, 0 * displacements, 40), centres, atol=1e-3)
    matrix, shift = np.array([[1.1, 0.05], [-0.03, 0.95]]), np.array([0.02, -0.04])
    found = thin_plate_positions(points, points @ matrix.T + shift - points, 40)
    assert np.allclose(found, (centres / 40 - shift) @ np.linalg.inv(matrix).T * 40, atol=0.01)


# Colours

GREY = np.full((8, 8, 3), 100, np.uint8)


def test_colour_changes_stay_within_their_bounds():
    grey = np.full((8, 8, 3), 127, np.uint8)
    means = [augmentations.colour(grey, rng(seed), brightness=25).mean() for seed in range(200)]
    assert 95 < min(means) < 115 and 140 < max(means) < 160
    again = [augmentations.colour(IMAGE, rng(3), brightness=25) for _ in range(2)]
    assert np.array_equal(*again) and not np.array_equal(again[0], IMAGE)


def jittered(image: np.ndarray, count: int, *strength: float) -> list[np.ndarray]:
    return [jitter(image, Strength(*strength), rng(seed)) for seed in range(count)]


def test_each_factor_of_jitter_does_what_its_name_says():
    means = [found.mean() for found in jittered(GREY, 200, 0.1, 0, 0, 0)]
    assert 90 <= min(means) < 91 and 109 < max(means) <= 110
    flat = jittered(GREY, 20, 0, 0.5, 0.5, 0.5)
    assert all(np.abs(found.astype(int) - 100).max() <= 1 for found in flat)  # grey and flat: nothing to change
    ramp = np.repeat(np.arange(50, 201, 10, dtype=np.uint8)[None, :, None], 3, 2)
    spreads = jittered(ramp, 200, 0, 0.2, 0, 0)
    ratios = np.array([np.ptp(found) / 150 for found in spreads])
    assert 0.79 < ratios.min() < 0.82 and 1.18 < ratios.max() < 1.21
    assert all(abs(found.mean() - 125) < 1 for found in spreads)
    red = np.full((4, 4, 3), (200, 100, 100), np.uint8)
    saturation = np.array([np.ptp(found) / 100 for found in jittered(red, 200, 0, 0, 0.3, 0)])
    assert 0.68 < saturation.min() < 0.73 and 1.27 < saturation.max() < 1.32
    hues = np.stack([found[0, 0] for found in jittered(red, 100, 0, 0, 0, 0.05)]).astype(int)
    assert (hues.max(1) == 200).all() and (abs(hues.min(1) - 100) <= 1).all()  # value and saturation stay
    assert hues[:, 1].max() > 120 and hues[:, 2].max() > 120 and hues[:, 1:].max() <= 100 + 31


def test_jitter_leaves_its_image_alone_and_takes_the_mean_over_what_is_shown():
    before = NOISE.copy()
    assert np.array_equal(jittered(NOISE, 1, 0, 0, 0, 0)[0], NOISE)
    assert not np.array_equal(jittered(NOISE, 1, 0.1, 0.1, 0.1, 0.1)[0], NOISE) and np.array_equal(NOISE, before)
    half, valid = GREY.copy(), np.zeros((8, 8), bool)
    half[:, 4:], valid[:, :4] = 0, True
    for seed in range(10):
        found = jitter(half, Strength(0, 0.5, 0, 0), rng(seed), valid)
        assert np.abs(found[:, :4].astype(int) - 100).max() <= 1
    grey = transforms.greyscale(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    assert grey[0, :, 0].tolist() == [76, 150, 29] and (grey == grey[..., :1]).all()


# Hide-and-Seek


def clip(side: int = 48) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = rng().integers(0, 3, (3, side, side)).astype(np.uint8)
    labels[:, 0] = 255
    valid = np.ones(labels.shape, bool)
    valid[:, :, -5:] = False
    return rng().integers(1, 256, (*labels.shape, 3), dtype=np.uint8), labels, valid


def test_nothing_is_hidden_with_probability_0_and_all_with_1():
    assert all(map(np.array_equal, hide(clip(), HideAndSeek(), 0.0, rng()), clip()))
    assert not any(part.any() for part in hide(clip(), HideAndSeek(), 1.0, rng()))
    reference_stays = HideAndSeek(reference=False, labels="keep")
    frames, labels, valid = hide(clip(), reference_stays, 1.0, rng())
    assert np.array_equal(frames[0], clip()[0][0]) and np.array_equal(valid[0], clip()[2][0])
    assert not valid[1:].any() and np.array_equal(labels, clip()[1])


def test_hidden_cells_of_a_384_crop_are_16_pixels_and_independent_between_frames():
    whole = clip(384)
    hidden = ~hide(whole, HideAndSeek(), 0.5, rng(1))[2] & whole[2]
    cells = hidden[:, :, :368].reshape(3, 24, 16, 23, 16)
    assert np.array_equal(cells.any((2, 4)), cells.all((2, 4)))  # a cell is hidden as a whole
    pattern = cells.all((2, 4))
    assert 0.42 < pattern.mean() < 0.58
    assert all(0.4 < (pattern[i] == pattern[i + 1]).mean() < 0.6 for i in range(2))


def test_probability_of_hiding_rises_over_half_of_the_steps():
    found = [hiding_probability(HideAndSeek(), step, 1000) for step in (0, 125, 250, 500, 501, 999)]
    assert found == [0, 0.125, 0.25, 0.5, 0.5, 0.5] and hiding_probability(HideAndSeek(ramp=0), 0, 1000) == 0.5
    assert hiding_probability(HideAndSeek(ramp=1, probability=0.2), 500, 1000) == pytest.approx(0.1)
