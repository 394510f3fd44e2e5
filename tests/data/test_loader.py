"""The loader: the same batches for any number of workers and processes, and after a resumption; no seed twice."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hodor.data.clip import Clip
from hodor.data.dataset import Plan, PlannedClips, Sample, clips_from
from hodor.training.trainer import CLIPS
from tests.data.stages import STAGES, stage
from tests.refused import refused


def planned(data, kind: str, steps: int = 5, seed: int = 3, **slice) -> PlannedClips:
    hidden = {"hide_and_seek": {"grid": 4}} if kind == "static-stcn" else {}
    source = CLIPS[kind](stage(kind, steps=steps, batch=4, **hidden), data)
    return PlannedClips(source, seed=seed, multiple=32, **slice)


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
        source = SimpleNamespace(plan=lambda seed: plan, make=make, size=lambda *_: (8, 8))
        clips = PlannedClips(source, seed=1, multiple=8, **part)
        for step in range(first, steps):
            clips[step]
        return list(drawn)

    whole = numbers(0)
    assert len(set(whole)) == steps * batch
    assert numbers(480) == whole[480 * batch :]
    ranks = [numbers(480, rank=rank, world=4) for rank in range(4)]
    assert sorted(sum(ranks, [])) == sorted(whole[480 * batch :])


def test_a_batch_that_cannot_be_shared_is_refused(world):
    refused("a batch of 4 clips cannot be shared by 3 processes", planned, world, "images", rank=0, world=3)
