"""One length of training of subset_ablation.py: its runs, verified, and how two of its rows compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hodor import paths
from hodor.config import loading as config
from hodor.reporting.runs import Run, sample
from hodor.reporting.tables import collect
from hodor.scoring.statistics import Bootstrap, Comparison, Sample, compare
from hodor.stamps import Stamps

BENCHMARK = "davis2017-val"


@dataclass(frozen=True)
class Phase:
    """Runs with one length of training.

    settings: keys of config/config.yaml. folder: where the workflow ran. root: the repository.
    """

    name: str
    rows: tuple[str, ...]
    seeds: list[int]
    steps: int
    settings: dict
    folder: Path
    root: Path

    def finished(self, row: str) -> list[int]:
        """Seeds of a row that are trained and scored."""
        scale = self.settings["scale"]
        return [seed for seed in self.seeds if (self.folder / paths.run(scale, row, seed) / "manifest.json").is_file()]

    def load(self, rows: Sequence[str], seeds: Sequence[int]) -> Stamps:
        """The stamps of the phase, cut down to some rows and seeds."""
        return Stamps(
            config.load(self.root / "config", self.settings | {"rows": [*rows], "seeds": [*seeds]}), self.root
        )

    @property
    def runs(self) -> Path:
        return self.folder / paths.runs(self.settings["scale"])

    @cached_property
    def results(self) -> dict[str, list[Run]]:
        """Row -> its finished runs, verified against the stamps; HodorError where one was made from something else."""
        found: dict[str, list[Run]] = {}
        for row in self.rows:
            if seeds := self.finished(row):
                collected = collect(self.load([row], seeds).contents["tabulate-costs"]["settings"], self.runs)
                found[row] = [collected[row, seed] for seed in seeds]
        return found

    @cached_property
    def config(self) -> config.Config:
        return self.load(self.rows, self.seeds).config

    def sample(self, row: str, seeds: Sequence[int]) -> Sample:
        return sample([run for run in self.results[row] if run.seed in seeds], BENCHMARK)

    def label(self, row: str) -> str:
        return self.config.rows[row].label

    @property
    def bootstrap(self) -> Bootstrap:
        return Bootstrap(**self.config.claims.bootstrap.model_dump())

    @property
    def missing(self) -> list[str]:
        return [f"{row} seed {seed}" for row in self.rows for seed in self.seeds if seed not in self.finished(row)]

    def common(self, rows: Sequence[str]) -> list[int]:
        """Seeds that all of the rows have."""
        return [seed for seed in self.seeds if all(seed in self.finished(row) for row in rows)]

    def compare(self, first: str, second: str) -> Comparison | None:
        """How two rows compare in points, over the seeds that both have; None without one."""
        if seeds := self.common((first, second)):
            return compare(self.sample(first, seeds), self.sample(second, seeds), self.bootstrap)
        return None

    def by_seed(self, first: str, second: str) -> dict[int, float]:
        """Seed -> difference of two rows' scores in points."""
        seeds = self.common((first, second))
        ours, theirs = (self.sample(row, seeds).scores() for row in (first, second))
        return dict(zip(seeds, map(float, ours - theirs), strict=True))

    def by_sequence(self, first: str, second: str) -> dict[str, float]:
        """Sequence -> difference of two rows' means over its objects and the seeds, in points."""
        seeds = self.common((first, second))
        ours, theirs = (self.sample(row, seeds) for row in (first, second))
        means = (ours.sums - theirs.sums).sum(2).mean(0) / ours.counts.sum(1)
        return dict(zip(ours.sequences, map(float, means), strict=True))

    def last_loss(self, run: Run) -> float:
        """Mean of the loss that was logged over the last tenth of the steps."""
        values = [record["loss"] for record in run.log if record["step"] > 0.9 * self.steps]
        return sum(values) / len(values)
