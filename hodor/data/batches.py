"""Which samples make which batch: planned once from the seed, so that the position in training is the step number.

Batches hold clips with the same number of objects and aspect ratios within 0.1 (specification section 5.1).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hodor.data.clip import Clip
from hodor.errors import HodorError

ASPECT_STEP = 0.1


@dataclass(frozen=True)
class Sample:
    """One clip before batching: T frames of one size, as arrays.

    frames: uint8 (T, h, w, 3); labels: uint8 (T, h, w); valid: bool (T, h, w); annotated: T flags.
    """

    frames: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    annotated: tuple[bool, ...]


@dataclass(frozen=True)
class Plan:
    """`items` (steps, batch) indexes what a source lists, `objects` (steps,) is the number of objects of the batch."""

    items: np.ndarray
    objects: np.ndarray


def plan_batches(
    items: np.ndarray, objects: np.ndarray, aspects: np.ndarray, *, steps: int, batch: int, seed: int
) -> Plan:
    """Group samples into batches and shuffle the batches.

    Args:
        items, objects, aspects: one entry a sample: what it is made of, its number of objects, its height / width.
        steps, batch: how many batches of how many samples are wanted.
        seed: decides the order.

    Samples that fill no batch of their kind are topped up by others of the same kind; if the samples do not last for
    all steps they are used again in another order.
    """
    if len(items) == 0:
        raise HodorError("no training sample is left after filtering: lower `min_area` or `min_side` of the stage")
    rng = np.random.default_rng([seed, 2202])
    kinds, kind = np.unique(np.stack([objects, np.floor(aspects / ASPECT_STEP)], 1), axis=0, return_inverse=True)
    batches, counts = [], []
    while len(batches) < steps:
        made = []
        for k in range(len(kinds)):
            members = rng.permutation(np.flatnonzero(kind.ravel() == k))
            members = np.concatenate([members, rng.choice(members, -len(members) % batch)])
            made += [(items[row], int(kinds[k][0])) for row in members.reshape(-1, batch)]
        for i in rng.permutation(len(made)):
            batches.append(made[i][0])
            counts.append(made[i][1])
    return Plan(np.stack(batches[:steps]), np.array(counts[:steps]))


def in_rounds(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the members (n,), all of them once a round, each round in another order."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*rounds, members[:0]])[:count]


def equal_object_counts(valid_objects: Sequence[int], total: int, maximum: int) -> tuple[np.ndarray, np.ndarray]:
    """Items and object counts of about `total` samples, shared equally between the counts 1..`maximum`.

    The pool of a count holds the items with at least so many valid objects, cycled in their order. Counts that no item
    reaches are left out.
    """
    numbers = np.asarray(valid_objects)
    pools = [(n, np.flatnonzero(numbers >= n)) for n in range(maximum, 0, -1)]
    pools = [(n, pool) for n, pool in pools if len(pool)]
    if not pools:
        return np.zeros(0, int), np.zeros(0, int)
    share = -(-total // len(pools))
    items = [np.resize(pool, share) for _, pool in pools]
    return np.concatenate(items), np.repeat([n for n, _ in pools], share)


def collate(samples: Sequence[Sample], objects: int, multiple: int) -> Clip:
    """Pad samples right and below to the largest size of the batch, rounded up to `multiple`, and stack them."""
    frames = len(samples[0].frames)
    height, width = (max(s.labels.shape[axis] for s in samples) for axis in (1, 2))
    height, width = height + -height % multiple, width + -width % multiple
    images = np.zeros((len(samples), frames, height, width, 3), np.uint8)
    labels = np.zeros((len(samples), frames, height, width), np.uint8)
    valid = np.zeros((len(samples), frames, height, width), bool)
    for i, sample in enumerate(samples):
        _, h, w = sample.labels.shape
        images[i, :, :h, :w], labels[i, :, :h, :w], valid[i, :, :h, :w] = (
            sample.frames,
            sample.labels,
            sample.valid,
        )
    channels_first = torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous()
    return Clip(channels_first, torch.from_numpy(labels), torch.from_numpy(valid), objects, samples[0].annotated)


class PlannedClips(Dataset):
    """Batches by step number: the clip of step s is the same whoever asks, in whatever order."""

    def __init__(
        self, plan: Plan, make: Callable[[int, int, np.random.Generator, int], Sample], *, seed: int, multiple: int
    ) -> None:
        self.plan, self.make, self.seed, self.multiple = plan, make, seed, multiple

    def __len__(self) -> int:
        return len(self.plan.items)

    def __getitem__(self, step: int) -> Clip:
        objects = int(self.plan.objects[step])
        samples = [
            self.make(int(item), objects, np.random.default_rng([self.seed, step, place]), step)
            for place, item in enumerate(self.plan.items[step])
        ]
        return collate(samples, objects, self.multiple)


def clips_from(dataset: PlannedClips, start: int, *, workers: int) -> Iterator[Clip]:
    """The clips of steps `start`, `start` + 1, ...; any number of worker processes gives the same ones."""
    yield from DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        # Its own random numbers: from the global ones it would take some, and a resumed run would go another way.
        generator=torch.Generator(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )


def _one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
