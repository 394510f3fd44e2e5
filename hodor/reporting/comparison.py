"""Table 2: methods against each other, a line for each row with the benchmarks side by side."""

import statistics
from collections.abc import Collection, Mapping, Sequence

from hodor.config.benchmarks import Benchmark, get_benchmark
from hodor.config.servers import PENDING
from hodor.errors import HodorError
from hodor.reporting.published import published_note, published_value
from hodor.reporting.readable import (
    MISSING,
    NOT_RUN,
    TRAINED_ON,
    Grid,
    Line,
    Released,
    View,
    points,
    released_points,
    score,
    spread_note,
    system_cells,
)
from hodor.reporting.runs import Prediction, Run
from hodor.reporting.samples import interval_cells
from hodor.scoring.statistics import DEFAULT, Bootstrap

NEW = "new measurement"
"""Stands in the note of a cell that the paper leaves empty and that we fill."""


POSTER = ("davis2017-val", "davis2017-test-dev", "ytvos2018-val", "ytvos2019-val")
BENCHMARKS = tuple(get_benchmark(id) for id in (*POSTER, "ytvos-holdout", "davis2016-val"))
"""The benchmarks of the poster, then those of ours alone, which the page shows where they were scored."""


def columns(benchmark: Benchmark) -> tuple[str, ...]:
    """Ends of the names of its columns in the CSV: score, spread over seeds, interval, the paper's, note."""
    metric = benchmark.metric
    return (metric, f"{metric}_std", f"{metric}_low", f"{metric}_high", f"paper_{metric}", "note")


COLUMNS = (
    "row", "label", "training_data", "attention", "scale", "seeds", "n",
    *(
        f"{benchmark.id}_{name}"
        for benchmark in BENCHMARKS
        for name in columns(benchmark)
    ),
    "parameters", "manifest", "note",
)  # fmt: skip
ABOUT = (
    "In points (0 to 100) on this scale's data: J&F is the mean over objects, G the mean of J and F over seen and "
    "unseen categories (YouTube-VOS, 6 frames a second); then the mean over seeds. not run: the row or the benchmark is "
    "not part of this scale's run. server: pending: the truth is secret, and the score of the zip in results/submissions "
    "is not typed into config/server_scores.yaml yet. trained on it: the hold-out is part of the row's training data. "
    "(new): a new measurement, the paper leaves that cell empty. The hold-out is a stand-in for YouTube-VOS val made of "
    "its train videos; it is no number of the server."
)
NOTES_TITLE = "Notes on the paper's numbers"
NOTES_ABOUT = "Where they come from, and what is known about them."


def benchmark_cells(
    published: Sequence[Mapping],
    row: str,
    runs: Sequence[Run],
    bootstrap: Bootstrap = DEFAULT,
    trained_on: Collection[str] = (),
) -> dict[str, str]:
    """The columns of the benchmarks for one row, as text.

    Args:
        published: lines of config/published.csv.
        row: its id.
        runs: its runs, one for each seed; empty for a row that was not run.
        bootstrap: of the intervals.
        trained_on: ids of benchmarks of the scale that are part of its training data.

    Raises:
        HodorError: a benchmark was scored without the metric of this table, or a published value is broken.
    """
    cells: dict[str, str] = {}
    for benchmark in BENCHMARKS:
        scored = [run.predictions[benchmark.id] for run in runs if benchmark.id in run.predictions]
        ours = [_points(prediction, benchmark) for prediction in scored if not prediction.pending]
        # Of some seeds alone a mean would pass for that of all.
        ours = ours if len(ours) == len(scored) else []
        missing = PENDING if scored else TRAINED_ON if runs and benchmark.id in trained_on else NOT_RUN
        paper = published_value(published, row, benchmark.id, benchmark.metric)
        notes = [NEW if ours and paper is None else "", published_note(published, row, benchmark.id, benchmark.metric)]
        values = (
            f"{statistics.fmean(ours):.4f}" if ours else missing,
            f"{statistics.stdev(ours):.4f}" if len(ours) > 1 else "",
            *interval_cells(runs, benchmark.id, bootstrap),
            "" if paper is None else f"{paper:.1f}",
            "; ".join(filter(None, notes)),
        )
        cells |= {f"{benchmark.id}_{name}": value for name, value in zip(columns(benchmark), values, strict=True)}
    return cells


def view(lines: Sequence[Line], beside: bool, released: Released | None = None) -> View:
    """The table for people; arguments as those of `hodor.reporting.readable.view`.

    Below the scale of the paper its numbers stand apart; at that scale they stand beside ours and their notes apart.
    """
    released = (released or {}) if beside else {}
    head = ["system", "training data"]
    for benchmark in shown(lines):
        head += [heading(benchmark)] + [f"paper's {heading(benchmark)}"] * beside
        head += [f"released weights' {heading(benchmark)}"] * any(of == benchmark.id for _, of in released)
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
    about = f"{ABOUT} {spread_note(lines)}"
    if not apart.rows:
        return View(measured, about)
    return View(measured, about, apart, NOTES_TITLE, NOTES_ABOUT) if beside else View(measured, about, apart)


def shown(lines: Sequence[Line]) -> list[Benchmark]:
    """The benchmarks of the poster, and the others on which some row was scored or is to be."""
    return [
        benchmark
        for benchmark in BENCHMARKS
        if benchmark.id in POSTER or any(line[f"{benchmark.id}_{benchmark.metric}"] != NOT_RUN for line in lines)
    ]


def heading(benchmark: Benchmark) -> str:
    """Of the column with our number."""
    return f"{benchmark.title} {benchmark.metric}"


def _points(prediction: Prediction, benchmark: Benchmark) -> float:
    column = "G" if benchmark.metric == "G" else "J&F-Mean"
    if column not in prediction.overall:
        path = prediction.folder / "global.csv"
        raise HodorError(f"{path}: no column {column}; delete the file and score again")
    return 100 * prediction.overall[column]


def _measured(line: Line, released: Released) -> dict[str, str]:
    cells = system_cells(line)
    for benchmark in BENCHMARKS:
        metric = f"{benchmark.id}_{benchmark.metric}"
        new = " (new)" if NEW in line[f"{benchmark.id}_note"].split("; ") else ""
        spread = (line[f"{metric}_{name}"] for name in ("std", "low", "high"))
        cells[heading(benchmark)] = score(line[metric], *spread) + new
        cells[f"released weights' {heading(benchmark)}"] = released_points(released.get((line["row"], benchmark.id)))
        cells[f"paper's {heading(benchmark)}"] = points(line[f"{benchmark.id}_paper_{benchmark.metric}"])
    return cells


def _note(line: Line, benchmark: Benchmark) -> str:
    """What is to be said of a published number: that of its row, and its own."""
    return "; ".join(filter(None, [line["note"], line[f"{benchmark.id}_note"]]))
