"""Every figure of the reports with its name, title and caption; the pages, the notebooks and the files show the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure

from hodor.config.benchmarks import get_benchmark
from hodor.reporting import choices, figures
from hodor.reporting.attention import TooSmall, encoder_attention, labelled, largest_object
from hodor.reporting.cells import about_intervals, cells
from hodor.reporting.figures.costs import Cost
from hodor.reporting.readable import TITLES
from hodor.reporting.released import read_released, released_cells, released_notes
from hodor.reporting.report import STRIPS, Report
from hodor.reporting.runs import Run

_MASKS = (
    "Colours are those of the DAVIS palette. The first frame's mask is given to every system; the number beside a row "
    "is its J&F on the sequence, in points."
)


@dataclass(frozen=True)
class Shown:
    """A figure as it is shown.

    name: of its files, without ending. alt: what it shows, for those who cannot see it. photographs: whether it is
    made of them.
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
    yield from failures(report)
    yield from vanishing(report)
    yield from objects(report)
    yield from attention(report)
    yield from alphas(report)
    for table in ("ablation", "comparison"):
        yield from curves(report, table)
    yield from costs(report)


def intervals(report: Report, table: str, scale: str) -> Iterator[Shown]:
    """Every cell of a table with its interval; the paper's number beside it at the scale of the paper alone."""
    lines = getattr(report, table)
    about = about_intervals(table, lines)
    released = read_released(report.results)
    found = cells(table, lines, scale == "paper", released_cells(released))
    labels = {line["row"]: line["label"] for line in lines}
    said = [f"{labels[row]}, released: {note}." for row, note in released_notes(released).items() if row in labels]
    yield from _shown(
        f"intervals_{table}",
        f"{TITLES[table]}: every cell",
        " ".join([f"Points (0 to 100) on the data of scale {scale}. {about}", *(said if scale == "paper" else ())]),
        "The scores of a table as points with their intervals, a panel for each benchmark, a line for each row",
        figures.intervals(found, about),
    )


def strips(report: Report, table: str) -> Iterator[Shown]:
    """Frames across, systems down: the sequence of median score, and the one on which the rows differ most."""
    lines = getattr(report, table)
    notes = report.notes(lines)
    for number, (why, video, systems, scores) in enumerate(report.strips(lines)):
        yield from _shown(
            f"strip_{table}_{('median', 'differing')[number]}",
            f"{TITLES[table]}: {why}",
            "; ".join(filter(None, [f"{video.name}: {why}", notes])) + f". {_MASKS}",
            f"Frames of {video.name} with the masks of the ground truth and of each row",
            figures.mask_strip(video, systems, scores),
            photographs=True,
        )


def failures(report: Report) -> Iterator[Shown]:
    """The objects on which two rows of the same training differ most."""
    for number, case in enumerate(choices.failures(report, report.ablation), 1):
        apart = abs(case.scores[case.better] - case.scores[case.worse])
        yield from _shown(
            f"failure_{number}",
            f"Where {case.worse} fails and {case.better} does not",
            f"{case.video.name}, object {case.object_id}: of all objects and all pairs of rows with the same training "
            f"data {('the widest', 'the second widest', 'the third widest')[number - 1]} difference, {apart:.1f} "
            "points (each of another sequence). The marked frame is where their J differs most, by "
            f"{100 * case.gap:.0f} points. This object alone is shown; the numbers are its J&F.",
            f"Frames of {case.video.name} with one object's masks: the truth, {case.better} and {case.worse}",
            figures.mask_strip(
                case.video, case.masks, case.scores, only=case.object_id, mark={case.frame: "widest gap"}
            ),
            photographs=True,
        )


def vanishing(report: Report) -> Iterator[Shown]:
    """J over time on the sequence whose objects are out of sight longest."""
    groups = choices.trained_alike(report, report.ablation)
    chosen = choices.most_absent(report.videos) if groups else None
    if chosen is None:
        return
    video, present = chosen
    frames = sum(shown.count(False) for shown in present.values())
    what = (
        f"in {frames} frames an object is out of sight" if frames else "no object of this split ever leaves the frame"
    )
    yield from _shown(
        "region_over_time",
        f"J over time: {video.name}",
        f"The sequence whose objects are out of sight longest: {what}. Shaded: the truth does not show the object; an "
        "empty mask scores 1 there, any other 0. The first frame is given and the last is not scored.",
        f"J of each object of {video.name} over its frames, a line for each row, frames without the object shaded",
        figures.region_over_time(
            video.frames,
            present,
            {
                title: [(row, attention, choices.region(runs[0], video.name)) for row, attention, runs in systems]
                for title, systems in groups.items()
            },
        ),
    )


def objects(report: Report) -> Iterator[Shown]:
    """Object by object: soft masking against none and against hard masking."""
    yield from _shown(
        "objects_soft_against",
        "Object by object: soft masking against none and hard",
        f"A point is an object of {get_benchmark(STRIPS).title}: its J&F in points, the mean over seeds. Above the "
        "diagonal soft masking is better.",
        "Scatter of the J&F of each object, soft masking up, no or hard masking across, with the diagonal",
        figures.object_scatter(choices.soft_against(report)),
    )


def attention(report: Report) -> Iterator[Shown]:
    """Where the heads of the encoder look, under soft, hard and no masking; then soft masking layer by layer."""
    groups = choices.trained_alike(report, report.ablation)
    systems = next((of for of in groups.values() if any(attention == "soft" for _, attention, _ in of)), [])
    video = next((strip[1] for strip in report.strips(report.ablation)), None) if systems else None
    object_id = largest_object(video) if video and len(video.frames) > 1 else None
    if object_id is None:
        return
    try:
        seen = {
            row: encoder_attention(runs[0].folder / "model.safetensors", _inference(runs[0]), video, object_id)
            for row, _, runs in systems
        }
    except TooSmall:
        return  # one figure less, not a report less
    frame = video.frame(video.frames[1])
    what = (
        f"{video.name}, second frame, the largest object of the first ({object_id}): where its descriptor looks, head "
        "by head, bright for much. Each map is scaled to its own largest weight; orange: where the mask that the "
        "network predicted crosses one half (nowhere, if it lost the object); above each map, the share of its weight "
        "inside."
    )
    last = [labelled(layers[-1], row) for row, layers in seen.items()]
    yield from _shown(
        "attention_rows",
        "Attention of each head: the last encoder layer of each row",
        f"{what} {get_benchmark(STRIPS).title}, the sequence of median score.",
        f"Attention maps of the last encoder layer for one object of {video.name}, rows down, heads across",
        figures.attention_maps(frame, object_id, last),
        photographs=True,
    )
    for row, kind, _ in systems:
        if kind == "soft" and len(seen[row]) > 1:
            yield from _shown(
                "attention_layers",
                f"Attention of each head: the encoder layers of {row}",
                f"{what} \N{GREEK SMALL LETTER ALPHA}: what soft masking adds to the logit of a pixel inside.",
                f"Attention maps of {row} for one object of {video.name}, encoder layers down, heads across",
                figures.attention_maps(frame, object_id, seen[row]),
                photographs=True,
            )


def alphas(report: Report) -> Iterator[Shown]:
    """Learned alphas: by layer and head at the end, and on the way there."""
    runs = dict(report.soft_runs())
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
    lines = getattr(report, table)
    notes = report.notes(lines)
    yield from _shown(
        f"training_{table}",
        f"{TITLES[table]}: training curves",
        "Thin: the logged loss. Thick: its running mean. Losses of different panels, and of different methods, do not "
        "compare." + (f" {notes}" if notes else ""),
        "Training loss over steps, one panel for each training set, one line for each row",
        figures.training_curves(report.curves(lines)),
    )


def costs(report: Report) -> Iterator[Shown]:
    """Accuracy against speed and memory."""
    scores: dict[str, tuple[str, str | None, float]] = {}
    for line in report.once([*report.ablation, *report.comparison, *report.extended]):
        runs = [run for run in report.runs_of(line) if STRIPS in run.predictions]
        if runs:
            score = fmean(100 * run.predictions[STRIPS].overall["J&F-Mean"] for run in runs)
            scores[line["row"]] = (line["label"], line.get("attention") or None, score)
    lines = [line for line in report.table("costs") if line["benchmark"] == STRIPS and line["row"] in scores]
    shown = []
    for row, (label, kind, score) in scores.items():
        of = [line for line in lines if line["row"] == row and line["segmentation_fps"]]
        if of:
            fps, memory = (fmean(float(line[f"segmentation_{name}"]) for line in of) for name in ("fps", "peak_mib"))
            shown.append(Cost(label, kind, score, fps, memory))
    machines = "; ".join(sorted({line["machine"] for line in lines if line["machine"]}))
    title = get_benchmark(STRIPS).title
    yield from _shown(
        "costs",
        "Accuracy against speed and memory",
        f"Segmenting {title}, files read, masks not written. Of one machine ({machines}); these numbers differ from "
        "run to run.",
        f"J&F on {title} over frames per second and over peak memory, a numbered point for each row",
        figures.accuracy_against_cost(shown, f"{title} J&F", machines),
    )


def _inference(run: Run) -> dict:
    return run.predictions[STRIPS].segment["stamp_content"]["settings"]["inference"]


def _shown(name: str, title: str, caption: str, alt: str, figure: Figure | None, photographs: bool = False):
    if figure is not None:
        yield Shown(name, title, caption, alt, figure, photographs)
