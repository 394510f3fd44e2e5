"""Table 2: methods against each other, a line for each row with the four benchmarks of the poster side by side."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hodor.errors import HodorError
from hodor.reporting.published import published_note, published_value
from hodor.reporting.readable import (
    MISSING,
    NOT_RUN,
    Grid,
    Line,
    Released,
    View,
    points,
    released_points,
    score,
    system_cells,
)
from hodor.reporting.runs import Run

NEW = "new measurement"
"""Stands in the note of a cell that the paper leaves empty and that we fill."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the table. metric: what the poster gives, J&F or G; column: that metric in global.csv (0..1)."""

    id: str
    title: str
    metric: str
    column: str

    @property
    def heading(self) -> str:
        return f"{self.title} {self.metric}"


# G of YouTube-VOS: the mean of J and F over seen and unseen categories.
BENCHMARKS = (
    Benchmark("davis2017-val", "DAVIS-2017 val", "J&F", "J&F-Mean"),
    Benchmark("davis2017-test-dev", "DAVIS-2017 test-dev", "J&F", "J&F-Mean"),
    Benchmark("ytvos2018-val", "YouTube-VOS 2018 val", "G", "G"),
    Benchmark("ytvos2019-val", "YouTube-VOS 2019 val", "G", "G"),
)
COLUMNS = (
    "row", "label", "training_data", "attention", "scale", "seeds", "n",
    *(
        f"{benchmark.id}_{name}"
        for benchmark in BENCHMARKS
        for name in (benchmark.metric, f"{benchmark.metric}_std", f"paper_{benchmark.metric}", "note")
    ),
    "parameters", "manifest", "note",
)  # fmt: skip
ABOUT = (
    "In points (0 to 100) on this scale's data: J&F is the mean over objects, G the mean of J and F over seen and "
    "unseen categories; then the mean over seeds. n: seeds. not run: the row or the benchmark is not part of this "
    "scale's run. (new): a new measurement, the paper leaves that cell empty."
)
NOTES_TITLE = "Notes on the paper's numbers"
NOTES_ABOUT = "Where they come from, and what is known about them."


def benchmark_cells(published: Sequence[Mapping], row: str, runs: Sequence[Run]) -> dict[str, str]:
    """The columns of the four benchmarks for one row, as text.

    Args:
        published: lines of config/published.csv.
        row: its id.
        runs: its runs, one for each seed; empty for a row that was not run.

    Raises:
        HodorError: a benchmark was scored without the metric of this table, or a published value is broken.
    """
    cells: dict[str, str] = {}
    for benchmark in BENCHMARKS:
        ours = [_points(run, benchmark) for run in runs if benchmark.id in run.predictions]
        paper = published_value(published, row, benchmark.id, benchmark.metric)
        notes = [NEW if ours and paper is None else "", published_note(published, row, benchmark.id, benchmark.metric)]
        values = (
            f"{statistics.fmean(ours):.4f}" if ours else NOT_RUN,
            f"{statistics.stdev(ours):.4f}" if len(ours) > 1 else "",
            "" if paper is None else f"{paper:.1f}",
            "; ".join(filter(None, notes)),
        )
        names = (benchmark.metric, f"{benchmark.metric}_std", f"paper_{benchmark.metric}", "note")
        cells |= {f"{benchmark.id}_{name}": value for name, value in zip(names, values, strict=True)}
    return cells


def view(lines: Sequence[Line], beside: bool, released: Released | None = None) -> View:
    """The table for people; arguments as those of `hodor.reporting.readable.view`.

    Below the scale of the paper its numbers stand apart; at that scale they stand beside ours and their notes apart.
    """
    released = (released or {}) if beside else {}
    head = ["system", "training data"]
    for benchmark in BENCHMARKS:
        head += [benchmark.heading] + [f"paper's {benchmark.heading}"] * beside
        head += [f"released weights' {benchmark.heading}"] * any(of == benchmark.id for _, of in released)
    head += ["n", "parameters"] + ["note"] * any(line["note"] for line in lines)
    measured = Grid(head, [[_measured(line, released)[column] for column in head] for line in lines])
    apart = Grid(
        ["system", "benchmark", "metric", "paper's number", "note"],
        [
            [line["label"], benchmark.title, benchmark.metric, points(paper), _note(line, benchmark) or MISSING]
            for line in lines
            for benchmark in BENCHMARKS
            if (paper := line[f"{benchmark.id}_paper_{benchmark.metric}"])
            and (not beside or line[f"{benchmark.id}_note"])
        ],
    )
    if not apart.rows:
        return View(measured, ABOUT)
    return View(measured, ABOUT, apart, NOTES_TITLE, NOTES_ABOUT) if beside else View(measured, ABOUT, apart)


def _points(run: Run, benchmark: Benchmark) -> float:
    overall = run.predictions[benchmark.id].overall
    if benchmark.column not in overall:
        path = run.predictions[benchmark.id].folder / "global.csv"
        raise HodorError(f"{path}: no column {benchmark.column}; delete the file and score again")
    return 100 * overall[benchmark.column]


def _measured(line: Line, released: Released) -> dict[str, str]:
    cells = system_cells(line)
    for benchmark in BENCHMARKS:
        metric = f"{benchmark.id}_{benchmark.metric}"
        new = " (new)" if NEW in line[f"{benchmark.id}_note"].split("; ") else ""
        cells[benchmark.heading] = score(line[metric], line[f"{metric}_std"]) + new
        cells[f"released weights' {benchmark.heading}"] = released_points(released.get((line["row"], benchmark.id)))
        cells[f"paper's {benchmark.heading}"] = points(line[f"{benchmark.id}_paper_{benchmark.metric}"])
    return cells


def _note(line: Line, benchmark: Benchmark) -> str:
    """What is to be said of a published number: that of its row, and its own."""
    return "; ".join(filter(None, [line["note"], line[f"{benchmark.id}_note"]]))
