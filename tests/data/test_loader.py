"""The loader: the same batches for any number of workers and processes, and after a resumption; no seed twice."""

import random

import numpy as np
import pytest
import torch

from hodor.config.stages import StageOptions
from hodor.data.clip import Clip
from hodor.data.dataset import Plan, PlannedClips, Sample, clips_from
from hodor.errors import HodorError
from hodor.training.trainer import CLIPS

COCO = [{"dataset": "coco", "split": "train2017"}]
VIDEOS = [
    {"dataset": "youtube-vos", "split": "train", "share": 0.5, "max_distance": 4},
    {"dataset": "davis", "split": "train", "share": 0.5, "max_distance": 3},
]
STAGES = {
    "images": {"sources": COCO, "pixels": 4096},
    "sparse-video": {"sources": VIDEOS, "short_side": 48},
    "dense-video": {"sources": VIDEOS, "short_side": 48},
    "static-affine": {"sources": COCO, "crop": 64},
    "static-stcn": {"sources": COCO, "crop": 64, "hide_and_seek": {"grid": 4}},
}


def planned(data, kind: str, steps: int = 5, seed: int = 3, **slice) -> PlannedClips:
    common = {"steps": steps, "batch": 4, "learning_rate": 1e-3, "min_area": 40, "min_side": 3, "max_objects": 2}
    source = CLIPS[kind](StageOptions(kind=kind, **common | STAGES[kind]), data)
    return PlannedClips(source.plan(seed), source.make, source.size, seed=seed, multiple=32, **slice)


def same(ours: Clip, theirs: Clip) -> bool:
    assert (ours.objects, ours.annotated) == (theirs.objects, theirs.annotated)
    return all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("frames", "labels", "valid"))


def joined(parts: list[Clip]) -> Clip:
    """The clip whose parts several processes hold."""
    tensors = (torch.cat([getattr(part, name) for part in parts]) for name in ("frames", "labels", "valid"))
    return Clip(*tensors, parts[0].objects, parts[0].annotated)


@pytest.mark.parametrize("kind", STAGES)
def test_parts_of_all_processes_are_the_batch(world, kind):
    whole = planned(world, kind)
    for processes in (2, 4):
        parts = [planned(world, kind, rank=rank, world=processes) for rank in range(processes)]
        for step in range(5):
            clips = [part[step] for part in parts]
            assert {clip.frames.shape[0] for clip in clips} == {4 // processes}
            assert same(joined(clips), whole[step])


def test_parts_have_the_size_of_the_whole_batch():
    """One sample is larger than the others: the process without it pads as well."""
    sides = [40, 70, 30, 30]

    def make(item, objects, rng, step):
        side = sides[item]
        frames = np.full((2, side, 30, 3), item + 1, np.uint8)
        return Sample(frames, frames[..., 0], np.ones((2, side, 30), bool), (True, True))

    plan = Plan(np.array([[0, 1, 2, 3]]), np.array([1]))
    parts = [
        PlannedClips(plan, make, lambda item, objects, rng: (sides[item], 30), seed=0, multiple=32, rank=r, world=2)[0]
        for r in range(2)
    ]
    assert [tuple(part.labels.shape) for part in parts] == [(2, 2, 96, 32)] * 2
    assert same(joined(parts), PlannedClips(plan, make, seed=0, multiple=32)[0])


@pytest.mark.parametrize("kind", STAGES)
def test_the_size_of_a_clip_is_known_before_it_is_made(world, kind):
    clips = planned(world, kind)
    for step in range(5):
        for place, item in enumerate(clips.plan.items[step]):
            arguments = int(item), int(clips.plan.objects[step])
            made = clips.make(*arguments, np.random.default_rng([3, step, place]), step)
            assert clips.size(*arguments, np.random.default_rng([3, step, place])) == made.labels.shape[1:]


@pytest.mark.parametrize("kind", ["images", "sparse-video"])
def test_batches_do_not_depend_on_workers_or_where_training_resumes(world, kind):
    clips = planned(world, kind, steps=9)
    alone = [clips[step] for step in range(9)]
    for workers in (1, 2):
        # Workers inherit the state of the global generators; none of it may matter.
        random.seed(workers), np.random.seed(workers), torch.manual_seed(workers)
        for start in (0, 4):
            loaded = list(clips_from(clips, start, workers=workers))
            assert len(loaded) == 9 - start
            assert all(same(ours, theirs) for ours, theirs in zip(loaded, alone[start:], strict=True))


class SharedTensors(PlannedClips):
    """Tells of each tensor of a batch whether it is in shared memory where it is made."""

    def __getitem__(self, step):
        clip = super().__getitem__(step)
        return [tensor.is_shared() for tensor in (clip.frames, clip.labels, clip.valid)]


def test_workers_make_batches_in_shared_memory(world):
    """So that handing them over copies nothing."""
    clips = planned(world, "images", steps=1)
    clips.__class__ = SharedTensors
    assert list(clips_from(clips, 0, workers=1)) == [[True] * 3]
    assert list(clips_from(clips, 0, workers=0)) == [[False] * 3]


def test_loading_leaves_the_random_numbers_of_training_alone(world):
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    list(clips_from(planned(world, "images", steps=3), 0, workers=1))
    list(clips_from(planned(world, "static-stcn", steps=3), 0, workers=0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]


def test_no_two_samples_of_a_training_share_their_random_numbers():
    """Whatever the rank, the worker or the step that training resumed at, a sample's numbers are those of its place."""
    steps, batch = 500, 16
    plan = Plan(np.zeros((steps, batch), int), np.ones(steps, int))
    drawn: list[bytes] = []

    def make(item, objects, rng, step):
        drawn.append(rng.bytes(16))
        empty = np.zeros((1, 8, 8), np.uint8)
        return Sample(empty[..., None].repeat(3, -1), empty, empty > 0, (True,))

    def numbers(first: int, **part) -> list[bytes]:
        drawn.clear()
        clips = PlannedClips(plan, make, lambda *_: (8, 8), seed=1, multiple=8, **part)
        for step in range(first, steps):
            clips[step]
        return list(drawn)

    whole = numbers(0)
    assert len(set(whole)) == steps * batch
    assert numbers(480) == whole[480 * batch :]
    ranks = [numbers(480, rank=rank, world=4) for rank in range(4)]
    assert sorted(sum(ranks, [])) == sorted(whole[480 * batch :])


def test_seeds_of_two_runs_do_not_meet(world):
    ours, theirs = planned(world, "images", seed=3), planned(world, "images", seed=4)
    made = [[c.make(0, 1, c._random(step, 0), step).frames for step in range(3)] for c in (ours, theirs)]
    assert not any(np.array_equal(a, b) for a in made[0] for b in made[1])


def test_a_batch_that_cannot_be_shared_is_refused(world):
    with pytest.raises(HodorError, match="a batch of 4 clips cannot be shared by 3 processes"):
        planned(world, "images", rank=0, world=3)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        planned(world, "images", rank=2, world=2)
