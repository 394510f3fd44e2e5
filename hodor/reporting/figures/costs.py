"""Accuracy against speed and memory: numbers of one machine, which differ from run to run."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context, ticker
from matplotlib.figure import Figure

from hodor.reporting.figures.style import GRID, STYLE, styles


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
    """Score over speed and over memory, a numbered point for each row.

    Args:
        costs: One for each row, in the order of the legend.
        metric: What the score is, for the axis.
        machine: Where it was measured.
    """
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
    # Plain numbers at 1, 2, 5: the speeds of one machine may not span a power of ten.
    panels[0].xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panels[0].xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    panels[0].xaxis.set_minor_formatter(ticker.NullFormatter())
    panels[0].set(ylabel=metric, ylim=(0, None))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.suptitle(f"measured on: {machine}", fontsize=8, color="#444444")
    return figure
