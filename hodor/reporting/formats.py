"""Tables for people: DataFrames of text that become Markdown, LaTeX and HTML.

At scale paper our numbers and the paper's are side by side. At any other scale they come from different experiments, and
the paper's are in a second table.
"""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

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
"""Benchmarks of table 2: those of the poster, then further ones; those of the user's data sets follow."""

NOT_RUN = "not run"
TRAINED_ON = "trained on it"
"""Cell of a hold-out that is part of a row's training data."""
NEW = "new measurement"
"""Note of a cell that is empty in the paper."""
ELSEWHERE = "trained elsewhere"
"""Beginning of the last note of a row with imported runs."""
MISSING = "–"
PUBLISHED = "from config/published.csv, which names the source of each number"
_ABOUT_COMPARISON = (
    "In points (0 to 100) on this scale's data: J&F is the mean over objects, G the mean of J and F over seen and "
    "unseen categories (YouTube-VOS, 6 frames a second); then the mean over seeds. not run: the row or the benchmark is "
    "not part of this scale's run. server: pending, or closed since a date (config/servers.yaml): the ground truth is "
    "secret, and the score of the zip in results/submissions is not in config/server_scores.yaml. trained on it: the "
    "hold-out is part of the row's training data. (new): a new measurement, the cell is empty in the paper. The hold-out "
    "replaces YouTube-VOS val by videos of its train split; its scores are not the server's."
)
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        # At the beginning of a row both would be read as an argument of the row before.
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
        measured: our numbers, a row for each line of the table.
        about: explanation of these numbers.
        second: a second table below with its title and explanation, or None.
    """

    measured: pd.DataFrame
    about: str
    second: pd.DataFrame | None = None
    second_title: str = "The paper's numbers: another experiment"
    second_about: str = (
        "Official data, full-size networks, full schedules: for reference, not to be compared with the numbers above."
    )


def view(table: str, lines: pd.DataFrame, beside: bool) -> View:
    """Format a table for people.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: lines of its CSV, every value as text.
        beside: whether the paper's numbers are beside ours.
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
    second = {"system": lines["label"], "attention": frame["attention"], "benchmark": titles, "paper's J&F": paper}
    if (notes := _own_notes(lines)).any():
        second["note"] = notes.replace("", MISSING)
    second = pd.DataFrame(second, dtype=str)[lines["paper_J&F"] != ""]
    about = (
        f"J&F, J and F in points (0 to 100) on {' and '.join(titles.unique())} of this scale's data: mean over objects, "
        "then over seeds. Official semi-supervised protocol, every frame, original size."
    )
    if any(id in BENCHMARKS and BENCHMARKS[id].metric == "G" for id in lines["benchmark"]):
        about += (
            " On YouTube-VOS, at 6 frames a second, objects of seen and of unseen categories are averaged separately and "
            "then the two, so that J&F is G."
        )
    measured = pd.DataFrame(frame, dtype=str)
    return View(measured, f"{about} {_about_spread(lines)}", None if beside or second.empty else second)


def _own_notes(lines: pd.DataFrame) -> pd.Series:
    """Return the notes of the rows without what is said of our trainings."""
    return lines["note"].str.replace(rf"(; )?{ELSEWHERE}.*", "", regex=True)


def _comparison(lines: pd.DataFrame, frame: dict, last: dict, beside: bool) -> View:
    del frame["attention"]
    second = []
    for benchmark in compared(lines):
        metric, name = benchmark.metric, heading(benchmark)
        paper, notes = lines[f"{benchmark.id}_paper_{metric}"], lines[f"{benchmark.id}_note"]
        new = [" (new)" * (NEW in note.split("; ")) for note in notes]
        frame[name] = scores(lines, f"{benchmark.id}_{metric}") + new
        if beside:
            frame[f"paper's {name}"] = paper.map(points)
        for number, (label, value, *remarks) in enumerate(
            zip(lines["label"], paper, _own_notes(lines), notes, strict=True)
        ):
            if value and (not beside or remarks[1]):
                note = "; ".join(filter(None, remarks)) or MISSING
                second.append((number, label, benchmark.title, metric, points(value), note))
    columns = ["row", "system", "benchmark", "metric", "paper's number", "note"]
    notes = pd.DataFrame(second, columns=columns).sort_values("row", kind="stable").drop(columns="row")
    shown = View(pd.DataFrame(frame | last, dtype=str), f"{_ABOUT_COMPARISON} {_about_spread(lines)}")
    if notes.empty:
        return shown
    texts = {"second_title": "Notes on the paper's numbers", "second_about": "Their sources and known issues."}
    return replace(shown, second=notes, **(texts if beside else {}))


def comparison_benchmarks(names: Container[str]) -> list[Benchmark]:
    """Return the benchmarks of table 2: COMPARED, and those of the user among `names`, ids or columns of the CSV."""
    return [*COMPARED, *(b for b in BENCHMARKS.values() if b.own and (b.id in names or f"{b.id}_note" in names))]


def compared(lines: pd.DataFrame) -> list[Benchmark]:
    """Return the benchmarks of table 2 that are shown: the poster's, and others that are not "not run" everywhere."""
    return [b for b in comparison_benchmarks(lines) if b.id in POSTER or (lines[f"{b.id}_{b.metric}"] != NOT_RUN).any()]


def heading(benchmark: Benchmark) -> str:
    """Return the heading of the column with our number."""
    return f"{benchmark.title} {benchmark.metric}"


def score_columns(table: str, lines: pd.DataFrame) -> list[tuple[str, str, str, str, pd.DataFrame]]:
    """Return each shown benchmark of a table: id, heading, columns of our and of the paper's number, and its lines."""
    if table == "comparison":
        shown = compared(lines)
        return [(b.id, heading(b), f"{b.id}_{b.metric}", f"{b.id}_paper_{b.metric}", lines) for b in shown]
    groups = lines.groupby("benchmark", sort=False)
    return [(id, f"{benchmark_title(id)} J&F", "J&F", "paper_J&F", of) for id, of in groups]


def benchmark_title(id: str) -> str:
    """Return a benchmark's name for people, or its id if it is unknown."""
    return BENCHMARKS[id].title if id in BENCHMARKS else id


def is_number(column: str) -> bool:
    """Return whether a column of that heading holds numbers."""
    numbers = {"n", "J", "F", "parameters", "paper's number", "seed", "effect", "interval", "sequences"}
    return column in numbers or column.endswith(("J&F", " G"))


def points(value: str | None) -> str:
    """Return a score in points with one decimal, a dash for an empty field, other text ("not run") unchanged."""
    try:
        return f"{float(value):.1f}" if value else MISSING
    except ValueError:
        return value


def scores(lines: pd.DataFrame, key: str) -> pd.Series:
    """Return scores with their spread over seeds and interval, if any, such as `71.2 ± 0.4 [68.1, 74.0]`."""

    def text(line: pd.Series) -> str:
        value, std, low, high = line
        interval = f" [{float(low):.1f}, {float(high):.1f}]" if low and high else ""
        return points(value) + (f" ± {float(std):.1f}" if std else "") + interval

    columns = [key, f"{key}_std", f"{key}_low", f"{key}_high"]
    return pd.Series([text(line) for line in lines[columns].itertuples(index=False)], lines.index, dtype=str)


def scale_statement(settings: Mapping) -> str:
    """Return what the numbers of a scale mean, for the head of every table and page."""
    text = f"Measured at {settings['scale']} scale. {settings['caption'].strip()}"
    # No reader may miss this sentence, even if the caption lacks it.
    if settings["scale"] != "paper" and "nothing about the paper's numbers" not in text:
        text += " These numbers say nothing about the paper's numbers."
    return " ".join(filter(None, [text, settings.get("closed")]))


def make_environment(**options: Any) -> Environment:
    """Return an environment of the templates, in which an absent value is an error."""
    loader = FileSystemLoader(TEMPLATES)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


def render_markdown(template: str, **context) -> str:
    """Return a Markdown page from its template, with every value escaped (`markdown_text`)."""

    def escaped(value: object) -> str:
        return markdown(value) if isinstance(value, pd.DataFrame) else markdown_text(value)

    environment = make_environment(finalize=escaped, keep_trailing_newline=True)
    return environment.get_template(template).render(**context)


def markdown_page(settings: Mapping, table: str, lines: pd.DataFrame, origin: Mapping[str, str]) -> str:
    """Return the Markdown page of a table: our numbers, what they mean, and the paper's.

    Args:
        settings: settings of the table's stamp.
        table, lines: as for `view`.
        origin: provenance of the numbers (`hodor.reporting.runs.provenance`).
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
    """Return a table of text in Markdown, with columns of numbers aligned to the right."""
    align = ["right" if is_number(column) else "left" for column in frame]
    return frame.map(markdown_text).to_markdown(index=False, disable_numparse=True, colalign=align)


def markdown_text(text: str) -> str:
    """Escape text for Markdown, on one line: no HTML, no links, no table cells."""
    text = " ".join(str(text).split())
    text = re.sub(
        r"&(#?\w+;)", lambda entity: entity[0] if unescape(entity[0]) == entity[0] else f"&amp;{entity[1]}", text
    )
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("](", "]\\(").replace("|", "\\|")


def footnote(origin: Mapping[str, str]) -> str:
    """Return commit, machine, versions and seeds on one line, for the foot of a table."""
    return "; ".join(f"{name} {origin[name]}" for name in ("commit", "machine", "versions", "seeds"))


def latex_file(settings: Mapping, table: str, lines: pd.DataFrame, origin: Mapping[str, str]) -> str:
    r"""Return a table in LaTeX (booktabs), to `\input` into a paper; arguments as those of `markdown_page`."""
    shown = view(table, lines, beside=settings["scale"] == "paper")
    caption = f"{TITLES[table]}: {settings['title']}. {scale_statement(settings)} {shown.about}"
    label = f"tab:{settings['scale']}-{table}"
    comments = {"needs": r"\usepackage{booktabs}"} | origin
    parts = ["\n".join(f"% {what}: {' '.join(value.split())}" for what, value in comments.items())]
    parts.append(_latex(shown.measured, caption, label, footnote(origin)))
    if shown.second is not None:
        parts.append(_latex(shown.second, f"{shown.second_title}. {shown.second_about}", f"{label}-paper", PUBLISHED))
    return "\n\n".join(parts) + "\n"


def latex_text(text: str) -> str:
    """Escape text for LaTeX, on one line."""
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
    """Explain the intervals and, where these lines need it, n = 1."""
    counts = set(lines["n"]) - {"0"}
    text = "In brackets the 95 % interval over sequences and seeds; n: seeds"
    if counts - {"1"}:
        text += "; ±: sample standard deviation over seeds"
    if counts == {"1"}:
        text += ". Every score here is of one seed (n = 1): its interval is over sequences alone"
    elif "1" in counts:
        text += ". Where n = 1 the interval is over sequences alone"
    return text + "."
