"""Attention maps: the weights of HODOR's encoder cross-attention for one object, head by head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.reporting.figures import STYLE

_STRIDE = 8  # of the encoder's feature map


class TooSmall(HodorError):
    """The network loses the object before the second frame."""


@dataclass(frozen=True)
class Heads:
    """Attention of one layer from one object's descriptor.

    Attributes:
        label: title of the layer.
        maps: float (heads, h, w), weights that sum to 1 over the padded map.
        mask: float (h, w) in 0..1, the layer's input.
        reach: height and width of the maps in pixels of the frame, which may slightly exceed the frame.
        alphas: alpha of each head; None without soft masking.
        inside: share of each head's weight inside the mask (at least one half).
    """

    label: str
    maps: np.ndarray
    mask: np.ndarray
    reach: tuple[float, float]
    alphas: Sequence[float] | None
    inside: Sequence[float]


def encoder_attention(weights: Path, inference: dict, video: Video, object_id: int) -> list[Heads]:
    """Compute the attention of each encoder layer for an object in the second frame, under its predicted soft mask.

    Args:
        weights: model.safetensors of a row of method hodor.
        inference: inference settings of the row.
        video: at least two frames; the object is given on the first.
        object_id: id of the object.

    Raises:
        HodorError: the weights are missing, broken or of another method.
        TooSmall: the object is too small to be tracked.
    """
    import torch  # here, because nothing else in the reports needs it

    from hodor.config.stages import InferenceOptions
    from hodor.device import prepare_device
    from hodor.models.base import load_model
    from hodor.models.hodor.method import Hodor

    # One thread, because the pages must not depend on the number of cores.
    prepare_device("cpu", 1)
    _, method = load_model(weights, InferenceOptions(**inference))
    if not isinstance(method, Hodor):
        raise HodorError(f"{weights}: method {type(method).__name__} has no object descriptors; use a row of hodor")
    layers = [layer.cross_attention for layer in method.network.encoder.layers]
    seen: dict[int, tuple] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, number=number: seen.__setitem__(number, inputs))
        for number, layer in enumerate(layers)
    ]
    given = [
        {k: video.labels(frame) == k for k, first in video.first_seen.items() if first == frame}
        for frame in video.frames[:2]
    ]
    small = f"{video.label_folder}: object {object_id} is too small to be tracked by {weights}"
    try:
        state = method.start(video.frame(video.frames[0]), given[0])
    except HodorError as error:  # masks of a checked data set have no other fault
        raise TooSmall(small) from error
    method.step(state, video.frame(video.frames[1]), given[1] or None)
    for hook in hooks:
        hook.remove()
    if object_id not in state.ids:
        raise TooSmall(small)
    query, geometry = method.network.backgrounds + state.ids.index(object_id), state.geometry
    grid = tuple(side // _STRIDE for side in geometry.padded)
    # Crop the padding below and to the right; a cell that is partly image stays.
    height, width = (-(-side // _STRIDE) for side in geometry.resized)
    scale = tuple(own / resized for own, resized in zip(geometry.original, geometry.resized, strict=True))
    found = []
    with torch.inference_mode():
        for number, layer in enumerate(layers):
            maps = layer.weights(*seen[number])[0, :, query].unflatten(-1, grid)  # (heads, h, w)
            mask = seen[number][2][0, query].unflatten(-1, grid)  # (h, w)
            shown = Heads(
                label=f"layer {number + 1}",
                maps=maps[:, :height, :width].numpy(),
                mask=mask[:height, :width].numpy(),
                reach=(height * _STRIDE * scale[0], width * _STRIDE * scale[1]),
                alphas=layer.alpha.tolist() if layer.mode == "soft" else None,
                inside=(maps * (mask >= 0.5)).sum((1, 2)).tolist(),
            )
            found.append(shown)
    return found


@rc_context(STYLE)
def attention_maps(frame: np.ndarray, object_id: int, layers: Sequence[Heads]) -> Figure | None:
    """Draw the attention of heads over a frame, with the outline of the mask.

    Each map is scaled by its greatest weight.

    Args:
        frame: uint8 (H, W, 3) RGB, shown in the first column.
        object_id: id of the object.
        layers: attention, a line of the figure each.
    """
    if not layers:
        return None
    heads = max(len(layer.maps) for layer in layers)
    height, width = frame.shape[:2]
    whole = {"extent": (0, width, height, 0), "interpolation": "none"}
    size = (1.25 * (heads + 1) + 1.2, (1.25 * height / width + 0.34) * len(layers) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)
    for layer, line in zip(layers, figure.subplots(len(layers), heads + 1, squeeze=False), strict=True):
        line[0].imshow(frame, **whole)
        line[0].set_title(f"object {object_id}", fontsize=7, pad=2)
        line[0].text(-0.06, 0.5, layer.label, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
        for head, (axes, weights) in enumerate(zip(line[1:], layer.maps, strict=False)):
            axes.imshow(frame.mean(axis=2), cmap="gray", vmin=0, vmax=255, **whole)
            # cividis keeps its order for every kind of colour vision and in grey.
            look = {"cmap": "cividis", "vmin": 0, "vmax": 1, "alpha": 0.9, "interpolation": "none"}
            extent = (0, layer.reach[1], layer.reach[0], 0)
            axes.imshow(weights / max(float(weights.max()), 1e-12), extent=extent, **look)
            alpha = f", \N{GREEK SMALL LETTER ALPHA} {layer.alphas[head]:.2f}" if layer.alphas else ""
            axes.set_title(f"head {head + 1}{alpha}\n{100 * layer.inside[head]:.0f} % inside", fontsize=7, pad=2)
        for axes in line:
            axes.set_axis_off()
            if layer.mask.min() < 0.5 <= layer.mask.max():
                sides = zip(layer.mask.shape, layer.reach, strict=True)
                y, x = ((np.arange(n) + 0.5) * reach / n for n, reach in sides)
                axes.contour(x, y, layer.mask, levels=[0.5], colors=["#D55E00"], linewidths=0.9)
            axes.set(xlim=(0, width), ylim=(height, 0))
    return figure
