"""Figures of the reports: training curves, learned alphas, strips of frames with masks.

Each function returns a matplotlib Figure and touches no global state; `figure_bytes` turns one into the same
bytes each time. Colours are those of Okabe and Ito, which people with any common colour blindness can tell
apart, and no line is told from another by colour alone; masks carry the DAVIS palette, as everywhere in the
field.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hodor.data.images import DAVIS_PALETTE, VOID, read_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.reporting.runs import Run

# Attention -> colour, line style.
ATTENTION_STYLE = {
    "none": ("#D55E00", (0, (1, 1.2))),
    "hard": ("#009E73", (0, (5, 2))),
    "soft": ("#0072B2", "-"),
}
# Methods without such attention, in the order in which a panel shows them.
OTHER_STYLES = (
    ("#555555", (0, (8, 2))),
    ("#CC79A7", (0, (4, 1.5, 1, 1.5))),
    ("#E69F00", (0, (3, 3))),
    ("#56B4E9", (0, (4, 1.5, 1, 1.5, 1, 1.5))),
    ("#000000", (0, (1, 3))),
)
# Start value of alpha (a quarter of the heads each; HODOR, encoder) -> colour, line style.
ALPHA_STARTS = (32, 16, 8, 4)
ALPHA_STYLE = (
    ("#0072B2", "-"),
    ("#009E73", (0, (5, 2))),
    ("#E69F00", (0, (4, 1.5, 1, 1.5))),
    ("#CC79A7", (0, (1, 1.2))),
)

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "hodor",
    "svg.fonttype": "path",
}
_STRIP_PIXELS = 300  # width of one frame in a strip
_DPI = 150


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
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(groups) + 0.4, 3.1), layout="constrained")
        for axes, (title, entries) in zip(
            figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
        ):
            others = list(dict.fromkeys(label for label, attention, _ in entries if attention not in ATTENTION_STYLE))
            for label, attention, run in entries:
                if attention in ATTENTION_STYLE:
                    colour, line = ATTENTION_STYLE[attention]
                else:
                    colour, line = OTHER_STYLES[others.index(label) % len(OTHER_STYLES)]
                steps = [record["step"] for record in run.log]
                losses = np.array([record["loss"] for record in run.log], float)
                axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.7)
                axes.plot(steps, running_mean(losses), color=colour, linestyle=line, linewidth=1.6, label=label)
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
    records = [record for record in run.log if record.get("alpha")]
    if not records:
        return None
    steps = [record["step"] for record in records]
    values = np.array([record["alpha"] for record in records], float)  # (logged steps, layers, heads)
    layers, heads = values.shape[1:]
    starts = [min(head * len(ALPHA_STARTS) // heads, len(ALPHA_STARTS) - 1) for head in range(heads)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.5 * layers + 1.4, 2.7), layout="constrained")
        panels = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
        for layer, axes in enumerate(panels):
            for head, quarter in enumerate(starts):
                colour, line = ALPHA_STYLE[quarter]
                first = head == starts.index(quarter)
                axes.plot(
                    steps,
                    values[:, layer, head] - ALPHA_STARTS[quarter],
                    color=colour,
                    linestyle=line,
                    linewidth=1.4,
                    label=f"start {ALPHA_STARTS[quarter]}" if first else None,
                )
            axes.axhline(0, color="#888888", linewidth=0.6)
            axes.set(title=f"layer {layer + 1}", xlabel="step", xlim=(0, None))
        panels[0].set_ylabel("alpha \N{MINUS SIGN} start value")
        figure.suptitle(label, fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def mask_strip(video: Video, systems: Mapping[str, Path], scores: Mapping[str, float], columns: int = 5) -> Figure:
    """Frames across, systems down, masks over the frames: the ground truth first.

    Args:
        video: a sequence with all its true masks.
        systems: label -> folder that holds the system's <frame>.png of this sequence.
        scores: label -> J&F in points on this sequence.
        columns: number of frames, evenly spread from the first to the last.

    Raises:
        HodorError: a frame or a mask cannot be read.
    """
    columns = min(columns, len(video.frames))
    chosen = [video.frames[i] for i in np.linspace(0, len(video.frames) - 1, columns).round().astype(int)]
    rows = {"ground truth": video.label_folder} | dict(systems)
    height = 2.0 * video.height / video.width
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.0 * columns + 1.5, (height + 0.06) * len(rows) + 0.25))
        left, top = 1.5 / figure.get_figwidth(), 1 - 0.25 / figure.get_figheight()
        panels = figure.subplots(len(rows), columns, squeeze=False)
        figure.subplots_adjust(left=left, right=0.998, top=top, bottom=0.002, wspace=0.02, hspace=0.03)
        for (label, folder), line in zip(rows.items(), panels, strict=True):
            for frame, axes in zip(chosen, line, strict=True):
                labels = read_labels(folder / f"{frame}.png", size=(video.height, video.width))
                axes.imshow(_small(overlay(video.frame(frame), labels)), interpolation="none", aspect="auto")
                axes.set_axis_off()
            text = _wrapped(label) + (f"\nJ&F {scores[label]:.1f}" if label in scores else "")
            line[0].text(-0.04, 0.5, text, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
        for frame, axes in zip(chosen, panels[0], strict=True):
            axes.set_title(f"frame {int(frame)}", fontsize=8, pad=3)
    return figure


def overlay(frame: np.ndarray, labels: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """A frame with its masks in the DAVIS palette and their outlines.

    Args:
        frame: uint8 (H, W, 3) RGB.
        labels: uint8 (H, W); 0 and void (255) stay as they are.
        opacity: of the masks, 0..1; outlines are opaque.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    if frame.shape[:2] != labels.shape:
        raise HodorError(f"a frame of {frame.shape[:2]} and a mask of {labels.shape} do not fit")
    labels = np.where(labels == VOID, 0, labels).astype(np.uint8)
    colours = DAVIS_PALETTE[labels]
    mixed = (frame * (1 - opacity) + colours * opacity).round().astype(np.uint8)
    result = np.where((labels > 0)[..., None], mixed, frame)
    # An outline is where a pixel's neighbourhood holds another label; as wide as the strip's reduction can
    # show.
    kernel = np.ones((3, 3), np.uint8) if labels.shape[1] <= 2 * _STRIP_PIXELS else np.ones((5, 5), np.uint8)
    edge = (cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)) & (labels > 0)
    result[edge] = colours[edge]
    return result


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a tenth of the series (centred, shorter at the ends), float (N,) like `values`."""
    half = max(len(values) // 20, 0)
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def figure_bytes(figure: Figure, format: str) -> bytes:
    """The figure as a file; the same figure gives the same bytes, on any day and in any process.

    Args:
        format: "svg", "png" or "jpeg" (for photographs: a tenth of the size).
    """
    # What a writer would add by itself: date, program, version.
    fixed = {
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"metadata": {"Software": None}},
        "jpeg": {"pil_kwargs": {"quality": 88, "subsampling": 0}},
    }[format]
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=format, dpi=_DPI, **fixed)
    return buffer.getvalue()


def _small(image: np.ndarray) -> np.ndarray:
    if image.shape[1] <= _STRIP_PIXELS:
        return image
    size = (_STRIP_PIXELS, round(image.shape[0] * _STRIP_PIXELS / image.shape[1]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _wrapped(label: str) -> str:
    return label.replace(", ", ",\n")
