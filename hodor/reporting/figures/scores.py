"""Figures of scores: with intervals, by object, over time, and against cost."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context, ticker
from matplotlib.figure import Figure

from hodor.reporting.figures import GREY, GRID, INK, STYLE, styles


@dataclass(frozen=True)
class Cell:
    """A number of a table in points.

    value: our number, None if it was not run. low, high: its interval, or None. paper, released: the paper's number and
    that of the authors' released weights, if they are shown beside ours.
    """

    row: str
    column: str
    value: float | None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    released: float | None = None


@rc_context(STYLE | {"axes.spines.left": False})
def intervals(cells: Sequence[Cell], about: str) -> Figure | None:
    """Plot every cell of a table with its interval, a panel for each column, a line for each row.

    A column without any number has no panel. `about`: a sentence about the intervals.
    """
    rows = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells if cell.value is not None))
    if not columns:
        return None
    figure = Figure(figsize=(2.9 * len(columns) + 2.4, 0.34 * len(rows) + 1.25), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    named = {}
    for column, axes in zip(columns, panels, strict=True):
        for cell in (cell for cell in cells if cell.column == column):
            _interval(axes, rows.index(cell.row), cell)
        axes.set(title=column, xlabel="points", ylim=(len(rows) - 0.5, -0.5))
        axes.margins(x=0.12)
        axes.grid(axis="x", **GRID)
        axes.tick_params(axis="y", length=0)
        named |= _legend(axes)
    panels[0].set_yticks(range(len(rows)), [textwrap.fill(row, 30) for row in rows])
    if len(named) > 1:
        figure.legend(named.values(), named, loc="outside upper right", ncols=len(named))
    figure.supxlabel(textwrap.fill(about, 44 * len(columns) + 30), fontsize=8, color="#444444")
    return figure


def _interval(axes, y: int, cell: Cell) -> None:
    if cell.value is None:
        axes.text(0.02, y, "not run", transform=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=8)
        return
    if cell.low is not None and cell.high is not None:
        axes.plot([cell.low, cell.high], [y, y], color=INK, linewidth=1.6, marker="|", markersize=7)
    axes.plot([cell.value], [y], "o", color=INK, markersize=5, linestyle="", label="ours")
    axes.annotate(f"{cell.value:.1f}", (cell.value, y), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    for value, marker, label in ((cell.paper, "D", "the paper's"), (cell.released, "s", "released weights")):
        if value is not None:
            axes.plot([value], [y], marker, color="#D55E00", markerfacecolor="none", linestyle="", label=label)


@rc_context(STYLE)
def object_scatter(panels: Sequence[tuple[str, str, str, Mapping[str, float], Mapping[str, float]]]) -> Figure | None:
    """Plot the score of each object by one system against that by another.

    Args:
        panels: (title, name of the system on the x axis, name on the y axis, x scores, y scores); scores map the same
            objects to J&F in points.
    """
    if not panels:
        return None
    rows, columns = math.ceil(len(panels) / 2), min(len(panels), 2)
    figure = Figure(figsize=(3.1 * columns + 0.2, 3.3 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for (title, across, up, x, y), axes in zip(panels, places, strict=False):
        first, second = (np.array([scores[name] for name in x.keys()]) for scores in (x, y))
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
        axes.plot(first, second, "o", color=INK, markersize=4, alpha=0.6, markeredgewidth=0)
        above, below = int((second > first).sum()), int((second < first).sum())
        axes.text(3, 97, f"{up} better: {above}", fontsize=8, bbox=box, ha="left", va="top")
        axes.text(97, 3, f"{across} better: {below}", fontsize=8, bbox=box, ha="right", va="bottom")
        axes.set(title=textwrap.fill(title, 40), xlabel=f"{across}, J&F", ylabel=f"{up}, J&F")
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    return figure


@rc_context(STYLE)
def region_over_time(
    frames: Sequence[str],
    present: Mapping[int, Sequence[bool]],
    groups: Mapping[str, Sequence[tuple[str, str | None, Mapping[tuple[int, str], float]]]],
) -> Figure | None:
    """Plot J over the frames of a sequence, objects down and groups of systems across.

    Args:
        frames: names in order.
        present: object -> whether the ground truth shows it, for each frame; other frames are shaded.
        groups: title -> (label, attention or None, (object, frame) -> J in 0..1).
    """
    groups = {title: systems for title, systems in groups.items() if systems}
    if not groups or not present:
        return None
    figure = Figure(figsize=(4.2 * len(groups) + 0.4, 1.9 * len(present) + 1.1), layout="constrained")
    panels = figure.subplots(len(present), len(groups), sharex=True, sharey=True, squeeze=False)
    for (object_id, shown), line in zip(present.items(), panels, strict=True):
        line[0].set_ylabel(f"object {object_id}: J")
        for systems, axes in zip(groups.values(), line, strict=True):
            for number, (first, last) in enumerate(gaps(shown)):
                label = None if number else "not in the frame"
                axes.axvspan(first - 0.5, last + 0.5, color="#cccccc", linewidth=0, label=label)
            looks = styles((label, attention) for label, attention, _ in systems)
            for label, _, scores in systems:
                colour, dash, marker = looks[label]
                known = [(i, scores[object_id, name]) for i, name in enumerate(frames) if (object_id, name) in scores]
                every = max(1, len(known) // 8)
                look = {"color": colour, "linestyle": dash, "marker": marker, "markevery": every}
                axes.plot(*zip(*known, strict=True), **look, markersize=3, linewidth=1.4, label=label)
            axes.set(ylim=(-0.03, 1.03), xlim=(-0.5, len(frames) - 0.5))
            axes.grid(axis="y", **GRID)
    # One legend for each column, which explains the shade in any of its panels.
    for title, column in zip(groups, panels.T, strict=True):
        column[0].set_title(textwrap.fill(title, 44))
        column[-1].set_xlabel("frame")
        named = {}
        for axes in column:
            named |= _legend(axes)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.3), "ncols": 2}
        column[-1].legend(named.values(), named, fontsize=7, **below)
    return figure


@dataclass(frozen=True)
class Cost:
    """A row: its score in points, frames per second, peak memory of segmenting in MiB."""

    label: str
    attention: str | None
    score: float
    fps: float
    memory: float


@rc_context(STYLE)
def accuracy_against_cost(costs: Sequence[Cost], metric: str, machine: str) -> Figure | None:
    """Plot scores (named `metric`) over speed and over memory on a machine, a numbered point for each row."""
    if not costs:
        return None
    looks = styles((cost.attention or cost.label, cost.attention) for cost in costs)
    figure = Figure(figsize=(9.6, max(3.2, 0.21 * len(costs) + 1.1)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, label in zip(panels, ("fps", "memory"), ("frames per second", "peak memory, MiB"), strict=True):
        for number, cost in enumerate(costs, 1):
            colour, _, marker = looks[cost.attention or cost.label]
            point, text = (getattr(cost, name), cost.score), f"{number}  {cost.label}"
            axes.plot(*point, marker, color=colour, markersize=6, linestyle="", label=text)
            axes.annotate(str(number), point, (5, 3), textcoords="offset points", fontsize=7)
        axes.set_xlabel(label)
        axes.margins(0.12)
        axes.grid(**GRID)
    panels[0].set_xscale("log")
    # Ticks at 1, 2 and 5, because speeds may not span a power of ten.
    panels[0].xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panels[0].xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    panels[0].xaxis.set_minor_formatter(ticker.NullFormatter())
    panels[0].set(ylabel=metric, ylim=(0, None))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.suptitle(f"measured on: {machine}", fontsize=8, color="#444444")
    return figure


def gaps(present: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the first and last index of every stretch of False."""
    edges = np.flatnonzero(np.diff([0, *(not shown for shown in present), 0]))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def _legend(axes) -> dict:
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))
