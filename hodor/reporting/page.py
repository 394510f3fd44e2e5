"""HTML of the report pages: one small static site without scripts that asks for nothing outside itself."""

import json
from collections.abc import Iterable, Sequence
from html import escape

from hodor.reporting import readable
from hodor.reporting.runs import Run
from hodor.reporting.views import table_view

_CSS = """
:root { color-scheme: light; --line: #d5d9de; --soft: #f5f7f9; --ink: #1c2126; --blue: #0060a0; --warn: #fff4d6; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 0.25rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.5rem; }
a { color: var(--blue); }
.scale { margin: 1rem 0; padding: 0.8rem 1rem; border-left: 6px solid #e69f00; background: var(--warn);
  font-size: 1.05rem; font-weight: 600; }
.note, figcaption { color: #4a535c; font-size: 0.92rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; padding: 0; list-style: none; }
table { border-collapse: collapse; width: 100%; margin: 0.75rem 0; font-size: 0.95rem; }
th, td { padding: 0.4rem 0.6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { white-space: normal; }
.whole { white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
pre, code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.82rem; }
pre { background: var(--soft); padding: 0.7rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 0.35rem 0; }
summary { cursor: pointer; }
details:target > summary { background: var(--warn); }
details.code > summary { color: #4a535c; font-size: 0.85rem; }
@media screen and (max-width: 44rem) {
  table, tbody, tr, td { display: block; width: 100%; }
  thead { display: none; }
  tr { border: 1px solid var(--line); border-radius: 6px; margin: 0.6rem 0; padding: 0.3rem 0.6rem; }
  td, td.number { display: flex; justify-content: space-between; gap: 1rem; text-align: right; border: 0;
    padding: 0.15rem 0; white-space: normal; }
  td::before { content: attr(data-label); font-weight: 600; text-align: left; flex: none; }
  dl { grid-template-columns: 1fr; }
  dt { margin-top: 0.4rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, details.code { display: none; }
  .scale { border: 2px solid #000; background: none; }
  a { color: inherit; text-decoration: none; }
  table, figure { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""


# Heading -> column of costs.csv.
_COSTS = {
    "training, s": "training_s",
    "training, MiB": "training_peak_mib",
    "segmenting, frames/s": "segmentation_fps",
    "segmenting, MiB": "segmentation_peak_mib",
}


def document(title: str, body: str, css: str = "") -> str:
    """A whole page. `title` is text, `body` is HTML, `css` comes after the site's own."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Browsers ask for an icon unless they are given one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}{css}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def scale_banner(statement: str) -> str:
    """The sentence that no reader may miss."""
    return f'<p class="scale" role="note">{escape(statement)}</p>'


def table_html(table: str, lines: Sequence[readable.Line], at_paper_scale: bool, link: bool = False) -> str:
    """One of the tables: our numbers, and the paper's apart from them unless at its scale.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: of the table.
        at_paper_scale: set the paper's numbers beside ours.
        link: link each row to its first run's anchor (see `runs_html`).
    """
    if not lines:
        return '<p class="note">This table has no rows.</p>'
    view = table_view(table, lines, beside=at_paper_scale)
    cells = _escaped(view.measured)
    if link:
        for line, row in zip(lines, cells, strict=True):
            if line["seeds"]:
                row[0] = f'<a href="#{anchor(line["row"], line["seeds"].split()[0])}">{row[0]}</a>'
    parts = [_table(view.measured.head, cells), f'<p class="note">{escape(view.about)}</p>']
    if view.apart:
        parts += [
            f"<h3>{escape(view.apart_title)}</h3>",
            f'<p class="note">{escape(view.apart_about)}</p>',
            _table(view.apart.head, _escaped(view.apart)),
        ]
    return "\n".join(parts)


def costs_html(lines: Sequence[readable.Line]) -> str:
    """The table of times, memory and speed."""
    if not lines:
        return '<p class="note">Nothing was run.</p>'
    several = len({line["benchmark"] for line in lines}) > 1
    noted = any(line["note"] for line in lines)
    last = ["benchmark"] * several + ["machine"] + ["note"] * noted
    head, keys = ["row", "seed", *_COSTS, *last], ["row", "seed", *_COSTS.values(), *last]
    return _table(head, [[escape(_rounded(line[key])) for key in keys] for line in lines])


def facts_html(pairs: Iterable[tuple[str, str]]) -> str:
    """(what, value) pairs as a list."""
    return "<dl>" + "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in pairs) + "</dl>"


def runs_html(runs: Iterable[tuple[Run, dict]]) -> str:
    """Each run with its manifest, folded; `anchor` names the places."""
    return "\n".join(
        f'<details id="{anchor(run.row, run.seed)}"><summary>{escape(run.row)}, seed {run.seed}</summary>'
        f"<p><code>{escape((run.folder / 'manifest.json').as_posix())}</code></p>"
        f"<pre>{escape(json.dumps(manifest, indent=1, sort_keys=True))}</pre></details>"
        for run, manifest in runs
    )


def anchor(row: str, seed: int | str) -> str:
    """The place of a run on the page."""
    return f"run-{row}-seed{seed}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numeric = [readable.is_number(column) or column in _COSTS for column in head]
    classes = [
        ' class="number"' if number else ' class="whole"' if column in ("row", "benchmark") else ""
        for number, column in zip(numeric, head, strict=True)
    ]
    top = "".join(f'<th{kind} scope="col">{escape(name)}</th>' for kind, name in zip(classes, head, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-label="{escape(name)}">{cell}</td>'
            for kind, name, cell in zip(classes, head, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _escaped(grid: readable.Grid) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in grid.rows]


def _rounded(value: str) -> str:
    try:
        return f"{float(value):,.1f}" if "." in value else value
    except ValueError:
        return value
