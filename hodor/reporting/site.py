"""The verb `render`: make the report pages of a scale from its tables and runs."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pandas as pd
from markupsafe import Markup

from hodor.provenance import read_json
from hodor.reporting import notebooks
from hodor.reporting.claims import read_claims
from hodor.reporting.figures import figure_bytes
from hodor.reporting.figures.masks import mask_rows
from hodor.reporting.formats import MISSING, NOT_RUN, TITLES, benchmark_title, footnote, points, scale_statement
from hodor.reporting.gallery import Shown, all_figures, run_curves
from hodor.reporting.html import address, claims_html, costs_html, grid_html, inline, overview, page, scores_html
from hodor.reporting.runs import Run, machine_line
from hodor.reporting.selection import STRIPS, Report, System, median

NOTEBOOKS = Path(__file__).resolve().parents[2] / "workflow" / "notebooks"
TITLE = "Differentiable soft-masked attention: reference reproduction"
# Text notebook -> content of its page.
PAGES = {
    "ablation": "table, curves, alphas, frames",
    "comparison": "table, curves, frames, speed, memory",
    "qualitative": "masks, failures, vanishing objects, attention",
}
# Figures that are shown below a table.
_BY_TABLE = {"intervals_ablation": "ablation", "intervals_comparison": "comparison", "costs": "costs"}
# Type in CITATION.cff -> type in BibTeX.
_TYPES = {"conference-paper": "inproceedings", "article": "article", "software": "software"}
_RELEASED = {"label": "checkpoint", "row": "compared with", "benchmark": "benchmark", "released_J&F": "J&F"}
_RELEASED |= {"released_J": "J", "released_F": "F", "status": "status", "note": "note"}


def render(stamp: dict, results: Path, runs: Path, data: Path, out: Path) -> list[Path]:
    """Write the pages of a scale and return their paths; the same inputs give the same bytes.

    Writes index.html, {ablation,comparison,qualitative}.{ipynb,html}, figures/<name>.{pdf,png} and
    runs/<row>-seed<k>.html. The pages load nothing from outside and link only to each other, so that the folder can be
    copied elsewhere. Nothing is written before everything has been made.

    Args:
        stamp: stamp of the step; its settings hold "scale", "title", "caption" and "citation" (CITATION.cff).
        results, runs, data: folders of the scale's tables, runs and data sets; claims.json and released_weights.csv are
            optional.
        out: folder to write to.

    Raises:
        HodorError: a table, a run, a mask or a frame is missing or broken.
    """
    settings, out = stamp["settings"], Path(out)
    report = Report(Path(results), Path(runs), Path(data))
    # The tables first, because a missing one is then found within a second.
    context = index_context(settings, report)
    files: dict[str, bytes] = {}
    shown: dict[str, list[Shown]] = {id: [] for id in context["sections"]}
    for figure in all_figures(report, settings["scale"]):
        shown[_BY_TABLE.get(figure.name, "figures")].append(figure)
        for format in ("pdf", "png"):
            files[f"figures/{figure.name}.{format}"] = figure_bytes(figure.figure, format)
    for system in report.all_systems():
        for run in system.runs:
            files[address(run)] = run_page(settings, report, system, run).encode()
    folders = {"results": results, "runs": runs, "data": data}
    parameters = {key: settings[key] for key in ("scale", "title", "caption", "own") if key in settings}
    parameters |= {name: Path(folder).as_posix() for name, folder in folders.items()}
    for name in PAGES:
        notebook = notebooks.execute(NOTEBOOKS / f"{name}.py", parameters)
        body, css = notebooks.to_html(notebook)
        title = f"{name.title()}: {settings['title']}"
        files[f"{name}.ipynb"] = nbformat.writes(notebook).encode()
        files[f"{name}.html"] = page("notebook", title, css, body=Markup(body)).encode()
    files["index.html"] = page("index", TITLE, **context, figures=shown).encode()
    _write(out, files)
    return [out / name for name in files]


def index_context(settings: Mapping, report: Report) -> dict:
    """Return the content of the start page without its figures."""
    at_paper, released = settings["scale"] == "paper", report.released()
    citation = settings["citation"]
    works = [work for work in (citation.get("preferred-citation"), citation, *citation.get("references", [])) if work]
    # Id -> (name in the navigation, heading).
    sections = {
        "claims": ("claims", "The paper's claims"),
        "ablation": ("table 1 in full", f"Table 1 in full: {TITLES['ablation'].lower()}"),
        "comparison": ("table 2 in full", f"Table 2 in full: {TITLES['comparison'].lower()}"),
        "extended": ("baselines", TITLES["extended"]),
        "runs": ("runs", "Runs"),
        "costs": ("costs", "Time, memory and speed"),
        **({"released": ("authors' weights", "The authors' released weights")} if len(released) else {}),
        "figures": ("figures", "Figures"),
        "provenance": ("provenance", "Where the numbers come from"),
        "cite": ("how to cite", "How to cite"),
    }
    return {
        "settings": settings,
        "statement": scale_statement(settings),
        "sections": sections,
        "pages": PAGES,
        "overview": {table: overview(report, table, at_paper) for table in ("ablation", "comparison")},
        "foot": footnote(report.provenance()),
        "claims": claims_html(read_claims(report.results), settings["scale"]),
        "strip": _strip(report),
        "tables": {table: scores_html(report, table, at_paper, linked=True) for table in TITLES},
        "runs": _runs(report),
        "costs": costs_html(report),
        "released": _released(report, released),
        "facts": {"scale": settings["title"]} | report.provenance(),
        "citation": {
            "message": citation.get("message"),
            "sentences": [sentence(work) for work in works],
            "bibtex": "\n\n".join(bibtex(work) for work in works),
        },
    }


def run_page(settings: Mapping, report: Report, system: System, run: Run) -> str:
    """Return the page of a run: scores, curves, masks and manifest."""
    manifest, origin = read_json(run.manifest), report.provenance([run.row])
    facts = {
        "row": run.row,
        "scale": str(manifest.get("scale")),
        "seed": str(run.seed),
        "trained on": system.data,
        "attention": system.attention,
        "parameters": _parameters(run),
        "commit": str(manifest.get("commit")),
        "machine": machine_line(manifest.get("machine")),
        "note": system.note,
    }
    strips = []
    if STRIPS in run.predictions:
        prediction = run.predictions[STRIPS]
        scores = prediction.sequence_scores()
        chosen = {median(scores): "its sequence of median score"}
        chosen.setdefault(min(scores.index, key=lambda name: (scores[name], name)), "its sequence of lowest score")
        for name, why in chosen.items():
            video = report.videos[name]
            rows = _mask_rows(video, {"ground truth": video.label_folder, run.row: prediction.folder / "masks" / name})
            strips.append((rows, f"{name}, {why}: J&F {scores[name]:.1f}."))
    return page(
        "run",
        f"{run.row}, seed {run.seed}",
        system=system,
        run=run,
        statement=scale_statement(settings),
        others={of.seed: address(of).removeprefix("runs/") for of in system.runs if of.seed != run.seed},
        facts=facts,
        foot=footnote(origin),
        scores=[_run_scores(run, id) for id in run.predictions],
        curves=[(shown, inline(figure_bytes(shown.figure, "svg"), "image/svg+xml")) for shown in run_curves(run)],
        strips=strips,
        benchmark=benchmark_title(STRIPS),
        manifest=json.dumps(manifest, indent=1, sort_keys=True),
    )


def _run_scores(run: Run, id: str) -> dict:
    """Return the scores of a run on a benchmark, overall and of each object; none if a server has the ground truth."""
    prediction = run.predictions[id]
    found = {"id": id, "title": benchmark_title(id), "submission": prediction.submission}
    if prediction.submission:
        return found
    names = {f"{name}-Mean": name for name in ("J&F", "J", "F")} | {"G": "G"}
    overall = {names[key]: f"{100 * prediction.overall[key]:.1f}" for key in names if key in prediction.overall}
    objects = prediction.objects.index.to_series().str.rsplit("_", n=1, expand=True)
    objects.columns = ["sequence", "object"]
    j, f = prediction.objects["J-Mean"], prediction.objects["F-Mean"]
    for name, values in {"J&F": (j + f) / 2, "J": j, "F": f}.items():
        objects[name] = (100 * values).map("{:.1f}".format)
    return found | {"overall": pd.DataFrame([overall]), "objects": objects}


def sentence(work: Mapping) -> str:
    """Return a work of CITATION.cff (Citation File Format 1.2) as a reference."""
    authors = [_name(author, " ") for author in work.get("authors", [])]
    parts = [", ".join(authors), work.get("title", ""), _venue(work), str(work.get("year", "") or "")]
    if work.get("type") == "software":
        parts.append(f"version {work['version']}" if work.get("version") else "")
    return ". ".join(part.rstrip(".") for part in parts if part) + "."


def bibtex(work: Mapping) -> str:
    """Return a work as a BibTeX entry; its key is the first author, the year and the first word of the title."""
    title, year, authors = work.get("title", ""), str(work.get("year", "") or ""), work.get("authors", [{}])
    fields = {
        "title": f"{{{title}}}",
        "author": " and ".join(_name(author, ", ") for author in authors),
        "booktitle": _venue(work),
        "year": year,
        "version": str(work.get("version", "") or ""),
        "doi": work.get("doi", ""),
        "url": work.get("url", ""),
    }
    word = next(iter(re.findall(r"[A-Za-z]+", title)), "")
    key = re.sub(
        r"[^a-z0-9]", "", f"{authors[0].get('family-names') or authors[0].get('name', '')}{year}{word}".lower()
    )
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    return f"@{_TYPES.get(work.get('type'), 'misc')}{{{key},\n{lines}\n}}"


def _venue(work: Mapping) -> str:
    return work.get("collection-title") or work.get("journal") or ""


def _name(author: Mapping, between: str) -> str:
    if "family-names" not in author:
        return author.get("name", "")
    names = [author["family-names"], author.get("given-names", "")]
    return between.join(filter(None, names if between == ", " else names[::-1]))


def _strip(report: Report) -> dict | None:
    """Return masks of the sequence of median score: ground truth, and up to three rows with the same training data."""
    strip = next(iter(report.strips("ablation")), None)
    if strip is None:
        return None
    alike = [system for system in strip.systems if system.data == strip.systems[0].data][:3]
    rows = _mask_rows(
        strip.video, {"ground truth": strip.video.label_folder} | {s.label: s.masks(strip.video) for s in alike}, 3
    )
    scores = ", ".join(f"{system.label} {strip.scores[system.row]:.1f}" for system in alike)
    return {"rows": rows, "caption": f"{strip.video.name}, {strip.why}; J&F: {scores}. More below, selected by rule."}


def _mask_rows(video, folders: Mapping[str, Path], columns: int = 5) -> list[tuple[str, str, str]]:
    pictures = mask_rows(video, list(folders.values()), columns)
    return [
        (label, inline(picture, "image/jpeg"), f"Frames of {video.name} with the masks of {label}")
        for label, picture in zip(folders, pictures, strict=True)
    ]


def _runs(report: Report) -> pd.DataFrame:
    """Return a table of the runs with links to their pages."""
    rows = []
    for system, run in ((of, run) for of in report.all_systems() for run in of.runs):
        scored = run.predictions.get(STRIPS)
        row = {
            "row": Markup('<a href="{}">{}</a>').format(address(run), run.row),
            "seed": str(run.seed),
            "trained on": system.data,
            f"{benchmark_title(STRIPS)} J&F": f"{100 * scored.overall['J&F-Mean']:.1f}" if scored else NOT_RUN,
            "parameters": _parameters(run),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _parameters(run: Run) -> str:
    return f"{run.train.get('parameters') or 0:,}" if run.train else MISSING


def _released(report: Report, lines: pd.DataFrame) -> Markup | None:
    if lines.empty:
        return None
    frame = lines[list(_RELEASED)].rename(columns=_RELEASED)
    frame["benchmark"] = frame["benchmark"].map(benchmark_title)
    for column in ("J&F", "J", "F"):
        frame[column] = frame[column].map(points)
    return grid_html(frame.replace("", MISSING), footnote(report.provenance()))


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files below `out` atomically, and remove earlier figures and run pages."""
    for folder in ("figures", "runs"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for name, content in files.items():
        partial = out / f"{name}.part"
        partial.write_bytes(content)
        os.replace(partial, out / name)
