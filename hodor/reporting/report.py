"""What a report page shows, read from the tables and from the runs that the tables name."""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from hodor.config.benchmarks import get_benchmark
from hodor.data.davis import load_davis
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.reporting.readable import Line, benchmark_title
from hodor.reporting.runs import Run, read_run, run_folder
from hodor.reporting.words import provenance_lines

STRIPS = "davis2017-val"
"""The benchmark whose masks are shown: its truth is public, and every scale has it."""


@dataclass(frozen=True)
class Report:
    """The results of one scale; results, runs, data: its folders of tables, of runs and of data sets."""

    results: Path
    runs: Path
    data: Path

    def table(self, name: str) -> list[Line]:
        """The lines of a CSV: "<table>_table" or "costs"; HodorError if absent."""
        path = Path(self.results) / f"{name}.csv"
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            raise HodorError(f"{path}: no such file; the step tabulate writes it: run that first") from None

    @cached_property
    def ablation(self) -> list[Line]:
        return self.table("ablation_table")

    @cached_property
    def comparison(self) -> list[Line]:
        return self.table("comparison_table")

    @cached_property
    def extended(self) -> list[Line]:
        return self.table("extended_table")

    @cached_property
    def videos(self) -> dict[str, Video]:
        """The sequences whose masks are shown, by name."""
        benchmark = get_benchmark(STRIPS)
        return {video.name: video for video in load_davis(Path(self.data) / benchmark.dataset, benchmark.split)}

    def runs_of(self, line: Line) -> list[Run]:
        """The runs behind a line of a table, one for each seed; empty for a row that was not run."""
        folders = [run_folder(self.runs, line["row"], int(seed)) for seed in line["seeds"].split()]
        return [self._run(folder) for folder in folders]

    def all_runs(self) -> list[Run]:
        """The runs behind all tables, each once, in the order of the tables."""
        lines = [*self.ablation, *self.comparison, *self.extended]
        runs = [run for line in lines for run in self.runs_of(line)]
        return list({run.folder: run for run in runs}.values())

    def provenance(self) -> list[tuple[str, str]]:
        """(what, value) pairs: seeds, commit, machine, versions, metric, data scored on and trained on."""
        runs = self.all_runs()
        pairs = provenance_lines(runs, sorted({run.seed for run in runs}))
        truths = {(b, str(p.score.get("truth"))[:12]) for run in runs for b, p in run.predictions.items()}
        scored = [f"{benchmark_title(b)} ({b}, manifest sha256 {digest})" for b, digest in sorted(truths)]
        lines = [*self.ablation, *self.comparison, *self.extended]
        trained = dict.fromkeys(line["training_data"] for line in lines if line["seeds"])
        return [
            *pairs,
            ("data", "; ".join(scored) or "nothing was scored"),
            ("trained on", "; ".join(trained) or "nothing was trained"),
        ]

    def costs(self, lines: list[Line]) -> list[Line]:
        """The lines of costs.csv of the rows of a table."""
        rows = {line["row"] for line in lines}
        return [line for line in self.table("costs") if line["row"] in rows]

    def notes(self, lines: list[Line]) -> str:
        """What is to be said wherever these rows are shown, as text; empty where there is nothing."""
        return "; ".join(f"{line['row']}: {line['note']}" for line in self.once(lines) if line["note"])

    def curves(self, lines: list[Line]) -> dict[str, list[tuple[str, str | None, Run]]]:
        """Training set -> (row, attention, run) of the rows of a table."""
        groups: dict[str, list[tuple[str, str | None, Run]]] = {}
        for line in self.once(lines):
            entries = [(line["row"], line["attention"] or None, run) for run in self.runs_of(line)]
            groups.setdefault(line["training_data"], []).extend(entries)
        return groups

    def soft_runs(self) -> list[tuple[str, Run]]:
        """(row, run) of the rows with soft masking in the ablation table, the first seed of each."""
        lines = [line for line in self.once(self.ablation) if line["attention"] == "soft"]
        return [(line["row"], self.runs_of(line)[0]) for line in lines if line["seeds"]]

    def strips(self, lines: list[Line]) -> list[tuple[str, Video, dict[str, Path], dict[str, float]]]:
        """Sequences chosen by rule: (why, video, row -> folder of its masks, row -> J&F in points).

        The sequence of DAVIS-2017 val with the median score, neither the best nor the worst; and the one on which
        the rows differ most. The rows are those of these lines (of the extended table where none of them was run),
        the first seed of each.
        """
        benchmark = get_benchmark(STRIPS)
        runs = {}
        for line in [line for line in lines if line["seeds"]] or [line for line in self.extended if line["seeds"]]:
            run = self.runs_of(line)[0]
            if benchmark.id in run.predictions:
                runs[line["row"]] = run
        if not runs:
            return []
        scores = {row: sequence_scores(run, benchmark.id) for row, run in runs.items()}
        videos = self.videos
        ranked = sorted(videos, key=lambda name: (fmean(of[name] for of in scores.values()), name))
        median = ranked[(len(ranked) - 1) // 2]

        def spread(name: str) -> float:
            return max(of[name] for of in scores.values()) - min(of[name] for of in scores.values())

        chosen = {median: "the sequence of median score"}
        if len(runs) > 1:
            chosen.setdefault(max(videos, key=spread), "the sequence on which the rows differ most")
        return [
            (
                why,
                videos[name],
                {row: run.predictions[benchmark.id].folder / "masks" / name for row, run in runs.items()},
                {row: of[name] for row, of in scores.items()},
            )
            for name, why in chosen.items()
        ]

    def _run(self, folder: Path) -> Run:
        if folder not in self._read:
            self._read[folder] = read_run(folder)
        return self._read[folder]

    @cached_property
    def _read(self) -> dict[Path, Run]:
        return {}

    @staticmethod
    def once(lines: list[Line]) -> list[Line]:
        """Each row once, where a table has a line for each benchmark."""
        return list({line["row"]: line for line in reversed(lines)}.values())[::-1]


def sequence_scores(run: Run, benchmark: str) -> dict[str, float]:
    """J&F of each sequence in points: the mean over its objects."""
    objects: dict[str, list[float]] = {}
    for name, scores in run.predictions[benchmark].objects.items():
        objects.setdefault(name.rpartition("_")[0], []).append(50 * (scores["J-Mean"] + scores["F-Mean"]))
    return {name: fmean(values) for name, values in objects.items()}
