"""The cells of the tables as numbers, for figures: value and interval, and what may stand beside them."""

from collections.abc import Mapping, Sequence

from hodor.reporting.comparison import BENCHMARKS, heading
from hodor.reporting.figures.scores import Cell
from hodor.reporting.readable import Line, benchmark_title

BOOTSTRAP = "Intervals: bootstrap over sequences and seeds, 95 %."
SPREAD = "Intervals: standard deviation over seeds."
NONE = "No intervals: one seed, and the table gives no bootstrap interval."


def cells(table: str, lines: Sequence[Line], beside: bool, released: Mapping[tuple[str, str], str]) -> list[Cell]:
    """Every cell of a table, row by row.

    An interval is that of the columns `..._low` and `..._high` where the table has them, else one standard deviation
    over seeds to each side, else none.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: of its CSV.
        beside: whether the paper's and the released weights' numbers may stand next to ours.
        released: (row, benchmark) -> the number of the authors' released weights, or words.
    """
    found = []
    for line in lines:
        for benchmark, column, key, paper in _columns(table, line):
            value = _number(line.get(key))
            low, high = _number(line.get(f"{key}_low")), _number(line.get(f"{key}_high"))
            std = _number(line.get(f"{key}_std"))
            if value is not None and low is None and std is not None:
                low, high = value - std, value + std
            extra = (
                (_number(line.get(paper)), _number(released.get((line["row"], benchmark)))) if beside else (None, None)
            )
            found.append(Cell(line["label"], column, value, low, high, *extra))
    return found


def about_intervals(table: str, lines: Sequence[Line]) -> str:
    """What the intervals of `cells` are, in a sentence."""
    keys = [key for line in lines for _, _, key, _ in _columns(table, line)]
    for ending, sentence in (("low", BOOTSTRAP), ("std", SPREAD)):
        if any(line.get(f"{key}_{ending}") for line in lines for key in keys):
            return sentence
    return NONE


def _columns(table: str, line: Line) -> list[tuple[str, str, str, str]]:
    """(benchmark, heading, column of the value, column of the paper's number) of a line's cells."""
    if table != "comparison":
        return [(line["benchmark"], f"{benchmark_title(line['benchmark'])} J&F", "J&F", "paper_J&F")]
    return [(b.id, heading(b), f"{b.id}_{b.metric}", f"{b.id}_paper_{b.metric}") for b in BENCHMARKS]


def _number(value: str | None) -> float | None:
    try:
        return float(value or "")
    except ValueError:
        return None
