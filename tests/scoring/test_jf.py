"""The metric: values known by hand, and decay where the official function overflows."""

import numpy as np
import pytest
from segmetric.utils import db_statistics

from hodor.scoring.jf import _decay, frame_scores, statistics


def test_values_known_by_hand():
    truth = np.zeros((100, 100), np.uint8)
    truth[10:30, 10:30] = 1
    prediction = np.zeros_like(truth)
    prediction[10:30, 20:40] = 1  # half of it overlaps: 200 of 600 pixels
    (j, f), (j_empty, f_empty) = frame_scores(truth, prediction, 2)
    assert j == pytest.approx(1 / 3)
    assert 0 < f < 1
    assert (j_empty, f_empty) == (1.0, 1.0)  # object 2 is in neither


def test_one_pixel_within_the_tolerance_costs_j_but_not_f():
    # ceil(0.008 * hypot(100, 100)) = 2 pixels
    truth = np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = 1
    for shift, perfect in ((1, True), (2, True), (4, False)):
        ((j, f),) = frame_scores(truth, np.roll(truth, shift, axis=1), 1)
        assert j == pytest.approx((40 - shift) / (40 + shift))
        assert (f == 1.0) is perfect


def test_a_vanished_object_and_an_invented_one_score_zero():
    truth = np.zeros((40, 40), np.uint8)
    truth[5:20, 5:20] = 1
    empty = np.zeros_like(truth)
    assert frame_scores(truth, empty, 1) == [(0.0, 0.0)]
    assert frame_scores(empty, truth, 1) == [(0.0, 0.0)]


def test_other_labels_are_background():
    truth = np.zeros((40, 40), np.uint8)
    truth[5:20, 5:20] = 1
    truth[20:30, 5:20] = 255
    prediction = np.where(truth == 255, 0, truth)
    assert frame_scores(truth, prediction, 1) == [(1.0, 1.0)]
    assert frame_scores(prediction, truth, 1) == [(1.0, 1.0)]


@pytest.mark.parametrize("frames", [*range(1, 30), 67, 102, 200, 254, 255])
def test_the_rule_for_decay_is_the_official_one_where_that_is_right(frames):
    values = np.random.default_rng(frames).random(frames)
    official = db_statistics(values)
    assert statistics(values) == tuple(map(float, official))
    assert _decay(values) == pytest.approx(official[2], abs=1e-15)


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
