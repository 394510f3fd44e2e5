"""The metric: values known by hand; to the last bit that of the official functions, which esdft-segmetric holds unchanged."""

import math

import numpy as np
import pytest
from segmetric.metrics import db_eval_boundary, db_eval_iou
from segmetric.utils import db_statistics

from hodor.scoring import jf
from hodor.scoring.jf import boundary_tolerance, frame_scores, statistics


def official(truth: np.ndarray, prediction: np.ndarray, ids) -> list[tuple[float, float]]:
    """J and F of each id by the official functions, one mask at a time."""
    with np.errstate(invalid="ignore"):
        return [
            (float(db_eval_iou(truth == id, prediction == id)), float(db_eval_boundary(truth == id, prediction == id)))
            for id in ids
        ]


def equal_to_official(truth: np.ndarray, prediction: np.ndarray, ids) -> list[tuple[float, float]]:
    scores = frame_scores(truth, prediction, ids)
    assert scores == official(truth, prediction, ids)
    return scores


def blobs(rng: np.random.Generator, size: tuple[int, int], ids, count: int = 6) -> np.ndarray:
    """uint8 labels: boxes and ellipses of any size, many of them cut by the border; noise, single pixels or nothing."""
    height, width = size
    labels = np.zeros(size, np.uint8)
    y, x = np.mgrid[:height, :width]
    for _ in range(rng.integers(0, count + 1)):
        cy, cx = rng.uniform(-2, height + 2), rng.uniform(-2, width + 2)
        ry, rx = rng.uniform(0.5, height), rng.uniform(0.5, width)
        dy, dx = (y - cy) / ry, (x - cx) / rx
        labels[np.hypot(dy, dx) < 1 if rng.random() < 0.5 else np.maximum(abs(dy), abs(dx)) < 1] = rng.choice(ids)
    if rng.random() < 0.2:
        labels[rng.random(size) < rng.random()] = rng.choice(ids)
    if rng.random() < 0.3:
        labels[rng.integers(height), rng.integers(width)] = rng.choice(ids)
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_official_functions_on_random_masks(seed):
    rng = np.random.default_rng(seed)
    between, perfect = 0, 0
    for _ in range(250):
        # From one pixel to a tolerance of 4; narrower and lower than the tolerance too.
        size = tuple(int(side) for side in np.ceil(np.exp(rng.uniform(0, 6, 2))))
        ids = list(range(1, rng.integers(1, 6) + 1))
        truth = blobs(rng, size, [0, *ids, 255])
        # Most predictions are near the truth, as real ones are: there the tolerance decides.
        prediction = blobs(rng, size, [0, *ids, 255])
        if rng.random() < 0.7:
            near = np.roll(truth, rng.integers(-3, 4, 2), (0, 1))
            prediction = np.where(rng.random(size) < 0.02, prediction, near)
        for j, f in equal_to_official(truth, prediction, ids):
            between += 0 < j < 1 and 0 < f < 1
            perfect += f == 1
    assert between > 100 and perfect > 50, "these masks test little"


def test_equal_at_the_size_of_davis():
    rng = np.random.default_rng(5)
    assert boundary_tolerance((480, 854)) == 8
    for shift in (0, 1, 7, 8, 9):
        truth = blobs(rng, (480, 854), [0, 1, 2, 3], count=9)
        equal_to_official(truth, np.roll(truth, (shift, -shift), (0, 1)), [1, 2, 3])


def named_masks(size=(60, 80)) -> dict[str, np.ndarray]:
    """One mask for each way in which a mask can be special."""
    places = {"empty": np.s_[:0], "full": np.s_[:], "pixel": (20, 30), "corner": (0, 0), "last": (-1, -1)}
    places |= {"inside": np.s_[1:-1, 1:-1], "top": np.s_[:9, 20:40], "bottom": np.s_[-9:, 20:40]}
    places |= {"left": np.s_[20:40, :9], "right": np.s_[20:40, -9:], "first row": np.s_[0], "last row": np.s_[-1]}
    places |= {"first column": np.s_[:, 0], "last column": np.s_[:, -1]}
    masks = {name: np.zeros(size, np.uint8) for name in places}
    for name, place in places.items():
        masks[name][place] = 1
    masks["frame"] = 1 - masks["inside"]
    masks["checks"] = (np.indices(size).sum(0) % 2).astype(np.uint8)
    return masks


@pytest.mark.parametrize("name", named_masks())
def test_equal_on_special_masks_against_each_other(name):
    masks = named_masks()
    for other in masks.values():
        equal_to_official(masks[name], other, [1])
    assert frame_scores(masks[name], masks[name], 1) == [(1.0, 1.0)]


def test_every_distance_is_judged_as_officially():
    """Two single pixels: F is 1 up to the tolerance, 0 beyond it, in every direction."""
    size = (300, 400)
    assert boundary_tolerance(size) == 4, "0.008 * 500 exactly: nothing is rounded up"
    truth = np.zeros(size, np.uint8)
    truth[150, 200] = 1
    block = [(0, 0), (0, -1), (-1, 0), (-1, -1)]  # the boundary of one pixel
    for dy in range(-6, 7):
        for dx in range(-6, 7):
            prediction = np.zeros(size, np.uint8)
            prediction[150 + dy, 200 + dx] = 1
            ((_, f),) = equal_to_official(truth, prediction, [1])
            near = [min(math.hypot(dy + a - c, dx + b - d) for a, b in block) <= 4 for c, d in block]
            assert (f == 1.0) == all(near) and (f == 0.0) == (not any(near))


@pytest.mark.parametrize("radius", range(1, 19))
def test_the_disk_of_every_tolerance(radius):
    rng = np.random.default_rng(radius)
    masks = (rng.random((23, 31)) < 0.01).astype(np.uint8) << rng.integers(0, 8, (23, 31)).astype(np.uint8)
    y, x = np.mgrid[:23, :31]
    wanted = np.zeros_like(masks)
    for a, b in zip(*np.nonzero(masks), strict=True):
        wanted |= np.where((y - a) ** 2 + (x - b) ** 2 <= radius**2, masks[a, b], 0).astype(np.uint8)
    assert np.array_equal(jf._dilate(masks, radius), wanted)


def test_more_objects_than_one_group_holds_and_ids_with_gaps():
    ids = [3, 254, 7, 1, 99, 200, 8, 255, 12, 45]
    truth = np.array([0, *ids, 0], np.uint8).reshape(3, 4).repeat(40, 0).repeat(40, 1)
    prediction = np.zeros_like(truth)
    for shift, id in enumerate(ids):  # some go over others
        prediction[np.roll(truth == id, (shift, -shift), (0, 1))] = id
    scores = equal_to_official(truth, prediction, ids)
    assert len(set(scores)) > 5
    for id, score in zip(ids, scores, strict=True):
        assert frame_scores(truth, prediction, [id]) == [score]
    assert frame_scores(truth, prediction, iter(ids)) == scores
    assert frame_scores(truth, prediction, 3) == frame_scores(truth, prediction, [1, 2, 3])
    assert frame_scores(truth, prediction, []) == []


def test_arrays_of_any_layout():
    rng = np.random.default_rng(2)
    truth, prediction = blobs(rng, (50, 90), [1, 2]), blobs(rng, (50, 90), [1, 2])
    for view in (lambda a: a[::-1, ::-1], lambda a: a.T, lambda a: a[5:40, 7:60], lambda a: a[::2, ::3]):
        equal_to_official(view(truth), view(prediction), [1, 2])


def test_wrong_arguments_are_refused():
    labels = np.zeros((4, 5), np.uint8)
    for other in (labels.T, labels.astype(int), labels[None]):
        with pytest.raises(ValueError, match="must both be uint8"):
            frame_scores(labels, other, 1)
    for ids in ([0], [256], [-1], [1, 1], 256):
        with pytest.raises(ValueError, match="different labels in 1..255"):
            frame_scores(labels, labels, ids)


@pytest.mark.parametrize("frames", [*range(1, 30), 67, 102, 200, 254, 255])
def test_statistics_are_the_official_ones_where_those_are_right(frames):
    values = np.random.default_rng(frames).random(frames)
    values[::5] = 0.5  # not above one half
    assert statistics(values) == tuple(map(float, db_statistics(values)))


@pytest.mark.parametrize("frames", [256, 257, 300, 1000])
def test_decay_of_long_sequences(frames):
    # Falls from 1 to 0, so that the decay is the distance of the first quarter's mean from the last one's:
    # 0.75.
    values = np.linspace(1, 0, frames)
    mean, recall, decay = statistics(values)
    assert decay == pytest.approx(0.75, abs=0.01)
    assert mean == pytest.approx(0.5)
    assert recall == pytest.approx(0.5, abs=0.01)
    with np.errstate(all="ignore"):
        wrong = db_statistics(values)[2]
    assert not abs(wrong - 0.75) < 0.01, "the official function is right here: the detour is no longer needed"


@pytest.mark.parametrize("exact", [1 << 24, 1000])
def test_histogram_counts_every_value(monkeypatch, exact):
    """On both sides of the number of pixels up to which OpenCV counts exactly."""
    monkeypatch.setattr(jf, "_EXACT_COUNT", exact)
    labels = np.repeat(np.arange(256, dtype=np.uint8), np.arange(256)).reshape(128, 255)
    assert jf.histogram(labels).tolist() == list(range(256))
