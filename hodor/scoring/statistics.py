"""Bootstrap intervals of scores over sequences and seeds, and paired comparison of two rows.

A benchmark's score is a mean over objects; YouTube-VOS averages it over groups of objects (seen and unseen categories).
Objects of a video are not independent, so sequences are resampled with all their objects, and the score of a resample is
again the mean over its objects. Seeds are resampled within each row; the interval of one seed is over sequences alone.

Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). Two rows
are compared on the same resampled sequences, which removes the difficulty of the sequences from the difference. Their
seeds are drawn independently, which is conservative if one row starts from the other's weights.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hodor.errors import HodorError

LEVEL = 0.95
"""Share of the resamples inside an interval."""

Objects = Mapping[tuple[str, str], float]
"""(sequence, object) -> score of the object, such as the mean of its J and F."""


@dataclass(frozen=True)
class Bootstrap:
    """Number of resamples and seed of the generator (PCG64); equal settings give equal intervals."""

    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """Score of a row in the unit of its objects.

    mean, std: over seeds; std is the sample standard deviation, None for one seed. low, high: 95 % interval over
    sequences and seeds. seeds, sequences: their numbers.
    """

    mean: float
    std: float | None
    low: float
    high: float
    seeds: int
    sequences: int


@dataclass(frozen=True)
class Comparison:
    """Advantage of one row over another on the same sequences, in the unit of their objects.

    Attributes:
        effect: difference of the means over seeds, with its 95 % interval `low`, `high`.
        probability: share of the resamples in which the first row is better; ties count half.
        seeds: the smaller number of the two rows.
        sequences: number of sequences.
    """

    effect: float
    low: float
    high: float
    probability: float
    seeds: int
    sequences: int


class Sample:
    """Scores of one row on one benchmark: every object of every sequence, for each seed.

    `sums` (R, S, G) holds sums over the objects of each sequence and group for R seeds, S sequences and G groups;
    `counts` (S, G) the numbers of these objects. The order of seeds, sequences and objects does not matter.

    Args:
        scores: seed -> scores of the objects; the same objects for every seed.
        groups: (sequence, object) -> group whose mean enters the score. None: one group.

    Raises:
        HodorError: no objects, a score that is not finite, or different objects between seeds or groups.
    """

    def __init__(self, scores: Mapping[int, Objects], groups: Mapping[tuple[str, str], str] | None = None) -> None:
        seeds = sorted(scores)
        self.objects = sorted(scores[seeds[0]]) if seeds else []
        if not self.objects:
            raise HodorError("no object was scored, so there is nothing to estimate")
        groups = dict.fromkeys(self.objects, "") if groups is None else groups
        for seed in seeds:
            _same_objects(self.objects, scores[seed], f"seed {seed} and seed {seeds[0]}")
        _same_objects(self.objects, groups, "the scores and their groups")
        values = np.array([[scores[seed][key] for key in self.objects] for seed in seeds], float)  # (R, objects)
        if not np.isfinite(values).all():
            raise HodorError("the score of an object is not a finite number; score again")
        self.sequences, rows = np.unique([sequence for sequence, _ in self.objects], return_inverse=True)
        self.groups, columns = np.unique([groups[key] for key in self.objects], return_inverse=True)
        self.counts = np.zeros((len(self.sequences), len(self.groups)))
        self.sums = np.zeros((len(seeds), *self.counts.shape))
        np.add.at(self.counts, (rows, columns), 1)
        np.add.at(self.sums, (slice(None), rows, columns), values)  # type: ignore[arg-type]

    def scores(self) -> np.ndarray:
        """Return the benchmark's score of each seed, (R,): mean over objects, then over groups."""
        return (self.sums.sum(1) / self.counts.sum(0)).mean(1)

    def resampled(self, sequences: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return the scores (B,) of B resamples; one without objects of a group is the mean over the other groups.

        Args:
            sequences: how often each is drawn, (B, S).
            seeds: share of each, (B, R), summing to 1.
        """
        sums = np.stack([sequences @ values for values in self.sums], 1)  # (B, R, G)
        counts = sequences @ self.counts  # (B, G), the same for every seed
        mean = np.einsum("br,brg->bg", seeds, sums) / np.where(counts > 0, counts, 1)
        return mean.sum(1) / (counts > 0).sum(1)


def estimate(sample: Sample, bootstrap: Bootstrap = Bootstrap()) -> Estimate:
    """Estimate mean, spread over seeds and interval of a row's score."""
    (values,) = _resample([sample], bootstrap)
    scores = sample.scores()
    std = float(scores.std(ddof=1)) if len(scores) > 1 else None
    return Estimate(float(scores.mean()), std, *_interval(values), len(scores), len(sample.sequences))


def compare(first: Sample, second: Sample, bootstrap: Bootstrap = Bootstrap()) -> Comparison:
    """Compare two rows on the same sequences and objects.

    Raises:
        HodorError: the rows were not scored on the same objects in the same groups.
    """
    _same_objects(first.objects, second.objects, "the two rows")
    if not np.array_equal(first.groups, second.groups) or not np.array_equal(first.counts, second.counts):
        raise HodorError("the two rows have their objects in different groups; score both on the same data")
    ours, theirs = _resample([first, second], bootstrap)
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


def _resample(samples: list[Sample], bootstrap: Bootstrap) -> list[np.ndarray]:
    """Return the resampled scores of rows: the same sequences for all, seeds drawn for each."""
    generator = np.random.default_rng(bootstrap.seed)

    def draw(count: int) -> np.ndarray:
        """Return how often each of `count` items is drawn in `count` draws with replacement."""
        return generator.multinomial(count, np.full(count, 1 / count), size=bootstrap.resamples).astype(float)

    sequences = draw(len(samples[0].sequences))
    return [sample.resampled(sequences, draw(len(sample.sums)) / len(sample.sums)) for sample in samples]


def _interval(values: np.ndarray) -> tuple[float, float]:
    rest = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [rest, 100 - rest])
    return float(low), float(high)


def _same_objects(wanted: list[tuple[str, str]], found: Iterable[tuple[str, str]], what: str) -> None:
    if different := sorted(set(wanted) ^ set(found)):
        sequence, id = different[0]
        more = f" ({len(different)} differ)" if len(different) > 1 else ""
        raise HodorError(f"{what} differ in object {id} of sequence {sequence}{more}; score both on the same data")
