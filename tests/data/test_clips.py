"""Batches and clips of images and videos: plans, filters, choice of frames and objects."""

from collections import Counter

import numpy as np
import pytest

from hodor.config.stages import Source, StageOptions
from hodor.data import augmentations
from hodor.data.clips_image import ImageClips, clip_size, scaled_area, usable, visible_at_stride_8
from hodor.data.clips_video import DenseVideoClips, following, large_objects, other_frames, possible_references, sides
from hodor.data.clips_video import usable as usable_video
from hodor.data.coco import CocoImage, CocoObject
from hodor.data.dataset import Sample, collate, equal_object_counts, plan_batches, pool
from hodor.data.video import Video
from tests.data.datasets import write_coco
from tests.refused import refused


def options(**changes) -> StageOptions:
    source = {"dataset": "coco", "split": "train2017"}
    base = {"kind": "images", "sources": [source], "steps": 10, "batch": 2, "learning_rate": 1e-3, "pixels": 300_000}
    return StageOptions(**base | changes)


# Plans and batches


def test_published_clip_size():
    """640x480 becomes 632x474 (hodor specification 5.3); 854x480 video 1025x576 (5.4)."""
    assert clip_size((480, 640), options()) == (474, 632)
    video = options(pixels=None, short_side=576, long_side=1200)
    assert clip_size((480, 854), video) == (576, 1025) and clip_size((480, 1200), video) == (480, 1200)


def test_object_counts_get_equal_shares_and_their_pool():
    numbers = [1, 2, 4, 1, 3]
    items, objects = equal_object_counts(numbers, 400, 4)
    assert Counter(objects.tolist()) == {4: 100, 3: 100, 2: 100, 1: 100}
    for n in range(1, 5):
        members = [i for i, number in enumerate(numbers) if number >= n]
        assert items[objects == n].tolist() == (members * 100)[:100]  # cycled in the file's order
    assert set(equal_object_counts([1, 2], 10, 4)[1].tolist()) == {1, 2}


def test_batches_hold_one_object_count_and_similar_aspects():
    rng = np.random.default_rng(0)
    objects, aspects = rng.integers(1, 5, 500), rng.uniform(0.5, 1.6, 500)

    def plan(seed):
        return plan_batches(np.arange(500), objects, aspects, steps=90, batch=4, seed=seed)

    assert plan(0).items.shape == (90, 4)
    for row, count in zip(plan(0).items, plan(0).objects, strict=True):
        assert (objects[row] == count).all() and np.ptp(aspects[row]) <= 0.1
    assert np.array_equal(plan(0).items, plan(0).items) and not np.array_equal(plan(0).items, plan(1).items)


def test_a_short_plan_is_the_start_of_a_long_one_while_samples_last():
    arguments = (np.arange(40), np.ones(40, int), np.ones(40))
    long = plan_batches(*arguments, steps=10, batch=4, seed=0)
    assert sorted(long.items.ravel().tolist()) == list(range(40))  # each once
    twice = plan_batches(*arguments, steps=20, batch=4, seed=0)
    assert np.array_equal(twice.items[:10], long.items) and not np.array_equal(twice.items[10:], long.items)
    refused("min_area", plan_batches, np.zeros(0, int), np.zeros(0, int), np.zeros(0), steps=1, batch=1, seed=0)


def test_pool_repeats_and_limits():
    pools = [Source(dataset="ecssd", split="all", **values) for values in ({}, {"repeat": 3}, {"limit": 5})]
    found = pool([4, 2, 50], pools, seed=0)
    assert found[:10].tolist() == [0, 1, 2, 3, *[4, 5] * 3]
    drawn = found[10:].tolist()
    assert len(set(drawn)) == 5 and all(6 <= i < 56 for i in drawn) and drawn == sorted(drawn)
    assert found.tolist() == pool([4, 2, 50], pools, seed=0).tolist() != pool([4, 2, 50], pools, seed=1).tolist()
    assert pool([3], [pools[2]], seed=0).tolist() == [0, 1, 2]


def test_collate_pads_right_and_below():
    def sample(h, w):
        return Sample(
            np.full((3, h, w, 3), 9, np.uint8), np.ones((3, h, w), np.uint8), np.ones((3, h, w), bool), (True,) * 3
        )

    clip = collate([sample(40, 50), sample(30, 70)], 1, 32)
    assert clip.frames.shape == (2, 3, 3, 64, 96) and clip.labels.shape == clip.valid.shape == (2, 3, 64, 96)
    assert clip.valid[0, :, :40, :50].all() and clip.valid[0].sum() == 3 * 40 * 50
    assert clip.labels[1].sum() == 3 * 30 * 70 and (clip.frames[1, :, :, 30:] == 0).all()


# Images


def coco_image(*objects: tuple[float, float, float, bool], size=(480, 640)) -> CocoImage:
    made = (CocoObject(i, "cat", area, (0, 0, w, h), crowd, ()) for i, (area, w, h, crowd) in enumerate(objects))
    return CocoImage(1, None, *size, tuple(made))


def test_filters_drop_small_thin_and_crowd_objects_and_scale_with_the_image():
    image = coco_image((2001, 50, 50, False), (2000, 50, 50, False), (9000, 20, 500, False), (9000, 90, 90, True))
    for crowds, kept in (("drop", 1), ("keep", 2)):
        found = usable([image, coco_image((100, 10, 10, False))], options(crowds=crowds))
        assert [len(candidate.objects) for candidate in found] == [kept]
    half, scaled = coco_image((600, 25, 25, False), size=(240, 320)), options(filter_pixels=640 * 480)
    assert usable([half], options()) == [] and len(usable([half], scaled)) == 1
    assert scaled_area(2000, (240, 320), scaled) == 500


def test_objects_must_show_at_stride_8():
    labels = np.zeros((64, 64), np.uint8)
    labels[8:40, 8:40], labels[50:52, 50:52] = 1, 2
    assert visible_at_stride_8(np.minimum(labels, 1), 1) and not visible_at_stride_8(labels, 2)


@pytest.fixture
def clips_of(tmp_path):
    """Makes `ImageClips` of one grey COCO image of the given size, with squares (left, top, side) as objects."""

    def make(size, *squares, **changes) -> ImageClips:
        annotations = [
            {"image_id": 1, "area": a * a, "bbox": [x, y, a, a]}
            | {"segmentation": [[x, y, x + a, y, x + a, y + a, x, y + a]]}
            for x, y, a in squares
        ]
        write_coco(tmp_path / "coco", "train2017", {1: np.full((*size, 3), 90, np.uint8)}, annotations)
        return ImageClips(options(**changes), tmp_path)

    return make


@pytest.mark.parametrize(("rule", "areas"), [("file-order", [0, 8100]), ("smaller-on-top", [1600, 6500])])
def test_order_of_overlapping_objects(clips_of, rule, areas, monkeypatch):
    """The first object of the file is small and inside the second."""
    clips = clips_of((120, 160), (60, 20, 40), (20, 20, 90), overlap=rule, pixels=19200, min_area=100, min_side=5)
    monkeypatch.setattr(augmentations, "image_warps", lambda *_: [np.eye(3)] * 3)
    seen = np.bincount(clips.make(0, 2, np.random.default_rng(0)).labels[0].ravel(), minlength=3)[1:]
    assert sorted(seen.tolist()) == pytest.approx(areas, rel=0.1)


# Videos


class FakeVideo(Video):
    """A video whose labels are given as arrays."""

    def labels(self, frame):
        return LABELS[frame]


LABELS: dict[str, np.ndarray] = {}


def video(squares: dict[int, int], frames: int = 9) -> Video:
    """Labelled at the given positions by one square object of the given side."""
    for position, side in squares.items():
        labels = np.zeros((100, 120), np.uint8)
        labels[:side, :side], labels[99, 119] = 1, 255
        LABELS[f"{position:05d}"] = labels
    names = tuple(f"{i:05d}" for i in range(frames))
    return FakeVideo("v", names, None, None, 100, 120, tuple(f"{i:05d}" for i in sorted(squares)), {1: "00000"})


def source(distance: int) -> Source:
    return Source(dataset="davis", split="train", max_distance=distance)


@pytest.mark.parametrize(("rule", "expected", "other"), [("middle", 4, 3), ("last", 8, 7)])
def test_annotated_frame_is_the_middle_or_the_last_with_a_large_object(rule, expected, other):
    stage = options(kind="sparse-video", annotated_frame=rule, min_area=400, min_side=20)
    everywhere = {i: 40 for i in range(9)}
    found = usable_video(video(everywhere), source(6), stage)
    assert found.references == (expected,) and found.objects == (1,)
    # If its object is too small, the next frame in order with a large enough one.
    assert usable_video(video(everywhere | {4: 5, 8: 5}), source(6), stage).references == (other,)
    assert usable_video(video({i: 5 for i in range(9)}), source(6), stage) is None
    assert usable_video(video({0: 40}, frames=2), source(6), stage) is None  # no two frames beside it
    assert large_objects(np.full((100, 120), 255, np.uint8), stage) == ()  # void is no object


def test_other_frames_are_on_one_side_within_the_distance_unsorted():
    drawn = [other_frames(20, 10, 2, source(3), np.random.default_rng(seed)) for seed in range(200)]
    for others in drawn:
        assert len(set(others)) == 2 and 10 not in others and all(abs(i - 10) <= 3 for i in others)
        assert (others[0] < 10) == (others[1] < 10)
    assert {others[0] < 10 for others in drawn} == {True, False} and 60 < sum(a > b for a, b in drawn) < 140
    assert all(max(other_frames(20, 19, 2, source(3), np.random.default_rng(seed))) < 19 for seed in range(20))
    assert [len(side) for side in sides(20, 1, 3)] == [1, 3]


def test_dense_clips_have_later_labelled_frames_within_the_distance():
    found = video({0: 40, 2: 40, 3: 40, 4: 40, 8: 40})
    assert following(found, 0, source(3)) == [2, 3] and following(found, 4, source(3)) == []
    assert possible_references(found, source(3), 2) == (0, 2) and possible_references(found, source(3), 1) == (0, 2, 3)


DENSE = {"kind": "dense-video", "pixels": None, "short_side": 64, "min_area": 60, "min_side": 4, "max_objects": 2}


@pytest.fixture
def dense(world) -> DenseVideoClips:
    sources = [
        {"dataset": "youtube-vos", "split": "train", "share": 0.8, "max_distance": 4},
        {"dataset": "davis", "split": "train", "share": 0.2, "max_distance": 3},
    ]
    return DenseVideoClips(options(sources=sources, steps=50, **DENSE), world)


def test_dense_clips_are_labelled_throughout_in_equal_shares_of_object_counts(dense):
    plan = dense.plan(0)
    assert plan.items.shape == (50, 2) and set(plan.objects) == {1, 2} and abs((plan.objects == 1).mean() - 0.5) < 0.15
    names = [dense.candidates[i].source.dataset for i in plan.items.ravel()]
    assert 0.7 < names.count("youtube-vos") / len(names) < 0.9
    for step in range(8):
        sample = dense.make(int(plan.items[step, 0]), int(plan.objects[step]), np.random.default_rng(step))
        assert sample.annotated == (True, True, True) and len(sample.frames) == 3 and sample.labels[1:].any()
        assert set(np.unique(sample.labels[0])) - {0} == set(range(1, plan.objects[step] + 1))


def test_dense_clips_that_cannot_be_made_are_an_error(dense, world):
    dense.options = dense.options.model_copy(update={"min_area": 1e6})
    refused("no frame shows 1 objects", dense.make, 0, 1, np.random.default_rng(0))
    sources = [{"dataset": "davis", "split": "train", "max_distance": 1}]
    refused("max_distance", DenseVideoClips, options(sources=sources, **DENSE), world)
