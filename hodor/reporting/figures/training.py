"""Figures of training: losses, and the learned alphas of soft masking."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from hodor.reporting.figures import GREY, GRID, STYLE, styles
from hodor.reporting.runs import Run

# Starting value of alpha -> colour, line style.
ALPHA_STYLE = {
    32: ("#0072B2", "-"),
    16: ("#009E73", (0, (5, 2))),
    8: ("#E69F00", (0, (4, 1.5, 1, 1.5))),
    4: ("#CC79A7", (0, (1, 1.2))),
}
_CHANGE = "alpha \N{MINUS SIGN} start value"


@rc_context(STYLE)
def training_curves(groups: Mapping[str, Sequence[tuple[str, str | None, Run]]]) -> Figure | None:
    """Plot loss over steps, a panel for each training set: thin the logged values, thick their running mean.

    Args:
        groups: title of the panel -> (label, attention or None, run).
    """
    groups = {title: [entry for entry in entries if entry[2].log] for title, entries in groups.items()}
    groups = {title: entries for title, entries in groups.items() if entries}
    if not groups:
        return None
    figure = Figure(figsize=(4.2 * len(groups) + 0.4, 3.1), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (title, entries) in zip(panels, groups.items(), strict=True):
        looks = styles((label, attention) for label, attention, _ in entries)
        shown = set()
        for label, _, run in entries:
            colour, line, _ = looks[label]
            steps = [record["step"] for record in run.log]
            losses = np.array([record["loss"] for record in run.log], float)
            axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.7)
            # The legend names a row once, whatever its number of seeds.
            name = None if label in shown else label
            axes.plot(steps, running_mean(losses), color=colour, linestyle=line, linewidth=1.6, label=name)
            shown.add(label)
        axes.set(title=textwrap.fill(title, 44), xlabel="step", ylabel="loss", xlim=(0, None), ylim=(0, None))
        axes.grid(axis="y", **GRID)
        axes.legend()
    return figure


@rc_context(STYLE)
def learned_alphas(label: str, run: Run) -> Figure | None:
    """Plot the change of each head's alpha from its start value, a panel for each layer.

    Alphas of a run that started from another row's weights are compared with the same start values. Returns None if the
    run logged no alphas.
    """
    steps, values, starts = _alphas(run)
    if not steps:
        return None
    layers = values.shape[1]
    figure = Figure(figsize=(2.5 * layers + 1.4, 2.7), layout="constrained")
    panels = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
    for layer, axes in enumerate(panels):
        for head, start in enumerate(starts):
            colour, line = ALPHA_STYLE[start]
            name = f"start {start}" if head == starts.index(start) else None
            moved = values[:, layer, head] - start
            axes.plot(steps, moved, color=colour, linestyle=line, linewidth=1.4, label=name)
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set(title=f"layer {layer + 1}", xlabel="step", xlim=(0, None))
    panels[0].set_ylabel(_CHANGE)
    figure.suptitle(label, fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False})
def alpha_grid(runs: Mapping[str, Run]) -> Figure | None:
    """Show learned alphas, layers down and heads across: the value, its change from the start, and the change as colour.

    Args:
        runs: label -> run, a panel for each run with alphas.
    """
    found = {label: _alphas(run) for label, run in runs.items()}
    grids = {label: (values[-1], np.array(starts)) for label, (_, values, starts) in found.items() if starts}
    if not grids:
        return None
    layers = [len(values) for values, _ in grids.values()]
    widest = max(values.shape[1] for values, _ in grids.values())
    reach = max(float(np.abs(values - starts).max()) for values, starts in grids.values()) or 1.0
    digits = min(max(1 - math.floor(math.log10(reach)), 1), 4)  # two significant digits of the widest change
    figure = Figure(figsize=(0.68 * widest + 1.9, 0.46 * sum(layers) + 0.85 * len(grids) + 0.2), layout="constrained")
    panels = figure.subplots(len(grids), 1, squeeze=False, height_ratios=layers)[:, 0]
    for axes, (label, (values, starts)) in zip(panels, grids.items(), strict=True):
        change = values - starts
        # Purple and orange differ for any colour vision.
        image = axes.imshow(change, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
        for (layer, head), moved in np.ndenumerate(change):
            text = f"{values[layer, head]:.{digits}f}\n{moved:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
            colour = "white" if abs(moved) > 0.7 * reach else "black"
            axes.text(head, layer, text, ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(starts)), [f"{head + 1}\n({start})" for head, start in enumerate(starts)])
        axes.set_yticks(range(len(values)), [f"layer {layer + 1}" for layer in range(len(values))])
        axes.tick_params(length=0)
        axes.set_title(label)
    panels[-1].set_xlabel("head (start value)")
    figure.colorbar(image, ax=list(panels), label=_CHANGE, shrink=0.9)
    return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over a window of a tenth of the series (centred, shorter at the ends), float (N,) like `values`."""
    half = len(values) // 20
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def _alphas(run: Run) -> tuple[list[int], np.ndarray, list[int]]:
    """Return logged steps, alphas (steps, layers, heads), and the start value of each head; empty if none were logged."""
    records = [record for record in run.log if record.get("alpha")]
    if not records:
        return [], np.empty((0, 0, 0)), []
    from hodor.attention import initial_alpha  # imports torch

    values = np.array([record["alpha"] for record in records], float)
    return [record["step"] for record in records], values, [int(start) for start in initial_alpha(values.shape[2])]
