"""The verb `render`: tables and runs in, the report pages out."""

from functools import partial
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
# Text notebook -> (title of its page, what the start page says it shows).
PAGES = {
    "ablation": ("Ablation", "ablation: curves, alphas, frames"),
    "comparison": ("Comparison", "comparison: curves, frames, speed, memory"),
}


def render(stamp: dict, results: Path, runs: Path, data: Path, out: Path) -> None:
    """Writes index.html and {ablation,comparison}.{ipynb,html} to `out`; the same inputs give the same bytes.

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
    parameters = {key: settings[key] for key in ("scale", "title", "caption")}
    parameters |= {name: Path(folder).as_posix() for name, folder in folders.items()}
    notebooks = {name: execute(NOTEBOOKS / f"{name}.py", parameters) for name in PAGES}
    for name, notebook in notebooks.items():
        body, css = to_html(notebook)
        body = '<nav><ul><li><a href="index.html">start page</a></li></ul></nav>\n' + body
        write_text_atomic(out / f"{name}.ipynb", nbformat.writes(notebook))
        write_text_atomic(out / f"{name}.html", document(f"{PAGES[name][0]}: {settings['title']}", body, css))
    write_text_atomic(out / "index.html", index)


def _index(settings: dict, report: Report) -> str:
    table = partial(table_html, at_paper_scale=settings["scale"] == "paper", link=True)
    runs = report.all_runs()
    manifests = [(run, read_json(run.folder / "manifest.json")) for run in runs]
    sections = [
        ("ablation", readable.TITLES["ablation"], table("ablation", report.ablation)),
        ("comparison", readable.TITLES["comparison"], table("comparison", report.comparison)),
        ("extended", readable.TITLES["extended"], table("extended", report.extended)),
        ("costs", "Time, memory and speed", costs_html(report.table("costs"))),
        ("provenance", "Where the numbers come from", facts_html(report.provenance())),
        (
            "runs",
            "Runs",
            '<p class="note">Settings, data, versions and cost of each.</p>\n' + runs_html(manifests),
        ),
    ]
    links = [f'<li><a href="{name}.html">{escape(text)}</a></li>' for name, (_, text) in PAGES.items()]
    links += [f'<li><a href="#{id}">{escape(title)}</a></li>' for id, title, _ in sections]
    links += [
        f'<li><a href="{name}.ipynb">notebook of {escape(title.lower())}</a></li>' for name, (title, _) in PAGES.items()
    ]
    return "\n".join(
        [
            f"<header>\n<h1>{TITLE}</h1>\n<p>{escape(settings['title'])}</p>\n</header>",
            scale_banner(scale_statement(settings)),
            f"<nav><ul>{''.join(links)}</ul></nav>",
            *(f'<section id="{id}">\n<h2>{escape(title)}</h2>\n{html}\n</section>' for id, title, html in sections),
        ]
    )
