"""Pieces of HTML that pages and notebooks share, from Jinja2 templates (templates/) that escape every value."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from hodor.reporting import formats
from hodor.reporting.claims import VERDICTS, effect_text, where
from hodor.reporting.figures import FORMATS, figure_bytes
from hodor.reporting.formats import MISSING, NOT_RUN, PUBLISHED, footnote, heading, points
from hodor.reporting.gallery import Shown
from hodor.reporting.runs import Run
from hodor.reporting.selection import Report

# Heading -> column of costs.csv.
_COSTS = {
    "training, s": "training_s",
    "training, MiB": "training_peak_mib",
    "segmenting, frames/s": "segmentation_fps",
    "segmenting, MiB": "segmentation_peak_mib",
}
_ENVIRONMENT = formats.make_environment(autoescape=True)
SCRIPT = (formats.TEMPLATES / "script.js").read_text(encoding="utf-8")
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
# Browsers block every other script, and everything from outside the folder of the page.
POLICY = f"default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'"


def page(template: str, title: str, css: str = "", **context) -> str:
    """Return a whole page. `css`: appended to the style of the site."""
    style = Markup((formats.TEMPLATES / "style.css").read_text(encoding="utf-8") + css)
    return fragment(template, title=title, style=style, script=Markup(SCRIPT), policy=Markup(POLICY), **context)


def fragment(template: str, **context) -> Markup:
    """Return a piece of HTML from its template."""
    return Markup(_ENVIRONMENT.get_template(f"{template}.html").render(is_number=_is_number, **context))


def address(run: Run) -> str:
    """Return the address of a run's page relative to the start page."""
    return f"runs/{run.row}-seed{run.seed}.html"


def head_html(settings: Mapping, report: Report) -> Markup:
    """Return the head of a notebook: what the numbers mean, and their provenance."""
    facts = {"scale": settings["title"]} | report.provenance()
    return fragment("head", statement=formats.scale_statement(settings), facts=facts)


def overview(report: Report, table: str, at_paper: bool) -> Markup:
    """Return a table with only our score of each row and the paper's."""
    lines = report.tables[table]
    columns = formats.score_columns(table, lines)
    # A benchmark without any number of the paper has no column for them.
    published = {name: (of[paper] != "").any() for _, name, _, paper, of in columns}
    rows = []
    for system in report.systems[table]:
        cells = []
        for benchmark, name, key, paper, of in columns:
            line = of[of["row"] == system.row].iloc[0]
            # "server closed since DATE" would widen the table past a screen; the statement above it has the date.
            ours, low, high = points(line[key]).partition(" since ")[0], line[f"{key}_low"], line[f"{key}_high"]
            if system.runs and ours[:1].isdigit():
                ours = Markup('<a href="{}#{}">{}</a>').format(address(system.runs[0]), benchmark, ours)
            if low and high:
                ours = ours + Markup(" <small>[{}, {}]</small>").format(points(low), points(high))
            cells.append((ours, points(line[paper]) if published[name] else None))
        rows.append((system.label, cells))
    paper = "paper's" if at_paper else "paper's, official data"
    return fragment("overview", published=published, rows=rows, note=report.notes(table), paper=paper)


def scores_html(report: Report, table: str, at_paper: bool, linked: bool = False) -> Markup:
    """Return a table in full.

    Args:
        report: results of the scale.
        table: "ablation", "comparison" or "extended".
        at_paper: whether the paper's numbers are beside ours, instead of in a second table.
        linked: whether each score links to the page of its (first) run.
    """
    lines = report.tables[table]
    if lines.empty:
        return fragment("scores", lines=0)
    shown = formats.view(table, lines, at_paper)
    measured = shown.measured.astype(object)
    systems = {system.row: system.runs for system in report.systems[table]}
    for number, line in enumerate(lines.to_dict("records") if linked else ()):
        runs = systems[line["row"]]
        benchmarks = {heading(benchmark): benchmark.id for benchmark in formats.comparison_benchmarks(lines)}
        if table != "comparison":
            benchmarks = dict.fromkeys(("J&F", "J", "F"), line["benchmark"])
        for place, (column, text) in enumerate(measured.iloc[number].items()):
            if runs and text[:1].isdigit() and column in benchmarks:
                link = Markup('<a href="{}#{}">{}</a>').format(address(runs[0]), benchmarks[column], text)
                measured.iat[number, place] = link
            elif runs and column == "n":
                measured.iat[number, place] = text + _seed_links(runs)
    foot = footnote(report.provenance(lines["row"]))
    return fragment("scores", lines=len(lines), measured=measured, view=shown, foot=foot, published=PUBLISHED)


def costs_html(report: Report, table: str | None = None) -> Markup:
    """Return the table of times, memory and speed, of the rows of one table or of all."""
    lines = report.table("costs")
    if table:
        lines = lines[lines["row"].isin(report.tables[table]["row"])]
    if lines.empty:
        return Markup('<p class="note">Nothing was run.</p>')
    machines = lines["machine"].unique()
    keys = {"row": "row", "seed": "seed"} | _COSTS
    keys |= {name: name for name in ("benchmark", "machine") if lines[name].nunique() > 1}
    keys |= {"note": "note"} if lines["note"].any() else {}
    frame = pd.DataFrame({name: lines[key].map(_rounded) for name, key in keys.items()})
    about = f"Measured on: {'; '.join(machines)}. These numbers differ from run to run."
    return grid_html(frame, footnote(report.provenance(lines["row"]))) + Markup('<p class="note">{}</p>').format(about)


def facts_html(report: Report) -> Markup:
    """Return the provenance of the numbers as a list."""
    return Markup(_ENVIRONMENT.get_template("parts.html").module.facts(report.provenance()))


def claims_html(content: Mapping | None, scale: str) -> Markup:
    """Return a line for each claim and benchmark, which unfolds to the reasons of its verdict."""
    if content is None:
        return fragment("claims", content=None, scale=scale)
    lines = [_claim(claim) for claim in content["claims"]]
    seeds = ", ".join(str(seed) for seed in content.get("seeds", []))
    drawn = f"{content['resamples']:,} bootstrap resamples" if content.get("resamples") else ""
    return fragment(
        "claims",
        content={"statement": content.get("statement", "")},
        judged=[line for line in lines if line["verdict"] != NOT_RUN],
        absent=[line for line in lines if line["verdict"] == NOT_RUN],
        verdicts=VERDICTS,
        facts="; ".join(filter(None, [f"seeds {seeds}" if seeds else "", drawn])),
        foot=footnote(content["provenance"]) if content.get("provenance") else "",
    )


def _claim(claim: Mapping) -> dict:
    effect, interval = effect_text(claim)
    counts = [
        f"{claim[unit]} {unit if claim[unit] > 1 else unit[:-1]}" for unit in ("sequences", "seeds") if claim.get(unit)
    ]
    if claim.get("probability") is not None:
        counts.append(f"better in {100 * claim['probability']:.0f} % of the resamples")
    texts = {key: claim.get(key, "") for key in ("claim", "verdict", "reason", "note", "evidence")}
    shown = effect if interval == MISSING else f"{effect} {interval}"
    return texts | {
        "rows": claim.get("rows", []),
        "where": where(claim),
        "effect_text": shown.replace("-", "\N{MINUS SIGN}"),
        "counts": counts,
    }


def grid_html(frame: pd.DataFrame, foot: str) -> Markup:
    parts = _ENVIRONMENT.get_template("parts.html").module
    return Markup(parts.grid(frame, _is_number)) + Markup(parts.foot(foot))


def _seed_links(runs: Sequence[Run]) -> Markup:
    links = [Markup('<a href="{}" title="seed {}">{}</a>').format(address(run), run.seed, run.seed) for run in runs]
    return Markup(" (seed{} {})").format("s" * (len(runs) > 1), Markup(" ").join(links))


def _is_number(column: str) -> bool:
    return formats.is_number(column) or column in _COSTS or column == "G"


def inline(content: bytes, mime: str) -> str:
    """Return a picture as a data URL."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _rounded(value: str) -> str:
    try:
        return f"{float(value):,.1f}" if "." in value else value or MISSING
    except ValueError:
        return value


def figures_html(shown: Iterable[Shown], nothing: str = "nothing was trained") -> Markup:
    """Return figures with their titles and captions; a sentence if there are none."""
    parts = []
    for of in shown:
        format = "jpeg" if of.photographs else "svg"
        parts.append(fragment("shown", shown=of, address=inline(figure_bytes(of.figure, format), FORMATS[format][0])))
    return Markup("\n").join(parts) if parts else Markup("<p>Nothing to draw: {}.</p>").format(nothing)
