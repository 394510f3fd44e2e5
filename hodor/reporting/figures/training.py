"""Figures of what training did: losses, and where soft masking's alphas went."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hodor.reporting.figures.style import GREY, STYLE, styles
from hodor.reporting.runs import Run

# Start value of alpha (a quarter of the heads each; HODOR, encoder) -> colour, line style.
ALPHA_STARTS = (32, 16, 8, 4)
ALPHA_STYLE = (
    ("#0072B2", "-"),
    ("#009E73", (0, (5, 2))),
    ("#E69F00", (0, (4, 1.5, 1, 1.5))),
    ("#CC79A7", (0, (1, 1.2))),
)


def training_curves(groups: Mapping[str, Sequence[tuple[str, str | None, Run]]]) -> Figure | None:
    """Loss over steps, a panel for each training set; None where nothing was trained.

    Args:
        groups: title of the panel -> (label, attention or None, run). Thin lines are the logged values, thick
            ones their running mean.
    """
    groups = {title: [entry for entry in entries if entry[2].log] for title, entries in groups.items()}
    groups = {title: entries for title, entries in groups.items() if entries}
    if not groups:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(groups) + 0.4, 3.1), layout="constrained")
        for axes, (title, entries) in zip(
            figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
        ):
            looks = styles((label, attention) for label, attention, _ in entries)
            shown = set()
            for label, _, run in entries:
                colour, line, _ = looks[label]
                steps = [record["step"] for record in run.log]
                losses = np.array([record["loss"] for record in run.log], float)
                axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.7)
                # Further seeds of a row look like the first, and are not named again.
                name = label if label not in shown else None
                axes.plot(steps, running_mean(losses), color=colour, linestyle=line, linewidth=1.6, label=name)
                shown.add(label)
            axes.set(
                title=textwrap.fill(title, 44),
                xlabel="step",
                ylabel="loss",
                xlim=(0, None),
                ylim=(0, None),
            )
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.legend()
    return figure


def learned_alphas(label: str, run: Run) -> Figure | None:
    """How each head's alpha moved away from its start value of 32, 16, 8 or 4: a panel for each layer.

    The first quarter of the heads starts at 32, the next at 16, then 8 and 4. Returns None where the run
    logged no alphas (no soft masking, or no training). A run that started from another row's weights began
    where that row ended; it too is drawn against 32, 16, 8, 4.
    """
    steps, values, starts = _alphas(run)
    if not steps:
        return None
    layers = values.shape[1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * layers + 1.4, 2.7), layout="constrained")
        panels = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
        for layer, axes in enumerate(panels):
            for head, start in enumerate(starts):
                colour, line = ALPHA_STYLE[ALPHA_STARTS.index(start)]
                axes.plot(
                    steps,
                    values[:, layer, head] - start,
                    color=colour,
                    linestyle=line,
                    linewidth=1.4,
                    label=f"start {start}" if head == starts.index(start) else None,
                )
            axes.axhline(0, color=GREY, linewidth=0.6)
            axes.set(title=f"layer {layer + 1}", xlabel="step", xlim=(0, None))
        panels[0].set_ylabel("alpha \N{MINUS SIGN} start value")
        figure.suptitle(label, fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def alpha_grid(runs: Mapping[str, Run]) -> Figure | None:
    """Learned alphas, layers down and heads across: the value, its change from the start, and the change as colour.

    Args:
        runs: label -> run, a panel each; those without alphas are left out. None where no run has any.
    """
    grids = {
        label: (values[-1], starts) for label, run in runs.items() for _, values, starts in [_alphas(run)] if starts
    }
    if not grids:
        return None
    widest = max(values.shape[1] for values, _ in grids.values())
    deepest = sum(values.shape[0] for values, _ in grids.values())
    reach = max(float(np.abs(values - starts).max()) for values, starts in grids.values()) or 1.0
    digits = min(max(1 - math.floor(math.log10(reach)), 1), 4)  # two that say something of the widest change
    with matplotlib.rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(0.68 * widest + 1.9, 0.46 * deepest + 0.85 * len(grids) + 0.2), layout="constrained")
        panels = figure.subplots(
            len(grids), 1, squeeze=False, height_ratios=[values.shape[0] for values, _ in grids.values()]
        )[:, 0]
        for axes, (label, (values, starts)) in zip(panels, grids.items(), strict=True):
            change = values - starts
            # Purple and orange are told apart by everybody, and the sign stands in each cell.
            image = axes.imshow(change, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
            for (layer, head), moved in np.ndenumerate(change):
                dark = abs(moved) > 0.7 * reach
                text = f"{values[layer, head]:.{digits}f}\n{_signed(moved, digits)}"
                axes.text(head, layer, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
            axes.set_xticks(range(len(starts)), [f"{head + 1}\n({start})" for head, start in enumerate(starts)])
            axes.set_yticks(range(len(values)), [f"layer {layer + 1}" for layer in range(len(values))])
            axes.tick_params(length=0)
            axes.set_title(label)
        panels[-1].set_xlabel("head (start value)")
        figure.colorbar(image, ax=list(panels), label="alpha \N{MINUS SIGN} start value", shrink=0.9)
    return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a tenth of the series (centred, shorter at the ends), float (N,) like `values`."""
    half = max(len(values) // 20, 0)
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def _alphas(run: Run) -> tuple[list[int], np.ndarray, list[int]]:
    """Logged steps, alphas (steps, layers, heads), and the start value of each head; empty where none were logged."""
    records = [record for record in run.log if record.get("alpha")]
    if not records:
        return [], np.empty((0, 0, 0)), []
    values = np.array([record["alpha"] for record in records], float)
    heads = values.shape[2]
    last = len(ALPHA_STARTS) - 1
    starts = [ALPHA_STARTS[min(head * len(ALPHA_STARTS) // heads, last)] for head in range(heads)]
    return [record["step"] for record in records], values, starts


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
