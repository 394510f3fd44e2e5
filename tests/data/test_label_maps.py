"""Label maps: drawn as a painter would, counted, renamed; a free value is found, or none."""

import numpy as np
import pytest

from hodor.data import label_maps
from hodor.data.label_maps import chosen_labels


@pytest.mark.parametrize("order", ["C", "F"])
def test_later_masks_cover_earlier_ones(order):
    rng = np.random.default_rng(0)
    masks = [np.asarray(rng.random((20, 30)) < 0.3, order=order) for _ in range(5)]
    wanted = np.zeros((20, 30), np.uint8)
    for i, mask in enumerate(masks):
        wanted[mask] = i + 1
    before = [mask.copy() for mask in masks]
    found = label_maps.draw(iter(masks), (20, 30))
    assert np.array_equal(found, wanted) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(masks, before, strict=True))
    assert not label_maps.draw(iter([]), (4, 6)).any() and label_maps.draw(iter([]), (4, 6)).shape == (4, 6)


def test_counts_are_those_of_numpy_also_of_a_part():
    labels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    assert np.array_equal(label_maps.counts(labels), np.bincount(labels.ravel(), minlength=256))
    assert np.array_equal(label_maps.counts(labels[5:9, 7:31]), np.bincount(labels[5:9, 7:31].ravel(), minlength=256))
    where = labels % 3 == 0
    assert np.array_equal(label_maps.counts(labels, where), np.bincount(labels[where], minlength=256))


def test_chosen_labels_are_renamed_in_their_order():
    truth = np.array([[0, 3, 7, 9, 255]], np.uint8)
    assert chosen_labels(truth, np.array([7, 3])).tolist() == [[0, 2, 1, 0, 0]]
    assert chosen_labels(truth, np.array([9]), keep=255).tolist() == [[0, 0, 0, 1, 255]]


def test_a_free_value():
    assert label_maps.unused(np.array([[0, 3, 254]], np.uint8)) == 255
    assert label_maps.unused(np.array([[0, 1, 3, 255]], np.uint8)) == 2
    assert label_maps.unused(np.arange(256, dtype=np.uint8)[None]) is None
