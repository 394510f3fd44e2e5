"""Clip synthesis: warps move image and labels together, filters and pools, batches, statistics."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hodor.config.stages import Source, StageOptions
from hodor.data import augment, warps
from hodor.data.batches import Sample, collate, equal_object_counts, plan_batches
from hodor.data.coco import CocoImage, CocoObject
from hodor.data.dense_video_clips import DenseVideoClips, following, possible_references
from hodor.data.image_clips import ImageClips, clip_size, scaled_area, usable, visible_at_stride_8
from hodor.data.video import Video
from hodor.data.video_clips import large_objects, other_frames, sides
from hodor.data.video_clips import usable as usable_video
from hodor.errors import HodorError

SOURCE = {"dataset": "coco", "split": "train2017"}


def options(**changes) -> StageOptions:
    base = {
        "kind": "images",
        "sources": [SOURCE],
        "steps": 10,
        "batch": 2,
        "learning_rate": 1e-3,
        "pixels": 300_000,
    }
    return StageOptions(**base | changes)


def coloured(size=(60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """An image whose objects have a colour of their own, so that labels can be read off the image."""
    labels = np.zeros(size, np.uint8)
    labels[10:35, 12:40] = 1
    labels[30:55, 45:70] = 2
    palette = np.array([[40, 40, 40], [220, 30, 30], [30, 30, 220]], np.uint8)
    return palette[labels], labels


# Warps


def test_identity_changes_nothing():
    image, labels = coloured()
    moved, moved_labels, valid = warps.apply(image, labels, np.eye(3), labels.shape)
    assert np.array_equal(moved, image) and np.array_equal(moved_labels, labels) and valid.all()


def test_flip_and_crop_match_slicing():
    image, labels = coloured()
    moved, moved_labels, _ = warps.apply(image, labels, warps.flip(labels.shape), labels.shape)
    assert np.array_equal(moved, image[:, ::-1]) and np.array_equal(moved_labels, labels[:, ::-1])
    cut = warps.crop((60, 80), top=15, left=20, height=30, width=40)
    whole = warps.scaling((60, 80), (30, 40)) @ cut
    moved, moved_labels, valid = warps.apply(image, labels, whole, (30, 40))
    assert np.array_equal(moved, image[15:45, 20:60]) and np.array_equal(moved_labels, labels[15:45, 20:60])
    assert valid.all()


def test_affine_shift_is_in_fractions_and_what_it_uncovers_is_invalid():
    image, labels = coloured()
    move = warps.affine(labels.shape, shift=(0.25, -0.5), rotation=0, shear=0)
    moved, moved_labels, valid = warps.apply(image, labels, move, labels.shape)
    assert np.array_equal(moved_labels[:30, 20:], labels[30:, :60])
    assert valid[:30, 20:].all() and not valid[30:].any() and not valid[:, :20].any()
    assert (moved[~valid] == 0).all() and (moved_labels[~valid] == 0).all()


def test_rotation_turns_about_the_centre():
    image, labels = coloured((61, 61))
    turn = warps.affine((61, 61), shift=(0, 0), rotation=90, shear=0)
    _, moved, _ = warps.apply(image, labels, turn, (61, 61))
    assert (moved == np.rot90(labels, -1)).mean() > 0.99


def test_perspective_stretches_the_inner_quadrilateral():
    matrix = warps.perspective((100, 200), np.full((4, 2), 0.1))
    corner = matrix @ [20, 10, 1]
    assert np.allclose(corner[:2] / corner[2], [0, 0], atol=1e-6)
    corner = matrix @ [180, 90, 1]
    assert np.allclose(corner[:2] / corner[2], [200, 100], atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_labels_move_with_the_image(seed):
    """Whatever the warps drawn: away from edges the colour of a pixel says its label."""
    image, labels = coloured((120, 160))
    rng = np.random.default_rng(seed)
    for homography in augment.image_warps(labels, 2, 3, 10, rng):
        moved, moved_labels, valid = warps.apply(image, labels, homography, labels.shape)
        palette = np.array([[40, 40, 40], [220, 30, 30], [30, 30, 220]])
        nearest = np.abs(moved[:, :, None].astype(int) - palette).sum(-1).argmin(-1)
        wrong = valid & (nearest != moved_labels)
        assert wrong.sum() < 0.02 * valid.sum() + 5


def test_large_images_shrink_before_the_warp():
    stripes = np.zeros((600, 800, 3), np.uint8)
    stripes[:, ::2] = 200  # as fine as can be: averages to 100, aliases otherwise
    small, labels = warps.shrink(stripes, np.zeros((600, 800), np.uint8), (150, 200))
    assert small.shape == (150, 200, 3) and labels.shape == (150, 200)
    assert abs(small.astype(int) - 100).max() <= 2


# Random draws


def test_reference_frame_of_a_basic_clip_is_the_image_itself_in_half_of_the_clips():
    _, labels = coloured()
    identical = 0
    for seed in range(400):
        first = augment.image_warps(labels, 2, 3, 10, np.random.default_rng(seed))[0]
        identical += np.array_equal(first, np.eye(3))
    assert 170 < identical < 240  # half, and rarely a crop-based clip that falls back to the full image


def test_object_crop_keeps_objects_by_half():
    _, labels = coloured()
    for seed in range(100):
        cut = augment.object_crop(labels.shape, labels, 2, 10, np.random.default_rng(seed))
        assert augment.keeps_objects(labels, cut, 2, 10)


def test_keeps_objects_counts_source_pixels():
    _, labels = coloured()
    left_half = warps.crop(labels.shape, 0, 0, 60, 40)
    assert not augment.keeps_objects(labels, left_half, 2, 0)  # object 2 is gone
    only = np.where(labels == 1, 1, 0).astype(np.uint8)
    assert augment.keeps_objects(only, left_half, 1, 700)  # 25 x 28
    assert not augment.keeps_objects(only, left_half, 1, 701)


@pytest.mark.parametrize("kind", ["crop", "affine", "perspective"])
def test_pixels_kept_are_those_whose_centres_stay_inside(kind):
    labels = np.random.default_rng(0).integers(0, 4, (60, 80)).astype(np.uint8)
    y, x = np.nonzero(labels >= 0)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        homography = {
            "crop": lambda rng: augment.random_crop((60, 80), rng, 0.6),
            "affine": lambda rng: augment.random_affine((60, 80), rng, shift=0.2, rotation=20, shear=10),
            "perspective": lambda rng: augment.random_perspective((60, 80), rng, (0.08, 0.10)),
        }[kind](rng)
        u, v, w = homography @ np.stack([x + 0.5, y + 0.5, np.ones(len(x))])
        inside = (u / w >= 0) & (u / w < 80) & (v / w >= 0) & (v / w < 60)
        wanted = np.bincount(labels[y, x][inside], minlength=256)
        found = augment._counts_inside(labels, homography)
        assert np.abs(found - wanted).max() <= (0 if kind == "crop" else 1) and 0 < found.sum() < labels.size
    away = warps.move(100, 0)
    assert not augment._counts_inside(labels, away).any()


def test_preserving_crop_holds_everything_or_is_none():
    _, labels = coloured()
    for seed in range(30):
        cut = augment.preserving_crop(labels.shape, np.random.default_rng(seed), labels)
        assert augment.keeps_objects(labels, cut, 2, np.bincount(labels.ravel())[1:].min())
    assert augment.preserving_crop((60, 80), np.random.default_rng(0), np.ones((60, 80), np.uint8)) is None


def test_colour_changes_stay_within_their_bounds():
    grey = np.full((8, 8, 3), 127, np.uint8)
    means = [augment.colour(grey, np.random.default_rng(seed), brightness=25).mean() for seed in range(200)]
    assert 95 < min(means) < 115 and 140 < max(means) < 160
    image, _ = coloured()
    again = [augment.colour(image, np.random.default_rng(3), brightness=25) for _ in range(2)]
    assert np.array_equal(*again) and not np.array_equal(again[0], image)


# Pools and batches


def test_published_clip_size():
    """640x480 becomes 632x474 (specification section 5.3); 854x480 video 1025x576 (5.4)."""
    assert clip_size((480, 640), options()) == (474, 632)
    video = options(pixels=None, short_side=576, long_side=1200)
    assert clip_size((480, 854), video) == (576, 1025)
    assert clip_size((480, 1200), video) == (480, 1200)


def test_object_counts_get_equal_shares_and_their_pool():
    numbers = [1, 2, 4, 1, 3]
    items, objects = equal_object_counts(numbers, 400, 4)
    assert Counter(objects.tolist()) == {4: 100, 3: 100, 2: 100, 1: 100}
    for n in range(1, 5):
        pool = [i for i, number in enumerate(numbers) if number >= n]
        assert items[objects == n].tolist() == (pool * 100)[:100]  # cycled in the file's order
    items, objects = equal_object_counts([1, 2], 10, 4)
    assert set(objects.tolist()) == {1, 2}


def test_batches_hold_one_object_count_and_similar_aspects():
    rng = np.random.default_rng(0)
    items = np.arange(500)
    objects, aspects = rng.integers(1, 5, 500), rng.uniform(0.5, 1.6, 500)
    plan = plan_batches(items, objects, aspects, steps=90, batch=4, seed=0)
    assert plan.items.shape == (90, 4)
    for row, count in zip(plan.items, plan.objects, strict=True):
        assert (objects[row] == count).all() and np.ptp(aspects[row]) <= 0.1
    again = plan_batches(items, objects, aspects, steps=90, batch=4, seed=0)
    other = plan_batches(items, objects, aspects, steps=90, batch=4, seed=1)
    assert np.array_equal(plan.items, again.items) and not np.array_equal(plan.items, other.items)


def test_a_short_plan_is_the_start_of_a_long_one_while_samples_last():
    arguments = (np.arange(40), np.ones(40, int), np.ones(40))
    long = plan_batches(*arguments, steps=10, batch=4, seed=0)
    assert sorted(long.items.ravel().tolist()) == list(range(40))  # each once
    twice = plan_batches(*arguments, steps=20, batch=4, seed=0)
    assert np.array_equal(twice.items[:10], long.items) and not np.array_equal(twice.items[10:], long.items)


def test_no_sample_left_is_a_clear_error():
    with pytest.raises(HodorError, match="min_area"):
        plan_batches(np.zeros(0, int), np.zeros(0, int), np.zeros(0), steps=1, batch=1, seed=0)


def test_collate_pads_right_and_below():
    samples = [
        Sample(
            np.full((3, h, w, 3), 9, np.uint8),
            np.ones((3, h, w), np.uint8),
            np.ones((3, h, w), bool),
            (True,) * 3,
        )
        for h, w in ((40, 50), (30, 70))
    ]
    clip = collate(samples, 1, 32)
    assert clip.frames.shape == (2, 3, 3, 64, 96) and clip.labels.shape == clip.valid.shape == (2, 3, 64, 96)
    assert clip.valid[0, :, :40, :50].all() and clip.valid[0].sum() == 3 * 40 * 50
    assert clip.labels[1].sum() == 3 * 30 * 70 and (clip.frames[1, :, :, 30:] == 0).all()


# Filters


def coco_image(*objects: tuple[float, float, float, bool], size=(480, 640)) -> CocoImage:
    made = tuple(
        CocoObject(i, "cat", area, (0.0, 0.0, w, h), crowd, ()) for i, (area, w, h, crowd) in enumerate(objects)
    )
    return CocoImage(1, None, *size, made)


def test_filters_drop_small_thin_and_crowd_objects():
    image = coco_image((2001, 50, 50, False), (2000, 50, 50, False), (9000, 20, 500, False), (9000, 90, 90, True))
    kept = usable([image, coco_image((100, 10, 10, False))], options())
    assert [len(candidate.objects) for candidate in kept] == [1]


def test_filters_scale_with_the_image_where_told():
    half = coco_image((600, 25, 25, False), size=(240, 320))
    assert usable([half], options()) == []
    assert len(usable([half], options(filter_pixels=640 * 480))) == 1
    assert scaled_area(2000, (240, 320), options(filter_pixels=640 * 480)) == 500


def test_objects_must_show_at_stride_8():
    labels = np.zeros((64, 64), np.uint8)
    labels[8:40, 8:40] = 1
    labels[50:52, 50:52] = 2
    assert visible_at_stride_8(np.minimum(labels, 1), 1) and not visible_at_stride_8(labels, 2)


def test_image_clip_of_a_file(tmp_path):
    image, labels = coloured((480, 640)[::-1])
    folder = tmp_path / "coco" / "train2017"
    folder.mkdir(parents=True)
    Image.fromarray(image).save(folder / "000000000001.jpg", quality=95)
    (tmp_path / "coco" / "annotations").mkdir()
    box = [200.0, 200.0, 420.0, 200.0, 420.0, 420.0, 200.0, 420.0]
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "area": 48400.0,
        "bbox": [200, 200, 220, 220],
    }
    content = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "height": 640, "width": 480}],
        "annotations": [annotation | {"segmentation": [box]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    clips = ImageClips(options(pixels=30_000), tmp_path)
    sample = clips.make(0, 1, np.random.default_rng(0))
    assert sample.frames.shape == (3, 200, 150, 3) and sample.labels.shape == (3, 200, 150)
    assert sample.annotated == (True, True, True) and set(np.unique(sample.labels)) <= {0, 1}
    assert (sample.labels[0] == 1).sum() > 64 and not sample.labels[~sample.valid].any()


# Videos


class FakeVideo(Video):
    """A video whose labels are given as arrays."""

    def labels(self, frame):
        return LABELS[frame]


LABELS: dict[str, np.ndarray] = {}


def video(sizes: dict[int, int], frames: int = 9) -> Video:
    """Labelled at the given positions by one square object of the given side."""
    for position, side in sizes.items():
        labels = np.zeros((100, 120), np.uint8)
        labels[:side, :side] = 1
        labels[99, 119] = 255
        LABELS[f"{position:05d}"] = labels
    names = tuple(f"{i:05d}" for i in range(frames))
    return FakeVideo("v", names, None, None, 100, 120, tuple(f"{i:05d}" for i in sorted(sizes)), {1: "00000"})


@pytest.mark.parametrize(("rule", "expected"), [("middle", 4), ("last", 8)])
def test_annotated_frame_is_the_middle_or_the_last_with_a_large_object(rule, expected):
    stage = options(kind="sparse-video", annotated_frame=rule, min_area=400, min_side=20)
    source = Source(dataset="davis", split="train", max_distance=6)
    found = usable_video(video({i: 40 for i in range(9)}), source, stage)
    assert found.annotated == expected and found.objects == (1,)
    # Where that frame has none that is large enough, the next in order that has one.
    sides_of = {i: 40 for i in range(9)} | {4: 5, 8: 5}
    found = usable_video(video(sides_of), source, stage)
    assert found.annotated == (3 if rule == "middle" else 7)
    assert usable_video(video({i: 5 for i in range(9)}), source, stage) is None
    assert usable_video(video({0: 40}, frames=2), source, stage) is None  # no two frames beside it


def test_void_is_no_object():
    labels = np.full((100, 120), 255, np.uint8)
    assert large_objects(labels, options()) == ()


def test_other_frames_lie_on_one_side_within_the_distance_unsorted():
    source = Source(dataset="davis", split="train", max_distance=3)
    seen, unsorted = set(), 0
    for seed in range(200):
        others = other_frames(20, 10, 2, source, np.random.default_rng(seed))
        assert len(set(others)) == 2 and 10 not in others and all(abs(i - 10) <= 3 for i in others)
        assert (others[0] < 10) == (others[1] < 10)
        seen.add(others[0] < 10)
        unsorted += others[0] > others[1]
    assert seen == {True, False} and 60 < unsorted < 140
    for seed in range(20):
        assert max(other_frames(20, 19, 2, source, np.random.default_rng(seed))) < 19
    assert [len(side) for side in sides(20, 1, 3)] == [1, 3]


def test_a_dense_clip_takes_later_labelled_frames_within_the_distance():
    source = Source(dataset="davis", split="train", max_distance=3)
    found = video({0: 40, 2: 40, 3: 40, 4: 40, 8: 40})
    assert following(found, 0, source) == [2, 3] and following(found, 4, source) == []
    assert possible_references(found, source, 2) == (0, 2) and possible_references(found, source, 1) == (0, 2, 3)


@pytest.fixture
def dense(world) -> DenseVideoClips:
    stage = options(
        kind="dense-video",
        sources=[
            {"dataset": "youtube-vos", "split": "train", "share": 0.8, "max_distance": 4},
            {"dataset": "davis", "split": "train", "share": 0.2, "max_distance": 3},
        ],
        steps=50,
        batch=2,
        pixels=None,
        short_side=64,
        min_area=60,
        min_side=4,
        max_objects=2,
    )
    return DenseVideoClips(stage, world)


def test_dense_clips_are_labelled_throughout_in_equal_shares_of_object_counts(dense):
    plan = dense.plan(0)
    assert plan.items.shape == (50, 2) and set(plan.objects) == {1, 2}
    assert abs((plan.objects == 1).mean() - 0.5) < 0.15
    names = [dense.candidates[i].source.dataset for i in plan.items.ravel()]
    assert 0.7 < names.count("youtube-vos") / len(names) < 0.9
    later = 0
    for step in range(8):
        sample = dense.make(int(plan.items[step, 0]), int(plan.objects[step]), np.random.default_rng(step))
        assert sample.annotated == (True, True, True) and len(sample.frames) == 3
        assert set(np.unique(sample.labels[0])) - {0} == set(range(1, plan.objects[step] + 1))
        later += sample.labels[1:].any()
    assert later == 8


def test_a_dense_clip_that_no_frame_can_give_is_an_error(dense):
    dense.options = dense.options.model_copy(update={"min_area": 1e6})
    with pytest.raises(HodorError, match="no frame shows 1 objects"):
        dense.make(0, 1, np.random.default_rng(0))


def test_videos_without_enough_labelled_frames_are_an_error(world):
    sources = [{"dataset": "davis", "split": "train", "max_distance": 1}]
    stage = options(kind="dense-video", sources=sources, pixels=None, short_side=64)
    with pytest.raises(HodorError, match="max_distance"):
        DenseVideoClips(stage, world)


# What the papers leave open


def test_kept_crowds_overlap_and_exposed_edges_are_options(tmp_path):
    def thing(i: int, area: float, crowd: bool = False) -> CocoObject:
        return CocoObject(i, "cat", area, (0, 0, 100, 100), crowd, ())

    image = CocoImage(1, tmp_path / "a.jpg", 480, 640, (thing(1, 9000, crowd=True), thing(2, 5000)))
    assert [len(usable([image], options(crowds=rule))[0].objects) for rule in ("drop", "keep")] == [1, 2]
    picture, labels = coloured()
    move = warps.affine(labels.shape, shift=(0.5, 0), rotation=0, shear=0)
    moved, moved_labels, valid = warps.apply(picture, labels, move, labels.shape, keep_edge=True)
    assert valid.all() and (moved[:, :40] == 40).all() and not moved_labels[:, :40].any()


@pytest.mark.parametrize(("rule", "on_top"), [("file-order", 2), ("smaller-on-top", 1)])
def test_which_of_two_overlapping_objects_is_on_top(tmp_path, rule, on_top, monkeypatch):
    def square(i: int, left: float, side: float) -> dict:
        box = [left, 20.0, left + side, 20.0, left + side, 20.0 + side, left, 20.0 + side]
        common = {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": side * side}
        return common | {"bbox": [left, 20, side, side], "segmentation": [box]}

    folder = tmp_path / "coco" / "train2017"
    folder.mkdir(parents=True)
    Image.fromarray(coloured((120, 160))[0]).save(folder / "000000000001.jpg")
    (tmp_path / "coco" / "annotations").mkdir()
    # The first object of the file is small and lies inside the second.
    content = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "height": 120, "width": 160}],
        "annotations": [square(1, 60, 40), square(2, 20, 90)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    stage = options(overlap=rule, pixels=19200, min_area=100, min_side=5)
    clips = ImageClips(stage, tmp_path)
    monkeypatch.setattr(augment, "image_warps", lambda *_: [np.eye(3)] * 3)
    seen = clips.make(0, 2, np.random.default_rng(0)).labels[0]
    area = {i: int((seen == i).sum()) for i in (1, 2)}
    if on_top == 2:  # the large one covers the small one wholly
        assert sum(count > 0 for count in area.values()) == 1
    else:
        assert sorted(area.values())[0] == pytest.approx(1600, rel=0.1)
