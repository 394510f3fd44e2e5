"""Where each head of the encoder looks for one object."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hodor.reporting.figures.style import STYLE


@dataclass(frozen=True)
class Heads:
    """The attention of one layer from one object's descriptor.

    label: what was looked at, for the left margin. maps: float (heads, h, w), weights that sum to 1 over the pixels
    (less where padding was cut off). mask: float (h, w) in 0..1, the mask that the layer was given. reach: height and
    width in the frame's pixels that the maps cover, which may be a little more than the frame. alphas: one for each
    head, None without soft masking. inside: the share of each head's weight that lies where the mask is at least one
    half.
    """

    label: str
    maps: np.ndarray
    mask: np.ndarray
    reach: tuple[float, float]
    alphas: Sequence[float] | None
    inside: Sequence[float]


def attention_maps(frame: np.ndarray, object_id: int, layers: Sequence[Heads]) -> Figure | None:
    """A line for each of `layers`, a column for each head, each scaled to its own largest weight; the mask's outline.

    Args:
        frame: uint8 (H, W, 3) RGB.
        object_id: for the first column, which shows the frame.
        layers: see `Heads`; None is returned without any.
    """
    if not layers:
        return None
    heads = max(len(layer.maps) for layer in layers)
    height, width = frame.shape[:2]
    grey = frame.mean(axis=2)
    panel = 1.25
    size = (panel * (heads + 1) + 1.2, (panel * height / width + 0.34) * len(layers) + 0.3)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)
        for layer, line in zip(layers, figure.subplots(len(layers), heads + 1, squeeze=False), strict=True):
            extent = (0, layer.reach[1], layer.reach[0], 0)
            line[0].imshow(frame, extent=(0, width, height, 0), interpolation="none")
            line[0].set_title(f"object {object_id}", fontsize=7, pad=2)
            line[0].text(-0.06, 0.5, layer.label, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
            for head, axes in enumerate(line[1:]):
                if head >= len(layer.maps):
                    continue
                axes.imshow(grey, extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=255, interpolation="none")
                weights = layer.maps[head] / max(float(layer.maps[head].max()), 1e-12)
                # cividis: the same order for every kind of colour vision, and in print without colour.
                axes.imshow(weights, extent=extent, cmap="cividis", vmin=0, vmax=1, alpha=0.9, interpolation="none")
                alpha = f", \N{GREEK SMALL LETTER ALPHA} {layer.alphas[head]:.2f}" if layer.alphas else ""
                text = f"head {head + 1}{alpha}\n{100 * layer.inside[head]:.0f} % inside"
                axes.set_title(text, fontsize=7, pad=2)
            for axes in line:
                axes.set_axis_off()
                _outline(axes, layer)
                axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _outline(axes, layer: Heads) -> None:
    """Where the mask crosses one half, between the centres of its own grid."""
    if layer.mask.min() < 0.5 <= layer.mask.max():
        y, x = ((np.arange(n) + 0.5) * reach / n for n, reach in zip(layer.mask.shape, layer.reach, strict=True))
        axes.contour(x, y, layer.mask, levels=[0.5], colors=["#D55E00"], linewidths=0.9)
