"""How sure a score is: bootstrap intervals over sequences and seeds, and paired comparison of two rows.

A benchmark's score is, by the official protocol, a mean over objects and not over sequences; YouTube-VOS averages it
over groups of objects (seen and unseen categories). What varies from one draw of the world to another is not the
object, though: objects of a video share its camera, light and length. So sequences are resampled, with all their
objects, and the score of a resample is again the mean over its objects. Training varies too, so seeds are resampled
within each row; where there is one, the interval is over sequences alone.

Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). Two
rows are compared on the same resampled sequences, which takes the sequences' own difficulty out of the difference;
their seeds are drawn apart, which is the cautious choice where one row starts from the other's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hodor.errors import HodorError

RESAMPLES = 10_000
LEVEL = 0.95
"""Share of the resamples that an interval holds."""

Objects = Mapping[tuple[str, str], float]
"""(sequence, object) -> score of that object, such as the mean of its J and F."""


@dataclass(frozen=True)
class Bootstrap:
    """How often and from which start of the generator (PCG64) is drawn: the same numbers give the same intervals."""

    resamples: int = RESAMPLES
    seed: int = 0


DEFAULT = Bootstrap()


@dataclass(frozen=True)
class Estimate:
    """A row's score in the unit of its objects: mean over seeds; std: sample standard deviation over seeds, None for
    one; low, high: 95 % interval over sequences and seeds; seeds, sequences: how many there are."""

    mean: float
    std: float | None
    low: float
    high: float
    seeds: int
    sequences: int


@dataclass(frozen=True)
class Comparison:
    """How much better one row is than another on the same sequences, in the unit of their objects.

    effect: difference of the means over seeds. low, high: its 95 % interval. probability: share of the resamples in
    which the first row is better, ties counting half. seeds: the smaller number of the two rows.
    """

    effect: float
    low: float
    high: float
    probability: float
    seeds: int
    sequences: int


class Sample:
    """The scores of one row on one benchmark: every object of every sequence, for each seed.

    sums (R, S, G): sum over the objects of a sequence in a group, for each seed; counts (S, G): how many these are. R
    seeds, S sequences, G groups. The order in which seeds, sequences and objects are given changes nothing.

    Args:
        scores: seed -> scores of the objects; the same objects for every seed.
        groups: (sequence, object) -> name of the group that the score is averaged over; all one group if absent.

    Raises:
        HodorError: nothing was scored, an object's score is no number, or seeds or groups with other objects.
    """

    def __init__(self, scores: Mapping[int, Objects], groups: Mapping[tuple[str, str], str] | None = None) -> None:
        seeds = sorted(scores)
        self.objects = sorted(scores[seeds[0]]) if seeds else []
        if not self.objects:
            raise HodorError("no object was scored: there is nothing to estimate")
        groups = dict.fromkeys(self.objects, "") if groups is None else groups
        for seed in seeds:
            _same_objects(self.objects, scores[seed], f"seed {seed} and seed {seeds[0]}")
        _same_objects(self.objects, groups, "the scores and their groups")
        self.sequences = sorted({sequence for sequence, _ in self.objects})
        self.groups = sorted({groups[key] for key in self.objects})
        values = np.array([[scores[seed][key] for key in self.objects] for seed in seeds], float)  # (R, objects)
        if not np.isfinite(values).all():
            raise HodorError("the score of an object is no number: score again")
        place = {name: i for i, name in enumerate(self.sequences)}
        rows = np.array([place[sequence] for sequence, _ in self.objects])
        columns = np.array([self.groups.index(groups[key]) for key in self.objects])
        self.counts = np.zeros((len(self.sequences), len(self.groups)))
        self.sums = np.zeros((len(seeds), *self.counts.shape))
        np.add.at(self.counts, (rows, columns), 1)
        np.add.at(self.sums, (slice(None), rows, columns), values)

    def scores(self) -> np.ndarray:
        """The benchmark's score of each seed, (R,): mean over objects, then over groups."""
        return (self.sums.sum(1) / self.counts.sum(0)).mean(1)

    def resampled(self, sequences: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Scores (B,) of B resamples.

        Args:
            sequences: how often each is drawn, (B, S).
            seeds: share of each, (B, R), summing to 1.

        A resample that drew no object of a group is the mean over the other groups.
        """
        # (B, R, G): of each seed on the drawn sequences; the division is the same for every seed.
        sums = np.stack([sequences @ values for values in self.sums], 1)
        counts = sequences @ self.counts  # (B, G)
        mean = np.einsum("br,brg->bg", seeds, sums) / np.where(counts > 0, counts, 1)
        return mean.sum(1) / (counts > 0).sum(1)


def estimate(sample: Sample, bootstrap: Bootstrap = DEFAULT) -> Estimate:
    """Mean, spread over seeds and interval of a row's score."""
    generator = np.random.default_rng(bootstrap.seed)
    sequences = _draw(generator, bootstrap.resamples, len(sample.sequences))
    low, high = _interval(sample.resampled(sequences, _draw_seeds(generator, bootstrap.resamples, sample)))
    scores = sample.scores()
    std = float(scores.std(ddof=1)) if len(scores) > 1 else None
    return Estimate(float(scores.mean()), std, low, high, len(scores), len(sample.sequences))


def compare(first: Sample, second: Sample, bootstrap: Bootstrap = DEFAULT) -> Comparison:
    """How much better `first` is than `second` on the same sequences and objects.

    Raises:
        HodorError: the two were not scored on the same objects in the same groups.
    """
    _same_objects(first.objects, second.objects, "the two rows")
    if first.groups != second.groups or not np.array_equal(first.counts, second.counts):
        raise HodorError("the two rows have their objects in different groups: they do not compare")
    generator = np.random.default_rng(bootstrap.seed)
    sequences = _draw(generator, bootstrap.resamples, len(first.sequences))
    ours, theirs = (
        sample.resampled(sequences, _draw_seeds(generator, bootstrap.resamples, sample)) for sample in (first, second)
    )
    differences = ours - theirs
    low, high = _interval(differences)
    return Comparison(
        effect=float(first.scores().mean() - second.scores().mean()),
        low=low,
        high=high,
        probability=float(np.mean(differences > 0) + np.mean(differences == 0) / 2),
        seeds=min(len(first.sums), len(second.sums)),
        sequences=len(first.sequences),
    )


def _draw(generator: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """How often each of `count` things comes up in as many draws with replacement: float (resamples, count)."""
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def _draw_seeds(generator: np.random.Generator, resamples: int, sample: Sample) -> np.ndarray:
    count = len(sample.sums)
    return _draw(generator, resamples, count) / count


def _interval(values: np.ndarray) -> tuple[float, float]:
    rest = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [rest, 100 - rest])
    return float(low), float(high)


def _same_objects(wanted: list[tuple[str, str]], found: Mapping | list, what: str) -> None:
    if different := sorted(set(wanted) ^ set(found)):
        sequence, id = different[0]
        more = f" ({len(different)} differ)" if len(different) > 1 else ""
        raise HodorError(f"{what} differ in object {id} of sequence {sequence}{more}: score both on the same data")
