"""Lines of the tables as people read them, for Markdown and HTML alike.

At the scale of the paper our numbers and the paper's stand side by side; at any other scale they are results
of different experiments and are never set next to each other.
"""

from collections.abc import Mapping, Sequence

from hodor.scoring.benchmarks import BENCHMARKS

Line = Mapping[str, str]
"""A line of {ablation,extended}_table.csv, every value as its text."""

TITLES = {"ablation": "Attention variants and training data", "extended": "Baselines and further rows"}
PUBLISHED_TITLE = "The paper's numbers: another experiment"
PUBLISHED_NOTE = (
    "Official data, full-size networks, full schedules. They are here to be looked up, not to be compared with "
    "the numbers above."
)
NUMERIC = {"J&F", "paper's J&F", "n", "J", "F", "parameters"}

MISSING = "–"


def scores_note(lines: Sequence[Line]) -> str:
    """What the scores of a table are."""
    titles = dict.fromkeys(benchmark_title(line["benchmark"]) for line in lines)
    return (
        f"J&F, J and F in points (0 to 100) on {' and '.join(titles)} of this scale's data: mean over objects, then "
        "over seeds. Official semi-supervised protocol, every frame, original size; n: seeds."
    )


def measured(lines: Sequence[Line], beside: bool) -> tuple[list[str], list[list[str]]]:
    """Head and lines of our numbers.

    Args:
        lines: of a table.
        beside: whether the paper's J&F is shown in the column next to ours.
    """
    several = len({line["benchmark"] for line in lines}) > 1
    head = ["system", "training data", "attention"]
    head += ["benchmark"] * several + ["J&F"] + ["paper's J&F"] * beside + ["n", "J", "F", "parameters"]
    return head, [[_readable(line)[column] for column in head] for line in lines]


def published(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the published numbers of these rows; rows without one are left out.

    Our training data are not the paper's, so they have no column here.
    """
    head = ["system", "attention", "benchmark", "paper's J&F"]
    rows = [[_readable(line)[column] for column in head] for line in lines if line["paper_J&F"]]
    return head, rows


def benchmark_title(id: str) -> str:
    """A benchmark's name for people; its id where it is not one of ours."""
    return BENCHMARKS[id].title if id in BENCHMARKS else id


def points(value: str) -> str:
    """A score in points with one decimal; a dash for an empty field; words as they are ("not run")."""
    try:
        return f"{float(value):.1f}" if value else MISSING
    except ValueError:
        return value


def _readable(line: Line) -> dict[str, str]:
    spread = f" ± {float(line['J&F_std']):.1f}" if line["J&F_std"] else ""
    return {
        "system": line["label"],
        "training data": line["training_data"],
        "attention": line["attention"] or MISSING,
        "benchmark": benchmark_title(line["benchmark"]),
        "J&F": points(line["J&F"]) + spread,
        "paper's J&F": points(line["paper_J&F"]),
        "n": line["n"] if line["n"] != "0" else MISSING,
        "J": points(line["J"]),
        "F": points(line["F"]),
        "parameters": f"{int(line['parameters']):,}" if line["parameters"] else MISSING,
    }
