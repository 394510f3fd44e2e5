"""The verb `render`: tables and runs in, the report pages out."""

import os
import shutil
from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path

import nbformat

from hodor.provenance import read_json
from hodor.reporting import readable, run_page
from hodor.reporting.citation import citation_html
from hodor.reporting.figures import figure_bytes
from hodor.reporting.gallery import Shown, all_figures
from hodor.reporting.notebook import execute, to_html
from hodor.reporting.page import (
    Links,
    costs_html,
    document,
    facts_html,
    figure_html,
    grid_html,
    report_head,
    table_html,
)
from hodor.reporting.released import read_released, released_cells, released_notes
from hodor.reporting.report import STRIPS, Report
from hodor.reporting.runs import Run
from hodor.reporting.verdict_page import read_claims, verdicts_html
from hodor.reporting.words import scale_statement

NOTEBOOKS = Path(__file__).resolve().parents[2] / "workflow" / "notebooks"
TITLE = "Differentiable soft-masked attention: reference reproduction"
FIGURES = "figures"
# Text notebook -> (title of its page, what the start page says it shows).
PAGES = {
    "ablation": ("Ablation", "ablation: table, curves, alphas, frames"),
    "comparison": ("Comparison", "comparison: table, curves, frames, speed, memory"),
    "qualitative": ("Qualitative", "qualitative: masks, failures, vanishing objects, attention"),
}
# Figures that stand by their table, not among the others.
_BY_TABLE = {"intervals_ablation": "ablation", "intervals_comparison": "comparison", "costs": "costs"}


def render(stamp: dict, results: Path, runs: Path, data: Path, out: Path) -> None:
    """Writes the site of a scale to `out`; the same inputs give the same bytes.

    index.html, {ablation,comparison,qualitative}.{ipynb,html}, figures/<name>.{pdf,png}, runs/<row>-seed<k>.html. The
    pages stand alone: they load nothing from outside, link only to each other, and may be copied together elsewhere.
    Nothing is written before everything was made.

    Args:
        stamp: its settings hold "scale", "title", "caption" and "citation" (the content of CITATION.cff).
        results: folder of the scale's tables; claims.json and released_weights.csv are shown where they are there.
        runs: folder of the scale's runs.
        data: folder of the scale's data sets.
        out: folder for the pages.

    Raises:
        HodorError: a table, a run, a mask or a frame is missing or broken.
    """
    settings, out = stamp["settings"], Path(out)
    report = Report(Path(results), Path(runs), Path(data))
    # The tables first: what is missing for them shows within a second.
    sections = _sections(settings, report)
    files: dict[str, bytes] = {}
    shown: list[Shown] = []
    for figure in all_figures(report, settings["scale"]):
        shown.append(figure)
        for format in ("pdf", "png"):
            files[f"{FIGURES}/{figure.name}.{format}"] = figure_bytes(figure.figure, format)
    files |= _run_pages(settings, report)
    folders = {"results": results, "runs": runs, "data": data}
    parameters = {key: settings[key] for key in ("scale", "title", "caption")}
    parameters |= {name: Path(folder).as_posix() for name, folder in folders.items()}
    for name in PAGES:
        notebook = execute(NOTEBOOKS / f"{name}.py", parameters)
        body, css = to_html(notebook)
        body = '<nav><ul><li><a href="index.html">start page</a></li></ul></nav>\n' + body
        files[f"{name}.ipynb"] = nbformat.writes(notebook).encode()
        files[f"{name}.html"] = document(f"{PAGES[name][0]}: {settings['title']}", body, css).encode()
    files["index.html"] = document(TITLE, _index(settings, report, sections, shown)).encode()
    _write(out, files)


def _sections(settings: Mapping, report: Report) -> dict[str, tuple[str, str]]:
    """Id -> (title, HTML) of what the start page shows besides figures, in its order."""
    links, released = _links(report), read_released(report.results)
    table = partial(
        table_html,
        at_paper_scale=settings["scale"] == "paper",
        links=links,
        released=released_cells(released),
        released_notes=released_notes(released),
    )
    return {
        "claims": ("The paper's claims", verdicts_html(read_claims(report.results), settings["scale"])),
        "ablation": (f"Table 1: {_small(readable.TITLES['ablation'])}", table("ablation", report.ablation)),
        "comparison": (f"Table 2: {_small(readable.TITLES['comparison'])}", table("comparison", report.comparison)),
        "extended": (readable.TITLES["extended"], table("extended", report.extended)),
        "figures": ("Figures", ""),
        "costs": ("Time, memory and speed", costs_html(report.table("costs"))),
        "runs": ("Runs", _runs_html(report, links)),
        "provenance": ("Where the numbers come from", facts_html(report.provenance())),
        "cite": ("How to cite", citation_html(settings["citation"])),
    }


def _index(settings: Mapping, report: Report, sections: dict[str, tuple[str, str]], shown: list[Shown]) -> str:
    """The body of the start page."""
    pictures: dict[str, list[str]] = {}
    for figure in shown:
        pictures.setdefault(_BY_TABLE.get(figure.name, "figures"), []).append(_picture(figure))
    here = [f'<a href="#{id}">{escape(title)}</a>' for id, (title, _) in sections.items()]
    pages = [
        f'<a href="{name}.html">{escape(text)}</a> (<a href="{name}.ipynb">notebook</a>)'
        for name, (_, text) in PAGES.items()
    ]
    navigation = "".join(f"<ul>{''.join(f'<li>{link}</li>' for link in links)}</ul>" for links in (here, pages))
    nothing = '<p class="note">Nothing to draw: nothing was trained.</p>'
    return "\n".join(
        [
            f"<header>\n<h1>{TITLE}</h1>\n<p>{escape(settings['title'])}</p>\n</header>",
            report_head(settings, report),
            f"<nav>{navigation}</nav>",
            *(
                f'<section id="{id}">\n<h2>{escape(title)}</h2>\n{html}\n'
                + ("\n".join(pictures.get(id, [nothing] if id == "figures" else [])) + "\n</section>")
                for id, (title, html) in sections.items()
            ),
        ]
    )


def _picture(figure: Shown) -> str:
    name = f"{FIGURES}/{figure.name}"
    files = {"PDF": f"{name}.pdf", "PNG": f"{name}.png"}
    width = figure.figure.get_figwidth()
    html = figure_html(f"{name}.png", figure.alt, figure.caption, width=width, files=files)
    return f"<h3>{escape(figure.title)}</h3>\n{html}"


def _links(report: Report) -> Links:
    """Row -> (seed, page) of its runs."""
    found: dict[str, list[tuple[str, str]]] = {}
    for run in report.all_runs():
        found.setdefault(run.row, []).append((str(run.seed), run_page.address(run.row, run.seed)))
    return found


def _runs_html(report: Report, links: Links) -> str:
    """A line for each run, with its page."""
    head = ["row", "seed", "trained on", f"{readable.benchmark_title(STRIPS)} J&F", "parameters"]
    about = {line["row"]: line for line in _lines(report)}
    rows = []
    for run in report.all_runs():
        to = escape(dict(links[run.row])[str(run.seed)])
        scored = run.predictions.get(STRIPS)
        rows.append(
            [
                f'<a href="{to}">{escape(run.row)}</a>',
                str(run.seed),
                escape(about[run.row]["training_data"]),
                f"{100 * scored.overall['J&F-Mean']:.1f}" if scored else readable.NOT_RUN,
                f"{run.train.get('parameters') or 0:,}",
            ]
        )
    return '<p class="note">Each with its scores, curves, masks, settings, data, versions and cost.</p>\n' + (
        grid_html(head, rows) if rows else '<p class="note">Nothing was run.</p>'
    )


def _run_pages(settings: Mapping, report: Report) -> dict[str, bytes]:
    statement = scale_statement(dict(settings))
    about = {line["row"]: line for line in reversed(_lines(report))}
    return {
        run_page.address(run.row, run.seed): run_page.run_page(
            run, _manifest(run), report, statement, about[run.row]
        ).encode()
        for run in report.all_runs()
    }


def _manifest(run: Run) -> dict:
    return read_json(run.folder / "manifest.json")


def _small(title: str) -> str:
    return title[:1].lower() + title[1:]


def _lines(report: Report) -> list[readable.Line]:
    return [*report.ablation, *report.comparison, *report.extended]


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files below `out`, each atomically; of earlier figures and run pages none is left over."""
    for folder in (FIGURES, run_page.FOLDER):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for name, content in files.items():
        partial_file = out / f"{name}.part"
        partial_file.write_bytes(content)
        os.replace(partial_file, out / name)
