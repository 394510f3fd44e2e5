"""Batches of training clips by step number, and the loader that makes them in worker processes."""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hodor.data.clip import Clip
from hodor.data.samplers import Plan
from hodor.errors import HodorError


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
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} processes")
        if batch % world:
            raise HodorError(f"a batch of {batch} clips cannot be shared by {world} processes: change `batch`")
        if world > 1 and size is None:
            raise ValueError("parts of a batch need the sizes of the others")
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
