"""Which samples make which batch: planned once from the seed, so that the position in training is the step number.

Batches hold clips with the same number of objects and aspect ratios within 0.1 (hodor specification 5.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hodor.config.stages import Source
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
