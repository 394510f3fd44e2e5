"""Attention weights of a trained HODOR: the encoder's cross-attention from one object's descriptor to the pixels.

The only part of the reports that needs torch, which is imported when it is asked for.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.reporting.figures.attention import Heads

_STRIDE = 8  # of the map that the encoder attends to


class TooSmall(HodorError):
    """The object is lost to the network before there is anything to show."""


def encoder_attention(weights: Path, inference: dict, video: Video, object_id: int) -> list[Heads]:
    """Where each encoder layer looks for an object in the second frame, under the mask that was predicted there.

    On the first frame the mask is given and binary; on the second it is the network's own and soft.

    Args:
        weights: model.safetensors of a row of method hodor.
        inference: the settings that the row segments with.
        video: at least two frames long; the object is given on the first.
        object_id: the object.

    Returns:
        One entry a layer, from the first to the last.

    Raises:
        HodorError: the weights are missing, broken or of another method.
        TooSmall: the object is too small to be followed.
    """
    import torch

    from hodor.config.inference import InferenceOptions
    from hodor.device import prepare_device
    from hodor.models.base import load_model
    from hodor.models.hodor.method import Hodor

    # One thread: floating-point sums depend on their number, and the pages must not.
    prepare_device("cpu", 1)
    _, method = load_model(weights, InferenceOptions(**inference))
    if not isinstance(method, Hodor):
        raise HodorError(f"{weights}: of method {type(method).__name__}, which has no object descriptors to look from")
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
    query = method.network.backgrounds + state.ids.index(object_id)
    geometry = state.geometry
    rows, columns = (side // _STRIDE for side in geometry.padded)
    # The padding below and to the right is cut off; a cell that is partly image stays.
    height, width = (-(-side // _STRIDE) for side in geometry.resized)
    scale = tuple(own / resized for own, resized in zip(geometry.original, geometry.resized, strict=True))
    found = []
    with torch.inference_mode():
        for number, layer in enumerate(layers):
            maps = layer.weights(*seen[number])[0, :, query].unflatten(-1, (rows, columns))  # (heads, rows, columns)
            mask = seen[number][2][0, query].unflatten(-1, (rows, columns))
            inside = (maps * (mask >= 0.5)).sum((1, 2))
            alphas = layer.alpha.tolist() if layer.mode == "soft" else None
            shown = Heads(
                label=f"layer {number + 1}",
                maps=maps[:, :height, :width].numpy(),
                mask=mask[:height, :width].numpy(),
                reach=(height * _STRIDE * scale[0], width * _STRIDE * scale[1]),
                alphas=alphas,
                inside=inside.tolist(),
            )
            found.append(shown)
    return found


def labelled(heads: Heads, label: str) -> Heads:
    """The same with another name."""
    return replace(heads, label=label)


def largest_object(video: Video) -> int | None:
    """The object with the largest mask on the first frame; None where that shows no object."""
    first = video.labels(video.frames[0])
    areas = {k: int(np.count_nonzero(first == k)) for k, frame in video.first_seen.items() if frame == video.frames[0]}
    return max(areas, key=lambda k: (areas[k], -k)) if areas else None
