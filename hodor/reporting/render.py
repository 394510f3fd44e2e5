"""The verb `render`: tables and runs in, the report pages out."""

from html import escape
from pathlib import Path

import nbformat

from hodor.provenance import read_json, write_text_atomic
from hodor.reporting import readable
from hodor.reporting.notebook import execute, to_html
from hodor.reporting.page import costs_html, document, facts_html, runs_html, scale_banner, table_html
from hodor.reporting.report import Report
from hodor.reporting.words import scale_statement

NOTEBOOKS = Path(__file__).resolve().parents[2] / "workflow" / "notebooks"
TITLE = "Differentiable soft-masked attention: reference reproduction"


def render(stamp: dict, results: Path, runs: Path, data: Path, out: Path) -> None:
    """Writes ablation.ipynb, ablation.html and index.html to `out`; the same inputs give the same bytes.

    The pages stand alone: they load nothing, link only to each other, and may be copied together elsewhere.

    Args:
        stamp: its settings hold "scale", "title" and "caption".
        results: folder of the scale's tables.
        runs: folder of the scale's runs.
        data: folder of the scale's data sets.
        out: folder for the pages.

    Raises:
        HodorError: a table, a run, a mask or a frame is missing or broken.
    """
    settings, out = stamp["settings"], Path(out)
    report = Report(Path(results), Path(runs), Path(data))
    # The start page first: what is missing for it shows within a second.
    index = document(TITLE, _index(settings, report))
    folders = {"results": results, "runs": runs, "data": data}
    notebook = execute(
        NOTEBOOKS / "ablation.py",
        {key: settings[key] for key in ("scale", "title", "caption")}
        | {name: Path(folder).as_posix() for name, folder in folders.items()},
    )
    body, css = to_html(notebook)
    body = '<nav><ul><li><a href="index.html">start page</a></li></ul></nav>\n' + body
    write_text_atomic(out / "ablation.ipynb", nbformat.writes(notebook))
    write_text_atomic(out / "ablation.html", document(f"Ablation: {settings['title']}", body, css))
    write_text_atomic(out / "index.html", index)


def _index(settings: dict, report: Report) -> str:
    at_paper_scale = settings["scale"] == "paper"
    runs = report.all_runs()
    manifests = [(run, read_json(run.folder / "manifest.json")) for run in runs]
    sections = [
        ("ablation", readable.TITLES["ablation"], table_html(report.ablation, at_paper_scale, link=True)),
        ("extended", readable.TITLES["extended"], table_html(report.extended, at_paper_scale, link=True)),
        ("costs", "Time, memory and speed", costs_html(report.table("costs"))),
        ("provenance", "Where the numbers come from", facts_html(report.provenance())),
        (
            "runs",
            "Runs",
            '<p class="note">Settings, data, versions and cost of each.</p>\n' + runs_html(manifests),
        ),
    ]
    links = ['<li><a href="ablation.html">curves, alphas, frames</a></li>']
    links += [f'<li><a href="#{id}">{escape(title)}</a></li>' for id, title, _ in sections]
    links += ['<li><a href="ablation.ipynb">notebook</a></li>']
    return "\n".join(
        [
            f"<header>\n<h1>{TITLE}</h1>\n<p>{escape(settings['title'])}</p>\n</header>",
            scale_banner(scale_statement(settings)),
            f"<nav><ul>{''.join(links)}</ul></nav>",
            *(f'<section id="{id}">\n<h2>{escape(title)}</h2>\n{html}\n</section>' for id, title, html in sections),
        ]
    )
