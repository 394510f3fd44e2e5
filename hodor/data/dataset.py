"""Batches of training clips: planned once from the seed, made by step number, loaded by worker processes.

The position in training is the step number. Batches hold clips with the same number of objects and aspect ratios within
0.1 (hodor specification 5.1).
"""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hodor.config.stages import Source
from hodor.data.clip import Clip
from hodor.errors import HodorError

ASPECT_STEP = 0.1


@dataclass(frozen=True)
class Plan:
    """`items` (steps, batch) indexes the candidates of a stage, `objects` (steps,) is each batch's number of objects."""

    items: np.ndarray
    objects: np.ndarray


def plan_batches(
    items: np.ndarray, objects: np.ndarray, aspects: np.ndarray, *, steps: int, batch: int, seed: int
) -> Plan:
    """Group samples into batches and shuffle the batches.

    Samples that fill no batch of their kind are topped up by others of the same kind; if the samples do not last for
    all steps they are used again in another order.

    Args:
        items, objects, aspects: one entry a sample: what it is made of, its number of objects, its height / width.
        steps, batch: number of batches, and of samples in each.
        seed: decides the order.

    Raises:
        HodorError: there is no sample.
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
    """Return `count` of the members (n,), all of them once a round, each round in another order."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*rounds, members[:0]])[:count]


def equal_object_counts(valid_objects: Sequence[int], total: int, maximum: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items and object counts of about `total` samples, shared equally between the counts 1..`maximum`.

    The pool of count n holds the items with at least n valid objects, cycled in their order. Counts that no item reaches
    are left out.
    """
    numbers = np.asarray(valid_objects)
    pools = [(n, np.flatnonzero(numbers >= n)) for n in range(maximum, 0, -1)]
    pools = [(n, pool) for n, pool in pools if len(pool)]
    if not pools:
        return np.zeros(0, int), np.zeros(0, int)
    share = -(-total // len(pools))
    return np.concatenate([np.resize(pool, share) for _, pool in pools]), np.repeat([n for n, _ in pools], share)


def pool(counts: Sequence[int], sources: Sequence[Source], seed: int) -> np.ndarray:
    """Return the image numbers in the pool of a stage, in the sources' order.

    Args:
        counts: number of images of each source; images are numbered through all sources.
        sources: their `limit` (the number of images drawn by the seed) and `repeat`.
        seed: of the run.
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
    """One clip before batching: T frames of one size, as arrays.

    frames: uint8 (T, h, w, 3); labels: uint8 (T, h, w); valid: bool (T, h, w); annotated: T flags.
    """

    frames: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    annotated: tuple[bool, ...]

    @classmethod
    def empty(cls, size: tuple[int, int], annotated: tuple[bool, ...]) -> "Sample":
        """Return a clip of frames of height and width `size`, to be written into."""
        shape = (len(annotated), *size)
        return cls(np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8), np.empty(shape, bool), annotated)


def collate(
    samples: Sequence[Sample], objects: int, multiple: int, sizes: Sequence[tuple[int, int]] | None = None
) -> Clip:
    """Pad samples right and below to the greatest size of the batch, rounded up to `multiple`, and stack them.

    `sizes`: heights and widths of all samples of the batch, where `samples` are only a part of it.
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
    """Return uint8 zeros; in a worker of the loader in shared memory, so that handing them over copies nothing."""
    if get_worker_info() is None:
        return torch.from_numpy(np.zeros(shape, np.uint8))  # in huge pages, which torch does not ask for
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own `default_collate`
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)


class PlannedClips(Dataset):
    """Batches by step number: the clip of step s is the same whoever asks, in whatever order.

    Of `world` data-parallel workers, number `rank` gets its part of each batch: the same samples, in the same size, that
    it would have in the whole. All parts together are the batch, for any number of workers.

    Args:
        plan: which samples make which batch.
        make: item, number of objects, random generator and step -> sample.
        size: item, number of objects, random generator -> height and width of that sample; asked for parts alone.
        seed: of the run. The random numbers of a sample depend on it, the step and the place in the batch, on nothing
            else: not on the process, the worker, or what was made before.
        multiple: sides are padded to multiples of it.
        rank, world: this data-parallel worker and their number.

    Raises:
        HodorError: a batch that `world` does not divide.
    """

    def __init__(
        self,
        plan: Plan,
        make: Callable[[int, int, np.random.Generator, int], Sample],
        size: Callable[[int, int, np.random.Generator], tuple[int, int]] | None = None,
        *,
        seed: int,
        multiple: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        batch = plan.items.shape[1]
        if batch % world:
            raise HodorError(f"a batch of {batch} clips cannot be shared by {world} processes: change `batch`")
        self.plan, self.make, self.size, self.seed, self.multiple = plan, make, size, seed, multiple
        self.places = range(rank * batch // world, (rank + 1) * batch // world)

    def __len__(self) -> int:
        return len(self.plan.items)

    def __getitem__(self, step: int) -> Clip:
        objects, items = int(self.plan.objects[step]), self.plan.items[step]
        samples = [self.make(int(items[place]), objects, self._random(step, place), step) for place in self.places]
        sizes = None
        if len(self.places) < len(items):
            sizes = [self.size(int(item), objects, self._random(step, place)) for place, item in enumerate(items)]
        clip = collate(samples, objects, self.multiple, sizes)
        return replace(clip, first=self.places[0], whole=len(items))

    def _random(self, step: int, place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step, place])


def clips_from(dataset: PlannedClips, start: int, *, workers: int, pinned: bool = False) -> Iterator[Clip]:
    """Yield the clips of steps `start`, `start` + 1, ...; the same for any number of worker processes.

    `pinned`: in pinned memory.
    """
    yield from DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        pin_memory=pinned,
        # A generator of its own: the loader would draw from the global one, and a resumed run would differ.
        generator=torch.Generator(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker if workers else None,
    )


def _start_worker(_: int) -> None:
    # A signal to the whole group is for the training, which stops after its checkpoint and ends its workers.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
