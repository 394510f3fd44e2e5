"""Every figure of the reports with its name, title and caption; the pages, the notebooks and the files show the same."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd
from matplotlib.figure import Figure

from hodor.reporting import figures
from hodor.reporting.figures.attention import TooSmall, encoder_attention
from hodor.reporting.figures.costs import Cost
from hodor.reporting.figures.scores import Cell
from hodor.reporting.formats import COMPARED, TITLES, benchmark_title, heading
from hodor.reporting.report import STRIPS, Report, System, largest_object
from hodor.reporting.runs import Run

_VAL = benchmark_title(STRIPS)
_MASKS = (
    "Colours are those of the DAVIS palette. The first frame's mask is given to every system; the number beside a row "
    "is its J&F on the sequence, in points."
)


@dataclass(frozen=True)
class Shown:
    """A figure as it is shown.

    name: Of its files, without ending. alt: Its description, for readers who cannot see it. photographs: Whether it
    shows any.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    photographs: bool = False


def all_figures(report: Report, scale: str) -> Iterator[Shown]:
    """Every figure of a scale, in the order of the start page."""
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
    """Every cell of a table with its interval; the paper's number beside it at the scale of the paper alone."""
    found, about = cells(table, report.tables[table], report.released() if scale == "paper" else None)
    yield from _shown(
        f"intervals_{table}",
        f"{TITLES[table]}: every cell",
        f"Points (0 to 100) on the data of scale {scale}. {about}",
        "The scores of a table as points with their intervals, a panel for each benchmark, a line for each row",
        figures.intervals(found, about),
    )


def cells(table: str, lines: pd.DataFrame, released: pd.DataFrame | None) -> tuple[list[Cell], str]:
    """Every cell of a table, row by row, and what its intervals are.

    An interval is that of the columns `..._low` and `..._high` where the table has them, else one standard deviation
    over seeds to each side, else none.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: Those of its CSV.
        released: Those of released_weights.csv, where they and the paper's numbers are shown beside ours.
    """
    found, about = [], "No intervals: one seed, and the table gives no bootstrap interval."
    theirs = (
        {} if released is None else dict(zip(zip(released["row"], released["benchmark"]), released["released_J&F"]))
    )
    for line in lines.to_dict("records"):
        columns = [(b.id, heading(b), f"{b.id}_{b.metric}", f"{b.id}_paper_{b.metric}") for b in COMPARED]
        if table != "comparison":
            columns = [(line["benchmark"], f"{benchmark_title(line['benchmark'])} J&F", "J&F", "paper_J&F")]
        for benchmark, column, key, paper in columns:
            value, low, high, std = (_number(line.get(key + end)) for end in ("", "_low", "_high", "_std"))
            if low is not None:
                about = "Intervals: bootstrap over sequences and seeds, 95 %."
            elif value is not None and std is not None:
                low, high, about = value - std, value + std, "Intervals: standard deviation over seeds."
            beside = (line.get(paper), theirs.get((line["row"], benchmark))) if released is not None else (None, None)
            found.append(Cell(line["label"], column, value, low, high, *map(_number, beside)))
    return found, about


def strips(report: Report, table: str) -> Iterator[Shown]:
    """Frames across, systems down: the sequence of median score, and the one on which the rows differ most."""
    for strip, kind in zip(report.strips(table), ("median", "differing"), strict=False):
        what = "; ".join(filter(None, [f"{strip.video.name}: {strip.why}", report.notes(table)]))
        yield from _shown(
            f"strip_{table}_{kind}",
            f"{TITLES[table]}: {strip.why}",
            f"{what}. {_MASKS}",
            f"Frames of {strip.video.name} with the masks of the ground truth and of each row",
            figures.mask_strip(strip.video, {s.row: s.masks(strip.video) for s in strip.systems}, strip.scores),
            photographs=True,
        )


def failures(report: Report) -> Iterator[Shown]:
    """The objects on which two rows of the same training differ most."""
    for number, case in enumerate(report.failures(), 1):
        better, worse = case.better.row, case.worse.row
        masks = {system.row: system.masks(case.video) for system in (case.better, case.worse)}
        yield from _shown(
            f"failure_{number}",
            f"Where {worse} fails and {better} does not",
            f"{case.video.name}, object {case.object_id}: of all objects and all pairs of rows with the same training "
            f"data {('the widest', 'the second widest', 'the third widest')[number - 1]} difference, "
            f"{case.scores[better] - case.scores[worse]:.1f} points (each of another sequence). The marked frame is where "
            f"their J differs most, by {100 * case.gap:.0f} points. This object alone is shown; the numbers are its J&F.",
            f"Frames of {case.video.name} with one object's masks: the ground truth, {better} and {worse}",
            figures.mask_strip(case.video, masks, case.scores, only=case.object_id, mark={case.frame: "widest gap"}),
            photographs=True,
        )


def vanishing(report: Report) -> Iterator[Shown]:
    """J over time on the sequence whose objects are out of sight longest."""
    groups = report.scored_groups("ablation")
    chosen = report.most_absent() if groups else None
    if chosen is None:
        return
    video, present = chosen
    absent = sum(shown.count(False) for shown in present.values())
    what = (
        f"in {absent} frames an object is out of sight" if absent else "no object of this split ever leaves the frame"
    )
    yield from _shown(
        "region_over_time",
        f"J over time: {video.name}",
        f"The sequence whose objects are out of sight longest: {what}. Shaded: the ground truth does not show the object; "
        "an empty mask scores 1 there, any other 0. The first frame is given and the last is not scored.",
        f"J of each object of {video.name} over its frames, a line for each row, frames without the object shaded",
        figures.region_over_time(
            video.frames,
            present,
            {data: [(s.row, s.attention, s.region(video.name)) for s in of] for data, of in groups.items()},
        ),
    )


def objects(report: Report) -> Iterator[Shown]:
    """Object by object: soft masking against none and against hard masking."""
    pairs = [
        (data, other.row, soft.row, other.objects(), soft.objects()) for data, other, soft in report.soft_against()
    ]
    yield from _shown(
        "objects_soft_against",
        "Object by object: soft masking against none and hard",
        f"A point is an object of {_VAL}: its J&F in points, the mean over seeds. Above the diagonal soft masking is "
        "better.",
        "Scatter of the J&F of each object, soft masking up, no or hard masking across, with the diagonal",
        figures.object_scatter(pairs),
    )


def attention(report: Report) -> Iterator[Shown]:
    """Where the heads of the encoder look, under soft, hard and no masking; then soft masking layer by layer."""
    groups = report.scored_groups("ablation").values()
    systems = next((of for of in groups if any(system.attention == "soft" for system in of)), [])
    video = next((strip.video for strip in report.strips("ablation")), None) if systems else None
    object_id = largest_object(video) if video and len(video.frames) > 1 else None
    if object_id is None:
        return
    try:
        seen = {system.row: _attention(system, video, object_id) for system in systems}
    except TooSmall:
        return  # one figure less, not a report less
    frame = video.frame(video.frames[1])
    what = (
        f"{video.name}, second frame, the largest object of the first ({object_id}): where its descriptor looks, head "
        "by head, bright for much. Each map is scaled to its own largest weight; orange: where the mask that the "
        "network predicted crosses one half (nowhere, if it lost the object); above each map, the share of its weight "
        "inside."
    )
    yield from _shown(
        "attention_rows",
        "Attention of each head: the last encoder layer of each row",
        f"{what} {_VAL}, the sequence of median score.",
        f"Attention maps of the last encoder layer for one object of {video.name}, rows down, heads across",
        figures.attention_maps(frame, object_id, [replace(layers[-1], label=row) for row, layers in seen.items()]),
        photographs=True,
    )
    for row in (system.row for system in systems if system.attention == "soft" and len(seen[system.row]) > 1):
        yield from _shown(
            "attention_layers",
            f"Attention of each head: the encoder layers of {row}",
            f"{what} \N{GREEK SMALL LETTER ALPHA}: what soft masking adds to the logit of a pixel inside.",
            f"Attention maps of {row} for one object of {video.name}, encoder layers down, heads across",
            figures.attention_maps(frame, object_id, seen[row]),
            photographs=True,
        )


def alphas(report: Report) -> Iterator[Shown]:
    """Learned alphas: by layer and head at the end, and over the steps."""
    runs = report.soft_runs()
    yield from _shown(
        "alphas",
        "Learned alphas by layer and head",
        "The value at the end of training, below it the change from the start value of 32, 16, 8 or 4 (a quarter of "
        "the heads each). First seed. Rows of the second stage began where their first stage ended.",
        "Learned alphas of each row with soft masking, layers down, heads across, coloured by their change",
        figures.alpha_grid(runs),
    )
    for row, run in runs.items():
        yield from _shown(
            f"alphas_over_steps_{row}",
            f"Alphas over the steps of {row}",
            "How far each head's alpha moved from its start value.",
            f"Change of alpha by head and layer over the steps of {row}",
            figures.learned_alphas(row, run),
        )


def curves(report: Report, table: str) -> Iterator[Shown]:
    """Losses of the rows of a table."""
    notes = report.notes(table)
    groups = report.groups(table).items()
    yield from _shown(
        f"training_{table}",
        f"{TITLES[table]}: training curves",
        "Thin: the logged loss. Thick: its running mean. Losses of different panels, and of different methods, do not "
        "compare." + (f" {notes}" if notes else ""),
        "Training loss over steps, one panel for each training set, one line for each row",
        figures.training_curves(
            {data: [(s.row, s.attention, run) for s in of for run in s.runs] for data, of in groups}
        ),
    )


def run_curves(run: Run) -> Iterator[Shown]:
    """Losses and alphas of one run."""
    for name, alt, figure in (
        ("training", "Training loss over steps", figures.training_curves({"training loss": [(run.row, None, run)]})),
        ("alphas", "Change of alpha by head and layer over the steps", figures.learned_alphas("alphas", run)),
    ):
        yield from _shown(name, alt, f"{alt}.", alt, figure)


def costs(report: Report) -> Iterator[Shown]:
    """Accuracy against speed and memory."""
    lines = report.table("costs")
    lines, shown = lines[(lines["benchmark"] == STRIPS) & (lines["segmentation_fps"] != "")], []
    for system in (system for system in report.all_systems() if system.shown):
        of = lines.loc[lines["row"] == system.row, ["segmentation_fps", "segmentation_peak_mib"]].astype(float).mean()
        score = fmean(100 * run.predictions[STRIPS].overall["J&F-Mean"] for run in system.runs)
        if not of.isna().any():
            shown.append(Cost(system.label, system.attention, score, *of))
    machines = "; ".join(sorted(set(lines["machine"]) - {""}))
    yield from _shown(
        "costs",
        "Accuracy against speed and memory",
        f"Segmenting {_VAL}, files read, masks not written. Of one machine ({machines}); these numbers differ from run "
        "to run.",
        f"J&F on {_VAL} over frames per second and over peak memory, a numbered point for each row",
        figures.accuracy_against_cost(shown, f"{_VAL} J&F", machines),
    )


def _attention(system: System, video, object_id: int) -> list:
    inference = system.shown.segment["stamp_content"]["settings"]["inference"]
    return encoder_attention(system.runs[0].folder / "model.safetensors", inference, video, object_id)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _shown(name: str, title: str, caption: str, alt: str, figure: Figure | None, photographs: bool = False):
    if figure is not None:
        yield Shown(name, title, caption, alt, figure, photographs)
