"""HTML of the report pages: whole documents, what stands at their head, tables, figures."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from hodor.reporting import readable
from hodor.reporting.comparison import BENCHMARKS, heading
from hodor.reporting.report import Report
from hodor.reporting.site import SCRIPT, STYLE
from hodor.reporting.views import table_view
from hodor.reporting.words import scale_statement

# Browsers obey it: whatever a page may come to hold, nothing is asked for outside its folder.
_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
# Heading -> column of costs.csv.
_COSTS = {
    "training, s": "training_s",
    "training, MiB": "training_peak_mib",
    "segmenting, frames/s": "segmentation_fps",
    "segmenting, MiB": "segmentation_peak_mib",
}
_WIDE = 6.5  # inches: a wider figure keeps its size on a narrow screen, and is scrolled
_HEAD = ("seeds", "data", "trained on", "commit", "machine")

Links = Mapping[str, Sequence[tuple[str, str]]]
"""Row -> (seed, address of the run's page), one for each of its seeds."""


def document(title: str, body: str, css: str = "") -> str:
    """A whole page. `title` is text, `body` is HTML, `css` comes after the site's own."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Browsers ask for an icon unless they are given one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{css}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def scale_banner(statement: str) -> str:
    """The sentence that no reader may miss."""
    return f'<p class="scale" role="note">{escape(statement)}</p>'


def report_head(settings: Mapping, report: Report) -> str:
    """What stands above everything else: what the numbers mean, and of which scale, seeds, data, code, machine.

    Args:
        settings: scale, title, caption.
        report: the results.
    """
    facts = dict(report.provenance())
    pairs = [("scale", settings["title"]), *((name, facts[name]) for name in _HEAD)]
    return scale_banner(scale_statement(dict(settings))) + f'<div class="facts">{facts_html(pairs)}</div>'


def table_html(
    table: str,
    lines: Sequence[readable.Line],
    at_paper_scale: bool,
    *,
    links: Links | None = None,
    released: Mapping[tuple[str, str], str] | None = None,
    released_notes: Mapping[str, str] | None = None,
) -> str:
    """One of the tables: our numbers, and the paper's apart from them unless at its scale.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: of the table.
        at_paper_scale: set the numbers of the paper and of the authors' released weights beside ours.
        links: pages of the runs; each score leads to the run that it comes from, a number of several runs to the first.
        released: (row, benchmark) -> the number of the authors' released weights, or words.
        released_notes: row -> what must be said wherever that number stands.
    """
    if not lines:
        return '<p class="note">This table has no rows.</p>'
    released = {key: value for key, value in (released or {}).items() if key[0] in {line["row"] for line in lines}}
    view = table_view(table, lines, at_paper_scale, released)
    cells = _escaped(view.measured)
    if links:
        for line, row in zip(lines, cells, strict=True):
            _link(view.measured.head, row, line, links.get(line["row"], ()))
    parts = [grid_html(view.measured.head, cells), f'<p class="note">{escape(view.about)}</p>']
    if view.apart:
        parts += [
            f"<h3>{escape(view.apart_title)}</h3>",
            f'<p class="note">{escape(view.apart_about)}</p>',
            grid_html(view.apart.head, _escaped(view.apart)),
        ]
    apart, words = readable.released_grid(lines, released), readable.released_words(lines, released)
    apart_shown = apart.rows and not at_paper_scale  # there they stand beside ours
    labels = {line["row"]: line["label"] for line in lines}
    words = [f"{labels[row]}: {note}" for row, note in (released_notes or {}).items() if row in labels] + words
    if apart_shown or words:
        parts += [
            f"<h3>{escape(readable.RELEASED_TITLE)}</h3>",
            f'<p class="note">{escape(readable.RELEASED_NOTE)}</p>',
            grid_html(apart.head, _escaped(apart)) if apart_shown else "",
            f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in words)}</ul>" if words else "",
        ]
    return "\n".join(parts)


def costs_html(lines: Sequence[readable.Line]) -> str:
    """The table of times, memory and speed."""
    if not lines:
        return '<p class="note">Nothing was run.</p>'
    several = len({line["benchmark"] for line in lines}) > 1
    noted = any(line["note"] for line in lines)
    machines = list(dict.fromkeys(line["machine"] for line in lines))
    last = ["benchmark"] * several + ["machine"] * (len(machines) > 1) + ["note"] * noted
    head, keys = ["row", "seed", *_COSTS, *last], ["row", "seed", *_COSTS.values(), *last]
    where = f"Measured on: {'; '.join(machines)}. These numbers differ from run to run."
    rows = [[escape(_rounded(line[key])) or readable.MISSING for key in keys] for line in lines]
    return grid_html(head, rows) + f'<p class="note">{escape(where)}</p>'


def facts_html(pairs: Iterable[tuple[str, str]]) -> str:
    """(what, value) pairs as a list."""
    return "<dl>" + "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in pairs) + "</dl>"


def figure_html(
    address: str, alt: str, caption: str, *, width: float = 0, files: Mapping[str, str] | None = None
) -> str:
    """A figure with its caption and links to its files (what they are -> address). Texts are escaped here.

    width: in inches as printed; on a wide screen it is shown a little larger than that. Its own pixels where absent.
    """
    links = "".join(f' <a href="{escape(to)}">{escape(what)}</a>' for what, to in (files or {}).items())
    size = f' width="{round(100 * width)}"' if width else ""
    kind = ' class="wide"' if not width or width > _WIDE else ""
    return (
        f'<figure{kind}><div class="picture"><img src="{escape(address)}" alt="{escape(alt)}"{size} loading="lazy"></div>'
        f"<figcaption>{escape(caption)}{links}</figcaption></figure>"
    )


def inline(content: bytes, mime: str) -> str:
    """A picture as an address that holds it."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def grid_html(
    head: Sequence[str], rows: Iterable[Sequence[str]], is_number: Callable[[str], bool] | None = None
) -> str:
    """A table that sorts. head: text; rows: HTML of the cells; is_number: whether the column of a heading is numeric."""
    numeric = [(is_number or _is_number)(column) for column in head]
    classes = [
        "number" if number else "whole" if column in ("row", "benchmark", "sequence") else ""
        for number, column in zip(numeric, head, strict=True)
    ]
    top = "".join(
        f'<th{_class(kind)} scope="col">{escape(name)}</th>' for kind, name in zip(classes, head, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            # On a narrow screen each cell is a line of its own: what says nothing needs none.
            f'<td{_class(kind, "absent" if cell == readable.MISSING else "")} data-label="{escape(name)}">'
            # One child, so that the flexible line of a narrow screen does not break the cell apart.
            f"<span>{cell}</span></td>"
            for kind, name, cell in zip(classes, head, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _link(head: Sequence[str], row: list[str], line: readable.Line, pages: Sequence[tuple[str, str]]) -> None:
    """Makes the scores of a line lead to the page of its first run, and its number of seeds to each."""
    if not pages:
        return
    benchmarks = {heading(benchmark): benchmark.id for benchmark in BENCHMARKS}
    for place, column in enumerate(head):
        benchmark = benchmarks.get(column) or (line.get("benchmark", "") if column in ("J&F", "J", "F") else "")
        if benchmark and row[place][:1].isdigit():
            row[place] = f'<a href="{escape(pages[0][1])}#{benchmark}">{row[place]}</a>'
        elif column == "n" and row[place][:1].isdigit():
            seeds = " ".join(
                f'<a href="{escape(to)}" title="seed {escape(seed)}">{escape(seed)}</a>' for seed, to in pages
            )
            row[place] += f" (seed{'s' * (len(pages) > 1)} {seeds})"


def _is_number(column: str) -> bool:
    return readable.is_number(column) or column in _COSTS or column == "seed"


def _class(*names: str) -> str:
    text = " ".join(filter(None, names))
    return f' class="{text}"' if text else ""


def _escaped(grid: readable.Grid) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in grid.rows]


def _rounded(value: str) -> str:
    try:
        return f"{float(value):,.1f}" if "." in value else value
    except ValueError:
        return value
