"""Batches of training clips: planned once from the seed, made by step number, loaded by worker processes.

A batch holds clips with the same number of objects and aspect ratios within 0.1 (hodor specification 5.1).
"""

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hodor.config.stages import Source
from hodor.data.clip import Clip
from hodor.errors import HodorError


@dataclass(frozen=True)
class Plan:
    """Candidates `items` (steps, batch) of a stage, and the number of `objects` (steps,) of each batch."""

    items: np.ndarray
    objects: np.ndarray


def plan_batches(
    items: np.ndarray, objects: np.ndarray, aspects: np.ndarray, *, steps: int, batch: int, seed: int
) -> Plan:
    """Group samples into batches and shuffle the batches.

    Incomplete batches are filled with further samples of the same kind; if the samples do not suffice for all steps,
    they are used again in another order.

    `items`, `objects`, `aspects`: candidate, number of objects, and height / width of each sample; HodorError if there
    is none. `steps`, `batch`: number of batches, and of samples in each.
    """
    if len(items) == 0:
        raise HodorError("no training sample is left after filtering: lower `min_area` or `min_side` of the stage")
    rng = np.random.default_rng([seed, 2202])
    kinds, kind = np.unique(np.stack([objects, np.floor(aspects / 0.1)], 1), axis=0, return_inverse=True)
    rows: list[np.ndarray] = []
    while len(rows) < steps:
        made: list[np.ndarray] = []
        for k in range(len(kinds)):
            members = rng.permutation(np.flatnonzero(kind.ravel() == k))
            members = np.concatenate([members, rng.choice(members, -len(members) % batch)])
            made += list(members.reshape(-1, batch))
        rows += [made[i] for i in rng.permutation(len(made))]
    planned = np.stack(rows[:steps])
    return Plan(items[planned], objects[planned[:, 0]])


def in_rounds(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` of the members (n,) in rounds of all members, each round in another order."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*rounds, members[:0]])[:count]


def equal_object_counts(valid_objects: Sequence[int], total: int, maximum: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items and object counts of about `total` samples, in equal shares of the counts 1..`maximum`.

    Items with at least n valid objects are cycled for count n; counts that no item reaches are left out.
    """
    numbers = np.asarray(valid_objects)
    pools = [(n, np.flatnonzero(numbers >= n)) for n in range(maximum, 0, -1) if (numbers >= n).any()]
    if not pools:
        return np.zeros(0, int), np.zeros(0, int)
    share = -(-total // len(pools))
    return np.concatenate([np.resize(pool, share) for _, pool in pools]), np.repeat([n for n, _ in pools], share)


def pool(counts: Sequence[int], sources: Sequence[Source], seed: int) -> np.ndarray:
    """Return the numbers of the images in the pool of a stage: of each source `limit` by the seed, `repeat` times.

    `counts`: number of images of each source; images are numbered through all sources.
    """
    rng = np.random.default_rng([seed, 1313])
    parts, first = [np.zeros(0, int)], 0
    for count, source in zip(counts, sources, strict=True):
        members = np.arange(first, first + count)
        if source.limit is not None and count > source.limit:
            members = np.sort(rng.choice(members, source.limit, replace=False))
        parts += [members] * source.repeat
        first += count
    return np.concatenate(parts)


@dataclass(frozen=True)
class Sample:
    """One clip before batching: frames uint8 (T, h, w, 3), labels uint8 (T, h, w), valid bool (T, h, w), T flags."""

    frames: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    annotated: tuple[bool, ...]


def collate(
    samples: Sequence[Sample], objects: int, multiple: int, sizes: Sequence[tuple[int, int]] | None = None
) -> Clip:
    """Pad samples right and below to the greatest size of the batch, rounded up to `multiple`, and stack them.

    `sizes`: heights and widths of all samples of the batch, if `samples` are only a part of it.
    """
    frames = len(samples[0].frames)
    sizes = sizes or [s.labels.shape[1:] for s in samples]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    height, width = height + -height % multiple, width + -width % multiple
    shape = (len(samples), frames, height, width)
    tensors = _zeros((len(samples), frames, 3, height, width)), _zeros(shape), _zeros(shape).view(torch.bool)
    images, labels, valid = (tensor.numpy() for tensor in tensors)
    for i, sample in enumerate(samples):
        _, h, w = sample.labels.shape
        labels[i, :, :h, :w], valid[i, :, :h, :w] = sample.labels, sample.valid
        for frame, channels in zip(sample.frames, images[i], strict=True):
            padded = cv2.copyMakeBorder(frame, 0, height - h, 0, width - w, cv2.BORDER_CONSTANT)
            cv2.split(padded, list(channels))  # writes into the batch
    return Clip(*tensors, objects, samples[0].annotated)


def _zeros(shape: tuple[int, ...]) -> torch.Tensor:
    """Return uint8 zeros; in a worker of the loader in shared memory, so that its result is not copied."""
    if get_worker_info() is None:
        return torch.from_numpy(np.zeros(shape, np.uint8))  # in huge pages, which torch does not ask for
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own `default_collate`
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)


class PlannedClips(Dataset):
    """Batches by step number: the clip of a step depends on the seed, the step and nothing else.

    Of `world` data-parallel workers, number `rank` gets its part of each batch: the same samples, of the same size, as
    in the whole batch. The parts together are the batch. HodorError for a batch that `world` does not divide.

    Args:
        source: plans and makes the samples (`clips_image.Clips`).
        seed: of the run. The random numbers of a sample depend on it, the step and the place in the batch.
        multiple: sides are padded to multiples of it.
    """

    def __init__(self, source: Any, *, seed: int, multiple: int, rank: int = 0, world: int = 1) -> None:
        self.source, self.plan, self.seed, self.multiple = source, source.plan(seed), seed, multiple
        batch = self.plan.items.shape[1]
        if batch % world:
            raise HodorError(f"a batch of {batch} clips cannot be shared by {world} processes: change `batch`")
        self.places = range(rank * batch // world, (rank + 1) * batch // world)

    def __len__(self) -> int:
        return len(self.plan.items)

    def __getitem__(self, step: int) -> Clip:
        objects, items = int(self.plan.objects[step]), self.plan.items[step]
        samples = [
            self.source.make(int(items[place]), objects, self._random(step, place), step) for place in self.places
        ]
        sizes = None
        if len(self.places) < len(items):
            draws = [self._random(step, place) for place in range(len(items))]
            sizes = [self.source.size(int(item), objects, rng) for item, rng in zip(items, draws, strict=True)]
        clip = collate(samples, objects, self.multiple, sizes)
        return replace(clip, first=self.places[0], whole=len(items))

    def _random(self, step: int, place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step, place])


def clips_from(dataset: PlannedClips, start: int, *, workers: int, pinned: bool = False) -> Iterator[Clip]:
    """Yield the clips from step `start` on, if `pinned` in pinned memory; the same for any number of workers."""
    yield from DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        pin_memory=pinned,
        # Its own generator: the loader would draw from the global one, and a resumed run would differ.
        generator=torch.Generator(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker if workers else None,
    )


def _start_worker(_: int) -> None:
    # Signals to the process group are for the training, which stops after its checkpoint and ends its workers.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
