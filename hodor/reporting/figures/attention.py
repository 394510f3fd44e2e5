"""Where each head of the encoder of a trained HODOR looks for one object: the weights of its cross-attention, drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.reporting.figures import STYLE

_STRIDE = 8  # of the map that the encoder attends to


class TooSmall(HodorError):
    """The network loses the object before there is anything to show."""


@dataclass(frozen=True)
class Heads:
    """The attention of one layer from one object's descriptor.

    Attributes:
        maps: float (heads, h, w), weights that sum to 1 over the pixels (less where padding was cut off).
        mask: float (h, w) in 0..1, the layer's input.
        reach: Height and width in the frame's pixels that the maps cover, which may be a little more than the frame.
        alphas: One for each head, None without soft masking.
        inside: The share of each head's weight where the mask is at least one half.
    """

    label: str
    maps: np.ndarray
    mask: np.ndarray
    reach: tuple[float, float]
    alphas: Sequence[float] | None
    inside: Sequence[float]


def encoder_attention(weights: Path, inference: dict, video: Video, object_id: int) -> list[Heads]:
    """Where each encoder layer looks for an object in the second frame, under the mask that was predicted there.

    On the first frame the mask is given and binary; on the second it is the network's own and soft.

    Args:
        weights: model.safetensors of a row of method hodor.
        inference: The settings that the row segments with.
        video: At least two frames long; the object is given on the first.
        object_id: The object.

    Raises:
        HodorError: The weights are missing, broken or of another method.
        TooSmall: The object is too small to be followed.
    """
    import torch  # the only part of the reports that needs it

    from hodor.config.stages import InferenceOptions
    from hodor.device import prepare_device
    from hodor.models.base import load_model
    from hodor.models.hodor.method import Hodor

    # One thread: floating-point sums depend on their number, and the pages must not.
    prepare_device("cpu", 1)
    _, method = load_model(weights, InferenceOptions(**inference))
    if not isinstance(method, Hodor):
        raise HodorError(f"{weights}: of method {type(method).__name__}, which has no object descriptors")
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
    small = f"{video.label_folder}: object {object_id} is too small to be followed by {weights}"
    try:
        state = method.start(video.frame(video.frames[0]), given[0])
    except HodorError as error:  # the masks are the video's own: nothing else is wrong with them
        raise TooSmall(small) from error
    method.step(state, video.frame(video.frames[1]), given[1] or None)
    for hook in hooks:
        hook.remove()
    if object_id not in state.ids:
        raise TooSmall(small)
    query, geometry = method.network.backgrounds + state.ids.index(object_id), state.geometry
    grid = tuple(side // _STRIDE for side in geometry.padded)
    # The padding below and to the right is cut off; a cell that is partly image stays.
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
    """A line for each of `layers`, a column for each head, each scaled to its own largest weight; the mask's outline.

    The first column shows the frame, uint8 (H, W, 3) RGB, and names the object.
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
            # cividis: the same order for every kind of colour vision, and in print without colour.
            look = {"cmap": "cividis", "vmin": 0, "vmax": 1, "alpha": 0.9, "interpolation": "none"}
            extent = (0, layer.reach[1], layer.reach[0], 0)
            axes.imshow(weights / max(float(weights.max()), 1e-12), extent=extent, **look)
            alpha = f", \N{GREEK SMALL LETTER ALPHA} {layer.alphas[head]:.2f}" if layer.alphas else ""
            axes.set_title(f"head {head + 1}{alpha}\n{100 * layer.inside[head]:.0f} % inside", fontsize=7, pad=2)
        for axes in line:
            axes.set_axis_off()
            if layer.mask.min() < 0.5 <= layer.mask.max():
                # Where the mask crosses one half, between the centres of its own grid.
                sides = zip(layer.mask.shape, layer.reach, strict=True)
                y, x = ((np.arange(n) + 0.5) * reach / n for n, reach in sides)
                axes.contour(x, y, layer.mask, levels=[0.5], colors=["#D55E00"], linewidths=0.9)
            axes.set(xlim=(0, width), ylim=(height, 0))
    return figure
