"""Clips of static-image training: ranges, labels that move with the image, selection of objects, plans."""

import numpy as np
import pytest
from pydantic import ValidationError

from hodor.config.stages import StageOptions
from hodor.data import clips_static
from hodor.data import transforms as warps
from hodor.data.clips_static import AffineClips, StcnClips
from tests.data.datasets import PALETTE, scene, write_ecssd, write_voc2012
from tests.refused import refused

KINDS = {"static-affine": AffineClips, "static-stcn": StcnClips}
KIND = pytest.mark.parametrize("kind", list(KINDS))
BASE = {"steps": 40, "batch": 2, "learning_rate": 1e-5, "crop": 96, "min_area": 60, "max_objects": 3, "colour": False}
TWO = ((20, 90, 20, 100), (60, 130, 110, 180))


@pytest.fixture
def clips(tmp_path):
    """Makes clips of VOC-like images with the given boxes as objects."""

    def make(kind, *scenes, size=(150, 200), source=None, void=(), **changes):
        labels = [scene(*boxes, size=size, void=void) for boxes in scenes or (TWO,)]
        if not (tmp_path / "voc2012").exists():
            write_voc2012(tmp_path / "voc2012", *labels)
        sources = [{"dataset": "voc2012", "split": "trainval"} | (source or {})]
        return KINDS[kind](StageOptions(kind=kind, sources=sources, **BASE | changes), tmp_path)

    return make


def decompose(homography: np.ndarray) -> dict[str, float]:
    """Rotation (degrees), shear (degrees) and factors of an affine map: turn @ shear @ zoom."""
    part = homography[:2, :2]
    if np.linalg.det(part) < 0:
        part = part @ np.diag([-1, 1])
    angle = np.arctan2(part[1, 0], part[0, 0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rest = turn.T @ part
    return {
        "rotation": np.rad2deg(angle),
        "shear": np.rad2deg(np.arctan(rest[0, 1] / rest[1, 1])),
        "across": rest[0, 0],
        "down": rest[1, 1],
        "flipped": float(np.linalg.det(homography[:2, :2]) < 0),
    }


def recorded(source, monkeypatch, count: int) -> list[list[np.ndarray]]:
    """The homographies of the frames of `count` clips."""
    seen: list[np.ndarray] = []
    apply = warps.apply
    monkeypatch.setattr(warps, "apply", lambda *a, **k: seen.append(a[2]) or apply(*a, **k))
    out = []
    for seed in range(count):
        seen.clear()
        source.make(0, 1, np.random.default_rng(seed))
        out.append(list(seen))
    return out


def spread(values, low: float, high: float) -> bool:
    """Whether values are between the bounds, come close to both, and have their middle as mean."""
    values, room = np.asarray(values), 0.06 * (high - low)
    least, most = values.min(), values.max()
    close = low - 1e-6 <= least < low + room and high - room < most <= high + 1e-6
    return close and abs(values.mean() - (low + high) / 2) < room


@KIND
def test_ranges_of_what_is_drawn(clips, monkeypatch, kind):
    monkeypatch.setattr(clips_static, "THIN_PLATE", 0.0)
    source, cameras = clips(kind), []
    camera = source.camera
    monkeypatch.setattr(source, "camera", lambda *a: cameras.append(camera(*a)) or cameras[-1])
    found = [[decompose(h) for h in frames] for frames in recorded(source, monkeypatch, 250)]
    flat = [values for frames in found for values in frames]
    assert spread([v["rotation"] for v in flat], -20, 20) and spread([v["shear"] for v in flat], -10, 10)
    # The source's sides are scaled to whole pixels: one factor differs by half a pixel.
    scales = [c.onto[1, 1] * c.scale for c in cameras]
    zooms = [(v["across"] / s, v["down"] / s) for frames, s in zip(found, scales, strict=True) for v in frames]
    assert spread([down for _, down in zooms], 0.9, 1.1) and np.ptp([across for across, _ in zooms]) > 0.19
    if kind == "static-affine":
        assert spread([c.canvas[0] for c in cameras], 96, 150)  # short side
        assert abs(np.corrcoef(np.array(zooms).T)[0, 1]) < 0.15  # width and height independently
    else:
        assert spread([c.scale for c in cameras], 0.8, 1.5)
        assert all(abs(v["across"] / v["down"] - 1) < 0.01 for v in flat)  # one factor for both
    flips = [{v["flipped"] for v in frames} for frames in found]
    assert all(len(each) == 1 for each in flips) and 90 < sum(each == {1.0} for each in flips) < 160
    assert all(len({v["rotation"] for v in frames}) == len(frames) for frames in found)  # one for each frame


@KIND
@pytest.mark.parametrize("thin_plate", [0.0, 1.0])
def test_labels_move_with_the_image(clips, monkeypatch, kind, thin_plate):
    """Away from edges the colour of a pixel shows its label."""
    monkeypatch.setattr(clips_static, "THIN_PLATE", thin_plate)
    source = clips(kind)
    for seed in range(12):
        sample = source.make(0, 2, np.random.default_rng(seed))
        order = [0, *(1 + np.array(sorted_ids(sample)))]
        nearest = np.abs(sample.frames[..., None, :].astype(int) - PALETTE[:3]).sum(-1).argmin(-1)
        wrong = sample.valid & (nearest != np.array(order)[sample.labels])
        assert wrong.sum() < 0.03 * sample.valid.sum() + 10
        assert not sample.labels[~sample.valid].any() and not sample.frames[~sample.valid].any()


def sorted_ids(sample) -> list[int]:
    """The objects of the scene that the labels 1, 2, ... are, by their colours."""
    nearest = np.abs(sample.frames[..., None, :].astype(int) - PALETTE[1:3]).sum(-1).argmin(-1)
    return [int(np.bincount(nearest[sample.labels == i]).argmax()) for i in range(1, int(sample.labels.max()) + 1)]


def test_stcn_cuts_off_the_canvas_before_the_turn(clips, monkeypatch):
    """Enlarged by 1.5 and turned, the whole picture would fill the frame."""
    monkeypatch.setattr(clips_static, "SCALE", (1.5, 1.5))
    monkeypatch.setattr(clips_static, "FRAME_SCALE", (1.0, 1.0))
    monkeypatch.setattr(clips_static, "SHEAR", 0.0)
    for thin_plate in (0.0, 1.0):
        monkeypatch.setattr(clips_static, "THIN_PLATE", thin_plate)
        source = clips("static-stcn", size=(150, 150), source=None)
        missing = [1 - source.make(0, 1, np.random.default_rng(seed)).valid.mean() for seed in range(20)]
        assert 0.02 < np.mean(missing) < 0.2


# Objects


@KIND
def test_objects_are_those_that_the_first_frame_shows_large_enough(clips, kind):
    many = ((10, 60, 10, 60), (10, 60, 90, 140), (80, 130, 10, 60), (80, 130, 90, 140), (70, 75, 70, 75))
    source = clips(kind, many, size=(140, 150), min_area=150)
    full = 0
    for seed in range(30):
        sample = source.make(0, 3, np.random.default_rng(seed))
        areas = np.bincount(sample.labels[0].ravel(), minlength=4)[1:]
        there = areas[: sample.labels.max()]
        assert sample.labels.max() <= 3 and (there >= 150).all() and sample.labels[0].any()
        full += (areas > 0).all()
    assert full >= 28  # frames that show fewer are drawn again


@KIND
@pytest.mark.parametrize("box", [(0, 6, 0, 6), (144, 150, 594, 600)])
def test_no_clip_starts_without_an_object(clips, kind, box):
    """A small object in a corner is mostly outside the crop: the clip is then cut around it."""
    source = clips(kind, (box,), size=(150, 600), min_area=10)
    for seed in range(15):
        sample = source.make(0, 1, np.random.default_rng(seed))
        assert (sample.labels[0] == 1).sum() >= 1 and sample.frames.shape == (3, 96, 96, 3)


def test_images_without_a_large_object_are_left_out(clips):
    small, large = ((0, 9, 0, 9),), ((0, 40, 0, 40),)
    source = clips("static-affine", small, large, ((0, 40, 0, 40), (50, 54, 50, 54)), min_area=100)
    assert [len(candidate.objects) for candidate in source.candidates] == [1, 1]
    assert {int(i) for i in np.unique(source.plan(0).items)} == {0, 1}
    scaled = clips("static-affine", min_area=1000, filter_pixels=384 * 384)
    assert scaled.candidates[0].least == pytest.approx(1000 * 96 * 96 / (384 * 384))
    refused("min_area", clips("static-affine", min_area=1e6).plan, 0)


@KIND
def test_void_stays_void_in_every_frame(clips, kind):
    source = clips(kind, void=((0, 150, 100, 110),))
    seen = 0
    for seed in range(12):
        sample = source.make(0, 2, np.random.default_rng(seed))
        assert set(np.unique(sample.labels)) <= {0, 1, 2, 255}
        seen += sum((frame == 255).any() for frame in sample.labels)
        assert not (sample.labels[~sample.valid] == 255).any()
    assert seen > 18


@KIND
def test_images_of_one_object_have_no_least_area_and_may_show_none(tmp_path, kind):
    for name, boxes in (("full", [(40, 50, 40, 50)]), ("empty", [])):
        write_ecssd(tmp_path / name / "ecssd", labels=scene(*boxes, size=(100, 100)))
        stage = StageOptions(
            **BASE | {"kind": kind, "sources": [{"dataset": "ecssd", "split": "all"}], "min_area": 9000}
        )
        source = KINDS[kind](stage, tmp_path / name)
        sample = source.make(0, 1, np.random.default_rng(0))
        assert len(source.candidates) == 2 and (sample.labels[0] == 1).any() == bool(boxes) and sample.valid.any()


# Plans


def test_plan_holds_every_image_repeat_times_with_its_number_of_objects(clips):
    one, three = ((0, 40, 0, 40),), ((0, 40, 0, 40), (50, 90, 0, 40), (100, 140, 0, 40), (0, 40, 50, 90))
    source = clips("static-affine", one, three, one, one, source={"repeat": 2}, steps=4)
    plan = source.plan(0)
    numbers = {0: 1, 1: 3, 2: 1, 3: 1}
    for items, objects in zip(plan.items, plan.objects, strict=True):
        assert {numbers[int(item)] for item in items} == {int(objects)}  # one number of objects a batch
    assert sorted(plan.items.ravel().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    limited = clips("static-affine", source={"limit": 2}, steps=30)
    assert len(set(limited.plan(0).items.ravel().tolist())) == 2


@KIND
def test_colours_change_only_where_set(clips, kind):
    plain, vivid = (clips(kind, ((60, 90, 80, 120),), colour=colour) for colour in (False, True))
    changed = []
    for seed in range(20):
        means = []
        for source in (plain, vivid):
            sample = source.make(0, 1, np.random.default_rng(seed))
            shown = sample.valid & (sample.labels == 0)
            means.append([np.median(f[s], axis=0) for f, s in zip(sample.frames, shown, strict=True)])
        assert np.abs(np.array(means[0]) - PALETTE[0]).max() <= 2
        changed.append(np.abs(np.array(means[1]) - PALETTE[0]).max() > 2)
        shared = np.ptp(means[1], axis=0).max() <= 2
        assert shared or kind == "static-stcn"  # which changes the colours of each frame besides
    assert sum(changed) > 4


# Settings


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"crop": None}, "needs `crop`"),
        ({"short_side": 96}, "none of `pixels`"),
        ({"crop": 100}, "multiple of `padding_multiple`"),
        ({"kind": "images", "pixels": 9216}, "`crop` and `hide_and_seek` are for"),
        ({"kind": "images", "pixels": 9216, "crop": None, "hide_and_seek": {}}, "`crop` and `hide_and_seek` are for"),
        ({"kind": "images", "pixels": 9216, "crop": None, "short_side": 64}, "exactly one of"),
        ({"kind": "images", "crop": None}, "exactly one of"),
        ({"kind": "images", "pixels": 9216, "crop": None, "frames": 4}, "frames: 3"),
        ({"hide_and_seek": {"labels": "none"}}, "hide_and_seek.labels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    sources = [{"dataset": "voc2012", "split": "trainval"}]
    with pytest.raises(ValidationError, match=message):
        StageOptions(**{"kind": "static-affine", "sources": sources, **BASE, **changes})


def test_centre_of_an_object_is_on_it():
    ring = np.zeros((21, 21), np.uint8)
    ring[2:19, 2:19], ring[5:16, 5:16] = 1, 0
    x, y = clips_static.centre_of(ring)
    assert ring[int(y * 21), int(x * 21)] == 1
    assert clips_static.centre_of(np.full((4, 4), 255, np.uint8)) == (0.5, 0.5)
