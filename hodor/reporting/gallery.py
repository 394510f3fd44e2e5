"""Every figure of the reports with its name, title and caption, for pages, notebooks and files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import pandas as pd
import yaml
from matplotlib.figure import Figure

from hodor.config.benchmarks import BENCHMARKS
from hodor.reporting.figures import scores, training
from hodor.reporting.figures.attention import TooSmall, attention_maps, encoder_attention
from hodor.reporting.figures.masks import mask_strip
from hodor.reporting.figures.scores import Cell, Cost
from hodor.reporting.formats import TITLES, benchmark_title, score_columns
from hodor.reporting.runs import Run
from hodor.reporting.selection import STRIPS, Report, System, largest_object

# Kind of figure -> templates of title, caption and alt text.
_TEXTS = yaml.safe_load((Path(__file__).parent / "templates" / "figures.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Shown:
    """A figure with its texts.

    name: file name without ending. alt: description for readers who cannot see the figure. photographs: whether it shows
    any.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    photographs: bool = False


def all_figures(report: Report, scale: str) -> Iterator[Shown]:
    """Yield every figure of a scale, in the order of the start page."""
    for table in ("ablation", "comparison"):
        yield from intervals(report, table, scale)
    for table in ("ablation", "comparison"):
        yield from strips(report, table)
    for figure in (failures, vanishing, objects, attention, alphas):
        yield from figure(report)
    for table in ("ablation", "comparison"):
        yield from curves(report, table)
    yield from costs(report)


def intervals(report: Report, table: str, scale: str) -> Iterator[Shown]:
    """Yield the figure of a table's cells with their intervals and, at scale paper, the paper's numbers."""
    found, about = cells(table, report.tables[table], report.released() if scale == "paper" else None)
    figure = scores.intervals(found, about)
    yield from _shown("intervals", figure, f"intervals_{table}", table=TITLES[table], scale=scale, about=about)


def cells(table: str, lines: pd.DataFrame, released: pd.DataFrame | None) -> tuple[list[Cell], str]:
    """Return the cells of a table, column by column, and a sentence about their intervals.

    An interval is that of the columns `..._low` and `..._high` or, without these (scores of a server), one standard
    deviation over seeds to each side.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: lines of its CSV.
        released: lines of released_weights.csv, to show them and the paper's numbers beside ours; or None.
    """
    found: list[Cell] = []
    kinds: dict[str, None] = {}
    theirs = (
        {} if released is None else dict(zip(zip(released["row"], released["benchmark"]), released["released_J&F"]))
    )
    for benchmark, column, key, paper, of in score_columns(table, lines):
        for line in of.to_dict("records"):
            value, low, high, std = (_number(line.get(key + end)) for end in ("", "_low", "_high", "_std"))
            if low is not None:
                kinds["bootstrap over sequences and seeds, 95 %"] = None
            elif value is not None and std is not None:
                low, high = value - std, value + std
                kinds["of a server's scores, the standard deviation over seeds"] = None
            beside = (line.get(paper), theirs.get((line["row"], benchmark))) if released is not None else (None, None)
            found.append(Cell(line["label"], column, value, low, high, *map(_number, beside)))
    return found, f"Intervals: {'; '.join(kinds)}." if kinds else "No intervals: a server's scores of one seed."


def strips(report: Report, table: str) -> Iterator[Shown]:
    """Yield masks over frames of two sequences: that of median score, and that on which the rows differ most."""
    for strip, kind in zip(report.strips(table), ("median", "differing"), strict=False):
        masks = {system.row: system.masks(strip.video) for system in strip.systems}
        figure = mask_strip(strip.video, masks, strip.scores)
        notes = f"; {report.notes(table)}" if report.notes(table) else ""
        values = {"table": TITLES[table], "video": strip.video.name, "why": strip.why, "notes": notes}
        yield from _shown("strip", figure, f"strip_{table}_{kind}", **values)


def failures(report: Report) -> Iterator[Shown]:
    """Yield masks of the objects on which two rows with the same training data differ most."""
    for number, case in enumerate(report.failures(), 1):
        better, worse = case.better.row, case.worse.row
        masks = {system.row: system.masks(case.video) for system in (case.better, case.worse)}
        marked = {case.frame: "widest gap"}
        figure = mask_strip(case.video, masks, case.scores, only=case.object_id, mark=marked)
        values = {"video": case.video.name, "object": case.object_id, "better": better, "worse": worse}
        values |= {"rank": ("", "second ", "third ")[number - 1], "gap": 100 * case.gap}
        values["points"] = case.scores[better] - case.scores[worse]
        yield from _shown("failure", figure, f"failure_{number}", **values)


def vanishing(report: Report) -> Iterator[Shown]:
    """Yield J over time on the sequence whose objects are out of sight longest."""
    groups = report.groups("ablation", scored=True)
    chosen = report.most_absent() if groups else None
    if chosen is None:
        return
    video, present = chosen
    absent = sum(shown.count(False) for shown in present.values())
    what = f"an object is out of sight in {absent} frames" if absent else "no object of this split leaves the frame"
    lines = {data: [(s.row, s.attention, s.region(video.name)) for s in of] for data, of in groups.items()}
    figure = scores.region_over_time(video.frames, present, lines)
    yield from _shown("region_over_time", figure, video=video.name, what=what)


def objects(report: Report) -> Iterator[Shown]:
    """Yield, for each benchmark, the scores of each object: soft masking against none and against hard masking."""
    pairs = report.soft_against()
    runs = [run for _, *systems in pairs for system in systems for run in system.runs]
    for benchmark in BENCHMARKS if runs else ():
        found = [run.predictions.get(benchmark) for run in runs]
        if any(prediction is None or prediction.objects.empty for prediction in found):  # a server gives no objects
            continue
        panels = [(data, of.row, soft.row, of.objects(benchmark), soft.objects(benchmark)) for data, of, soft in pairs]
        name = f"objects_soft_against_{benchmark}"
        values = {"benchmark": benchmark_title(benchmark)}
        yield from _shown("objects_soft_against", scores.object_scatter(panels), name, **values)


def attention(report: Report) -> Iterator[Shown]:
    """Yield attention maps of the encoder: of each kind of masking, then of soft masking layer by layer."""
    groups = report.groups("ablation", scored=True).values()
    systems = next((of for of in groups if any(system.attention == "soft" for system in of)), [])
    video = next((strip.video for strip in report.strips("ablation")), None) if systems else None
    object_id = largest_object(video) if video and len(video.frames) > 1 else None
    if object_id is None:
        return
    try:
        seen = {system.row: _attention(system, video, object_id) for system in systems}
    except TooSmall:
        return
    frame, values = video.frame(video.frames[1]), {"video": video.name, "object": object_id}
    last = [replace(layers[-1], label=row) for row, layers in seen.items()]
    yield from _shown("attention_rows", attention_maps(frame, object_id, last), **values)
    for row in (system.row for system in systems if system.attention == "soft" and len(seen[system.row]) > 1):
        yield from _shown("attention_layers", attention_maps(frame, object_id, seen[row]), row=row, **values)


def alphas(report: Report) -> Iterator[Shown]:
    """Yield the learned alphas: by layer and head at the end, and over the steps."""
    runs = report.soft_runs()
    yield from _shown("alphas", training.alpha_grid(runs))
    for row, run in runs.items():
        yield from _shown("alphas_over_steps", training.learned_alphas(row, run), f"alphas_over_steps_{row}", row=row)


def curves(report: Report, table: str) -> Iterator[Shown]:
    """Yield the losses of the rows of a table."""
    groups = report.groups(table).items()
    figure = training.training_curves(
        {data: [(s.row, s.attention, run) for s in of for run in s.runs] for data, of in groups}
    )
    yield from _shown("training", figure, f"training_{table}", table=TITLES[table], notes=report.notes(table))


def run_curves(run: Run) -> Iterator[Shown]:
    """Yield losses and alphas of one run."""
    yield from _shown("run_training", training.training_curves({"training loss": [(run.row, None, run)]}))
    yield from _shown("run_alphas", training.learned_alphas("alphas", run))


def costs(report: Report) -> Iterator[Shown]:
    """Yield accuracy against speed and memory."""
    lines = report.table("costs")
    lines, shown = lines[(lines["benchmark"] == STRIPS) & (lines["segmentation_fps"] != "")], []
    for system in (system for system in report.all_systems() if system.shown):
        of = lines.loc[lines["row"] == system.row, ["segmentation_fps", "segmentation_peak_mib"]].astype(float).mean()
        score = fmean(100 * run.predictions[STRIPS].overall["J&F-Mean"] for run in system.runs)
        if not of.isna().any():
            shown.append(Cost(system.label, system.attention, score, *of))
    machines = "; ".join(sorted(set(lines["machine"]) - {""}))
    figure = scores.accuracy_against_cost(shown, f"{benchmark_title(STRIPS)} J&F", machines)
    yield from _shown("costs", figure, machines=machines)


def _attention(system: System, video, object_id: int) -> list:
    inference = system.shown.segment["stamp_content"]["settings"]["inference"]
    return encoder_attention(system.runs[0].folder / "model.safetensors", inference, video, object_id)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _shown(kind: str, figure: Figure | None, name: str | None = None, **values) -> Iterator[Shown]:
    """Yield the figure with its texts, or nothing if there is no figure."""
    if figure is not None:
        values = {"benchmark": benchmark_title(STRIPS)} | values
        texts = {key: text.format(**values).strip() for key, text in _TEXTS[kind].items()}
        photographs = kind in ("strip", "failure", "attention_rows", "attention_layers")
        yield Shown(name or kind, texts["title"], texts["caption"], texts["alt"], figure, photographs)
