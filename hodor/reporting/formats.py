"""The tables as people read them: one DataFrame of text for Markdown, LaTeX and HTML alike.

At scale paper our numbers and the paper's are set side by side; at any other scale they are results of different
experiments, and the paper's have a table of their own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hodor.config.benchmarks import BENCHMARKS, Benchmark, get_benchmark

TEMPLATES = Path(__file__).parent / "templates"
TITLES = {
    "ablation": "Attention variants and training data",
    "comparison": "Comparison of methods",
    "extended": "Baselines and further rows",
}
POSTER = ("davis2017-val", "davis2017-test-dev", "ytvos2018-val", "ytvos2019-val")
COMPARED = tuple(map(get_benchmark, (*POSTER, "ytvos-holdout", "davis2016-val")))
"""The benchmarks of table 2: those of the poster, then those of this project alone."""

NOT_RUN = "not run"
TRAINED_ON = "trained on it"
"""Of a hold-out that is part of a row's training data."""
NEW = "new measurement"
"""The note of a cell that the paper leaves empty and that we fill."""
MISSING = "–"
PUBLISHED = "from config/published.csv, which names the source of each number"
_ANOTHER = "The paper's numbers: another experiment"
_ANOTHER_ABOUT = (
    "Official data, full-size networks, full schedules: for reference, not to be compared with the numbers above."
)
_ABOUT_COMPARISON = (
    "In points (0 to 100) on this scale's data: J&F is the mean over objects, G the mean of J and F over seen and "
    "unseen categories (YouTube-VOS, 6 frames a second); then the mean over seeds. not run: the row or the benchmark is "
    "not part of this scale's run. server: pending, or closed since a date (config/servers.yaml): the "
    "ground truth is secret, and the score of the zip in results/submissions is not in config/server_scores.yaml. trained on it: the hold-out is part of the row's "
    "training data. (new): a new measurement, the paper leaves that cell empty. The hold-out replaces YouTube-VOS val by "
    "videos of its train split; it is no number of the server."
)
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        # After the end of a row both would start an argument of it.
        "[": "{[}",
        "*": "{*}",
        "±": r"$\pm$",
        "−": "$-$",
        "–": "--",
    }
    | {character: f"\\{character}" for character in "{}$&%#_"}
)


@dataclass(frozen=True)
class View:
    """A table for people.

    Attributes:
        measured: Our numbers, a row for each line of the table.
        about: What they are.
        apart: A second table below, with a heading and a sentence of its own; None where there is nothing.
    """

    measured: pd.DataFrame
    about: str
    apart: pd.DataFrame | None = None
    apart_title: str = _ANOTHER
    apart_about: str = _ANOTHER_ABOUT


def view(table: str, lines: pd.DataFrame, beside: bool) -> View:
    """Format a table for people.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: Those of its CSV, every value as text.
        beside: Whether the paper's numbers are set beside ours.
    """
    frame = {
        "system": lines["label"],
        "training data": lines["training_data"],
        "attention": lines["attention"].replace("", MISSING),
    }
    last = {
        "n": lines["n"].replace("0", MISSING),
        "parameters": lines["parameters"].map(lambda text: f"{int(text):,}" if text else MISSING),
    }
    if lines["note"].any():
        last["note"] = lines["note"].replace("", MISSING)
    return (_comparison if table == "comparison" else _by_benchmark)(lines, frame, last, beside)


def _by_benchmark(lines: pd.DataFrame, frame: dict, last: dict, beside: bool) -> View:
    titles = lines["benchmark"].map(benchmark_title)
    paper = lines["paper_J&F"].map(points)
    if titles.nunique() > 1:
        frame["benchmark"] = titles
    frame["J&F"] = scores(lines, "J&F")
    if beside:
        frame["paper's J&F"] = paper
    frame |= {"n": last.pop("n"), "J": lines["J"].map(points), "F": lines["F"].map(points)} | last
    # Our training data are not the paper's: they have no column there.
    apart = {"system": lines["label"], "attention": frame["attention"], "benchmark": titles, "paper's J&F": paper}
    if "note" in last:
        apart["note"] = last["note"]
    apart = pd.DataFrame(apart, dtype=str)[lines["paper_J&F"] != ""]
    about = (
        f"J&F, J and F in points (0 to 100) on {' and '.join(titles.unique())} of this scale's data: mean over objects, "
        "then over seeds. Official semi-supervised protocol, every frame, original size."
    )
    if any(id in BENCHMARKS and BENCHMARKS[id].metric == "G" for id in lines["benchmark"]):
        about += (
            " On YouTube-VOS, at 6 frames a second, objects of seen and of unseen categories are averaged separately and "
            "then the two, so that J&F is G."
        )
    about = f"{about} {_about_spread(lines)}"
    return View(pd.DataFrame(frame, dtype=str), about, None if beside or apart.empty else apart)


def _comparison(lines: pd.DataFrame, frame: dict, last: dict, beside: bool) -> View:
    del frame["attention"]
    apart = []
    for benchmark in compared(lines):
        metric, name = benchmark.metric, heading(benchmark)
        paper, notes = lines[f"{benchmark.id}_paper_{metric}"], lines[f"{benchmark.id}_note"]
        new = [" (new)" * (NEW in note.split("; ")) for note in notes]
        frame[name] = scores(lines, f"{benchmark.id}_{metric}") + new
        if beside:
            frame[f"paper's {name}"] = paper.map(points)
        for number, (label, value, *said) in enumerate(zip(lines["label"], paper, lines["note"], notes, strict=True)):
            if value and (not beside or said[1]):
                note = "; ".join(filter(None, said)) or MISSING
                apart.append((number, label, benchmark.title, metric, points(value), note))
    columns = ["row", "system", "benchmark", "metric", "paper's number", "note"]
    notes = pd.DataFrame(apart, columns=columns).sort_values("row", kind="stable").drop(columns="row")
    about = f"{_ABOUT_COMPARISON} {_about_spread(lines)}"
    measured = pd.DataFrame(frame | last, dtype=str)
    if notes.empty:
        return View(measured, about)
    if beside:
        title = "Notes on the paper's numbers"
        return View(measured, about, notes, title, "Where they come from, and what is known about them.")
    return View(measured, about, notes)


def compared(lines: pd.DataFrame) -> list[Benchmark]:
    """The benchmarks of table 2 that are shown: the poster's, and others on which some row was scored or is to be."""
    return [b for b in COMPARED if b.id in POSTER or (lines[f"{b.id}_{b.metric}"] != NOT_RUN).any()]


def heading(benchmark: Benchmark) -> str:
    """Of the column with our number."""
    return f"{benchmark.title} {benchmark.metric}"


def benchmark_title(id: str) -> str:
    """A benchmark's name for people; its id where it is unknown."""
    return BENCHMARKS[id].title if id in BENCHMARKS else id


def is_number(column: str) -> bool:
    """Whether a column of that heading holds numbers."""
    numbers = {"n", "J", "F", "parameters", "paper's number", "seed", "effect", "interval", "sequences"}
    return column in numbers or column.endswith(("J&F", " G"))


def points(value: str | None) -> str:
    """A score in points with one decimal; a dash for an empty field; words as they are ("not run")."""
    try:
        return f"{float(value):.1f}" if value else MISSING
    except ValueError:
        return value


def scores(lines: pd.DataFrame, key: str) -> pd.Series:
    """Scores with their spread over seeds and interval, if any: `71.2 ± 0.4 [68.1, 74.0]`."""

    def text(line: pd.Series) -> str:
        value, std, low, high = line
        interval = f" [{float(low):.1f}, {float(high):.1f}]" if low and high else ""
        return points(value) + (f" ± {float(std):.1f}" if std else "") + interval

    columns = [key, f"{key}_std", f"{key}_low", f"{key}_high"]
    return pd.Series([text(line) for line in lines[columns].itertuples(index=False)], lines.index, dtype=str)


def scale_statement(settings: Mapping) -> str:
    """What the numbers of a scale mean, for the head of every table and page. settings: its "scale" and "caption"."""
    text = f"Measured at {settings['scale']} scale. {settings['caption'].strip()}"
    # A caption may lack the one sentence that no reader may miss.
    if settings["scale"] != "paper" and "nothing about the paper's numbers" not in text:
        text += " These numbers say nothing about the paper's numbers."
    return text


def render_markdown(template: str, **context) -> str:
    """A Markdown page from its template; every value is shown as it is (`markdown_text`)."""

    def escaped(value: object) -> str:
        return markdown(value) if isinstance(value, pd.DataFrame) else markdown_text(value)

    options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), finalize=escaped, **options)
    return environment.get_template(template).render(**context)


def markdown_page(settings: Mapping, table: str, lines: pd.DataFrame, origin: Mapping[str, str]) -> str:
    """The Markdown page of a table: our numbers, what they mean, and the paper's under a heading of their own.

    Args:
        settings: Those of the table's stamp.
        table, lines: As for `view`.
        origin: Of its numbers (`hodor.reporting.runs.provenance`); the table's foot repeats the main part.
    """
    return render_markdown(
        "table.md",
        title=f"{TITLES[table]}: {settings['title']}",
        statement=scale_statement(settings),
        view=view(table, lines, beside=settings["scale"] == "paper"),
        foot=footnote(origin),
        published=PUBLISHED,
        origin=origin,
        manifests=dict.fromkeys(
            (row, path) for row, paths in zip(lines["row"], lines["manifest"]) for path in paths.split()
        ),
    )


def markdown(frame: pd.DataFrame) -> str:
    """A table of text in Markdown, columns of numbers aligned to the right."""
    align = ["right" if is_number(column) else "left" for column in frame]
    return frame.map(markdown_text).to_markdown(index=False, disable_numparse=True, colalign=align)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, in one line: no HTML, no links, no cells of its own."""
    text = " ".join(str(text).split())
    text = re.sub(
        r"&(#?\w+;)", lambda entity: entity[0] if unescape(entity[0]) == entity[0] else f"&amp;{entity[1]}", text
    )
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("](", "]\\(").replace("|", "\\|")


def footnote(origin: Mapping[str, str]) -> str:
    """Commit, machine, versions and seeds in one line, for the foot of a table."""
    return "; ".join(f"{name} {origin[name]}" for name in ("commit", "machine", "versions", "seeds"))


def latex_file(settings: Mapping, table: str, lines: pd.DataFrame, origin: Mapping[str, str]) -> str:
    r"""The table for `\input` into a paper (booktabs); arguments as those of `markdown_page`."""
    shown = view(table, lines, beside=settings["scale"] == "paper")
    caption = f"{TITLES[table]}: {settings['title']}. {scale_statement(settings)} {shown.about}"
    label = f"tab:{settings['scale']}-{table}"
    comments = {"needs": r"\usepackage{booktabs}"} | origin
    parts = ["\n".join(f"% {what}: {' '.join(value.split())}" for what, value in comments.items())]
    parts.append(_latex(shown.measured, caption, label, footnote(origin)))
    if shown.apart is not None:
        parts.append(_latex(shown.apart, f"{shown.apart_title}. {shown.apart_about}", f"{label}-paper", PUBLISHED))
    return "\n\n".join(parts) + "\n"


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is, in one line."""
    return " ".join(str(text).split()).translate(_LATEX)


def _latex(frame: pd.DataFrame, caption: str, label: str, foot: str) -> str:
    columns = "".join("r" if is_number(column) else "l" for column in frame)
    style = frame.map(latex_text).rename(columns=latex_text).style.hide(axis="index")
    options = {"environment": "table*", "position_float": "centering", "hrules": True, "label": label}
    text = style.to_latex(column_format=f"@{{}}{columns}@{{}}", caption=latex_text(caption), **options)
    foot = rf"\par\smallskip\footnotesize {latex_text(foot)}"
    text = text.replace("\\centering\n", "\\centering\\small\n", 1)
    return text.replace("\\end{table*}\n", f"{foot}\n\\end{{table*}}")


def _about_spread(lines: pd.DataFrame) -> str:
    """What n = 1 and the intervals mean, as far as these lines need it."""
    counts = set(lines["n"]) - {"0"}
    text = "In brackets the 95 % interval over sequences and seeds; n: seeds"
    if counts - {"1"}:
        text += "; ±: sample standard deviation over seeds"
    if counts == {"1"}:
        text += ". Every score here is of one seed (n = 1): its interval is over sequences alone"
    elif "1" in counts:
        text += ". Where n = 1 the interval is over sequences alone"
    return text + "."
