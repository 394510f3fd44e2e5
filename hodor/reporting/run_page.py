"""The page of a run: scores, curves, masks, and the manifest with everything that it was made of."""

import json
from collections.abc import Mapping, Sequence
from html import escape

from hodor.reporting import figures
from hodor.reporting.page import document, facts_html, figure_html, grid_html, inline, scale_banner
from hodor.reporting.readable import benchmark_title
from hodor.reporting.report import STRIPS, Report, sequence_scores
from hodor.reporting.runs import Run
from hodor.reporting.words import machine_line

FOLDER = "runs"


def address(row: str, seed: int | str) -> str:
    """The page of a run, seen from the start page."""
    return f"{FOLDER}/{row}-seed{seed}.html"


def run_page(run: Run, manifest: Mapping, report: Report, statement: str, about: Mapping[str, str]) -> str:
    """A whole page.

    Args:
        run: a trained and scored system.
        manifest: its manifest.json.
        report: where its sequences are.
        statement: what numbers of this scale mean (`scale_statement`).
        about: what the tables say of its row: label, training_data, attention, note; and its seeds, by spaces.
    """
    seeds = [
        f'<a href="{address(run.row, seed).removeprefix(FOLDER + "/")}">seed {seed}</a>'
        for seed in about["seeds"].split()
        if int(seed) != run.seed
    ]
    links = ['<a href="../index.html">start page</a>', '<a href="#masks">masks</a>', '<a href="#manifest">manifest</a>']
    sections = [
        ("scores", "Scores", _scores(run)),
        ("training", "Training", _training(run)),
        ("masks", "Masks", _masks(run, report)),
        ("manifest", "Manifest", _manifest(run, manifest)),
    ]
    body = [
        f"<nav><ul>{''.join(f'<li>{link}</li>' for link in [*links, *seeds])}</ul></nav>",
        f"<header><h1>{escape(about['label'])}, seed {run.seed}</h1></header>",
        scale_banner(statement),
        f'<div class="facts">{facts_html(_facts(run, manifest, about))}</div>',
        *(f'<section id="{id}">\n<h2>{title}</h2>\n{html}\n</section>' for id, title, html in sections),
    ]
    return document(f"{run.row}, seed {run.seed}", "\n".join(body))


def _facts(run: Run, manifest: Mapping, about: Mapping[str, str]) -> list[tuple[str, str]]:
    facts = [
        ("row", run.row),
        ("scale", str(manifest.get("scale"))),
        ("seed", str(run.seed)),
        ("trained on", about["training_data"]),
        ("attention", about.get("attention", "")),
        ("parameters", f"{run.train.get('parameters') or 0:,}"),
        ("commit", str(manifest.get("commit"))),
        ("machine", machine_line(manifest.get("machine")) or ""),
        ("note", about.get("note", "")),
    ]
    return [(what, value) for what, value in facts if value]


def _scores(run: Run) -> str:
    parts = []
    for benchmark, prediction in run.predictions.items():
        title = f'<h3 id="{escape(benchmark)}">{escape(benchmark_title(benchmark))}</h3>'
        if prediction.submission:
            told = (
                f"A server has the truth: the tables show its answer, for the zip with sha256 {prediction.submission}."
            )
            parts += [title, f'<p class="note">{told}</p>']
            continue
        columns = [name for name in ("J&F-Mean", "J-Mean", "F-Mean", "G") if name in prediction.overall]
        overall = [f"{100 * prediction.overall[name]:.1f}" for name in columns]
        objects = [
            [escape(sequence), escape(k), *(f"{100 * value:.1f}" for value in _jf(scores))]
            for name, scores in prediction.objects.items()
            for sequence, _, k in [name.rpartition("_")]
        ]
        parts += [
            title,
            grid_html([name.removesuffix("-Mean") for name in columns], [overall], lambda _: True),
            f"<details><summary>{len(objects)} objects</summary>",
            grid_html(["sequence", "object", "J&F", "J", "F"], objects, lambda name: name != "sequence"),
            "</details>",
        ]
    return "\n".join(parts) or '<p class="note">Not scored.</p>'


def _jf(scores: Mapping[str, float]) -> tuple[float, float, float]:
    return (scores["J-Mean"] + scores["F-Mean"]) / 2, scores["J-Mean"], scores["F-Mean"]


def _training(run: Run) -> str:
    shown: Sequence[tuple] = (
        (figures.training_curves({"training loss": [(run.row, None, run)]}), "Training loss over steps"),
        (figures.learned_alphas("alphas", run), "Change of alpha by head and layer over the steps"),
    )
    parts = [
        figure_html(
            inline(figures.figure_bytes(figure, "svg"), "image/svg+xml"),
            alt,
            f"{alt}.",
            width=figure.get_figwidth(),
        )
        for figure, alt in shown
        if figure is not None
    ]
    return "\n".join(parts) or '<p class="note">Nothing was trained.</p>'


def _masks(run: Run, report: Report) -> str:
    """Two sequences by rule: that of the run's own median score, and its lowest."""
    if STRIPS not in run.predictions:
        return f'<p class="note">{escape(benchmark_title(STRIPS))} was not segmented.</p>'
    scores = sequence_scores(run, STRIPS)
    ranked = sorted(scores, key=lambda name: (scores[name], name))
    chosen = {ranked[(len(ranked) - 1) // 2]: "its sequence of median score"}
    chosen.setdefault(ranked[0], "its sequence of lowest score")
    parts = []
    for name, why in chosen.items():
        picture = figures.mosaic(report.videos[name], run.predictions[STRIPS].folder / "masks" / name)
        alt = f"Frames of {name}: the ground truth above, the masks of {run.row} below"
        caption = f"{name}, {why}: J&F {scores[name]:.1f}. Above: ground truth; below: this run."
        parts.append(figure_html(inline(picture, "image/jpeg"), alt, caption))
    return "\n".join(parts)


def _manifest(run: Run, manifest: Mapping) -> str:
    text = json.dumps(manifest, indent=1, sort_keys=True)
    return (
        f'<p class="note">Settings, data, versions and cost: <code>{escape((run.folder / "manifest.json").as_posix())}'
        f"</code></p>\n<pre>{escape(text)}</pre>"
    )
