"""Lines of the tables as people read them, for Markdown, HTML and LaTeX alike.

At the scale of the paper our numbers and the paper's stand side by side; at any other scale they are results
of different experiments and are never set next to each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hodor.config.benchmarks import BENCHMARKS

Line = Mapping[str, str]
"""A line of {ablation,comparison,extended}_table.csv, every value as its text."""

Released = Mapping[tuple[str, str], str]
"""(row, benchmark) -> the number of the authors' released weights in points, or words where there is none."""

TITLES = {
    "ablation": "Attention variants and training data",
    "comparison": "Comparison of methods",
    "extended": "Baselines and further rows",
}
PUBLISHED_TITLE = "The paper's numbers: another experiment"
PUBLISHED_NOTE = (
    "Official data, full-size networks, full schedules. They are here to be looked up, not to be compared with "
    "the numbers above."
)
RELEASED_TITLE = "The authors' released weights: another network"
RELEASED_NOTE = (
    "Their networks and trainings, segmented and scored by this project on this scale's data. They stand beside our "
    "numbers at the scale of the paper alone. Absent ones say how to get them."
)
NOT_RUN = "not run"
TRAINED_ON = "trained on it"
"""Of a hold-out that is part of a row's training data."""
MISSING = "–"


@dataclass(frozen=True)
class Grid:
    """A table of text: head, and rows of as many cells."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class View:
    """What people see of a table.

    measured: our numbers, a row for each line of the table. about: a sentence on what they are. apart: what stands
    below under a heading of its own, None where there is nothing. apart_title, apart_about: that heading and a sentence
    below it.
    """

    measured: Grid
    about: str
    apart: Grid | None = None
    apart_title: str = PUBLISHED_TITLE
    apart_about: str = PUBLISHED_NOTE


def view(lines: Sequence[Line], beside: bool, released: Released | None = None) -> View:
    """A table that has a line for each row and benchmark (ablation, extended).

    Args:
        lines: of the table.
        beside: whether the paper's numbers stand in a column next to ours, and not apart.
        released: the numbers of the authors' released weights, which then have a column too.
    """
    released = (released or {}) if beside else {}
    several = len({line["benchmark"] for line in lines}) > 1
    noted = any(line["note"] for line in lines)
    head = ["system", "training data", "attention"]
    head += ["benchmark"] * several + ["J&F"] + ["paper's J&F"] * beside + ["released weights' J&F"] * bool(released)
    head += ["n", "J", "F", "parameters"] + ["note"] * noted
    measured = _grid(head, lines, released)
    # Our training data are not the paper's, so they have no column there.
    apart = _grid(
        ["system", "attention", "benchmark", "paper's J&F"] + ["note"] * noted,
        [line for line in lines if line["paper_J&F"]],
    )
    return View(measured, _scores_note(lines), apart if apart.rows and not beside else None)


def is_number(column: str) -> bool:
    """Whether a column of that heading holds numbers."""
    return column in ("n", "J", "F", "parameters", "paper's number", "released weights' number") or column.endswith(
        ("J&F", " G")
    )


def benchmark_title(id: str) -> str:
    """A benchmark's name for people; its id where it is not one of ours."""
    return BENCHMARKS[id].title if id in BENCHMARKS else id


def score(value: str, std: str, low: str = "", high: str = "") -> str:
    """A score in points with one decimal, its spread over seeds and its interval, if any: `71.2 ± 0.4 [68.1, 74.0]`.

    Words stay as they are ("not run").
    """
    interval = f" [{float(low):.1f}, {float(high):.1f}]" if low and high else ""
    return points(value) + (f" ± {float(std):.1f}" if std else "") + interval


def spread_note(lines: Sequence[Line]) -> str:
    """What stands behind a score and what n = 1 means, as far as these lines need it."""
    counts = {line["n"] for line in lines} - {"0"}
    text = "In brackets the 95 % interval over sequences and seeds; n: seeds"
    if counts - {"1"}:
        text += "; ±: sample standard deviation over seeds"
    if counts == {"1"}:
        text += ". Every score here is of one seed (n = 1): its interval is over sequences alone"
    elif "1" in counts:
        text += ". Where n = 1 the interval is over sequences alone"
    return text + "."


def points(value: str | None) -> str:
    """A score in points with one decimal; a dash for an empty field; words as they are ("not run")."""
    try:
        return f"{float(value):.1f}" if value else MISSING
    except ValueError:
        return value


def system_cells(line: Line) -> dict[str, str]:
    """What every table says of a row apart from its scores: heading -> cell."""
    return {
        "system": line["label"],
        "training data": line["training_data"],
        "attention": line["attention"] or MISSING,
        "n": line["n"] if line["n"] != "0" else MISSING,
        "parameters": f"{int(line['parameters']):,}" if line["parameters"] else MISSING,
        "note": line["note"] or MISSING,
    }


def _scores_note(lines: Sequence[Line]) -> str:
    ids = list(dict.fromkeys(line["benchmark"] for line in lines))
    text = (
        f"J&F, J and F in points (0 to 100) on {' and '.join(map(benchmark_title, ids))} of this scale's data: mean over "
        "objects, then over seeds. Official semi-supervised protocol, every frame, original size."
    )
    if any(id in BENCHMARKS and BENCHMARKS[id].metric == "G" for id in ids):
        text += (
            " On YouTube-VOS, at 6 frames a second, objects of seen and of unseen categories are averaged apart and then "
            "the two, so that J&F is G."
        )
    return f"{text} {spread_note(lines)}"


def released_grid(lines: Sequence[Line], released: Released) -> Grid:
    """The released weights' numbers apart from ours."""
    labels = {line["row"]: line["label"] for line in lines}
    return Grid(
        ["system", "benchmark", "released weights' number"],
        [
            [labels[row], benchmark_title(benchmark), points(value)]
            for (row, benchmark), value in released.items()
            if row in labels and _is_score(value)
        ],
    )


def released_words(lines: Sequence[Line], released: Released) -> list[str]:
    """What is to be said of released weights without a number, each thing once: how to get them."""
    labels = {line["row"]: line["label"] for line in lines}
    words = [
        f"{labels[row]}: {value}" for (row, _), value in released.items() if row in labels and not _is_score(value)
    ]
    return list(dict.fromkeys(words))


def released_points(value: str | None) -> str:
    """A released weights' number for a column of its own: points, a dash, or one word for what is not there."""
    return points(value) if value is None or not value or _is_score(value) else "absent"


def _is_score(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _grid(head: list[str], lines: Iterable[Line], released: Released | None = None) -> Grid:
    return Grid(head, [[_cells(line, released or {})[column] for column in head] for line in lines])


def _cells(line: Line, released: Released) -> dict[str, str]:
    return system_cells(line) | {
        "benchmark": benchmark_title(line["benchmark"]),
        "J&F": score(*(line[f"J&F{end}"] for end in ("", "_std", "_low", "_high"))),
        "paper's J&F": points(line["paper_J&F"]),
        "released weights' J&F": released_points(released.get((line["row"], line["benchmark"]))),
        "J": points(line["J"]),
        "F": points(line["F"]),
    }
