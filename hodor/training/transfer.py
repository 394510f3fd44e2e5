"""Clips on their way to the device."""

from collections.abc import Iterable, Iterator

import torch

from hodor.data.clip import Clip


def on_device(clips: Iterable[Clip], device: torch.device) -> Iterator[Clip]:
    """The clips on the device; on a GPU the next one is copied while the present one is computed with."""
    if device.type != "cuda":
        for clip in clips:
            yield clip.to(device)
        return
    stream = torch.cuda.Stream(device)
    waiting: tuple[Clip, torch.cuda.Event] | None = None
    for clip in clips:
        with torch.cuda.stream(stream):
            coming = (clip.to(device), stream.record_event())
        if waiting is not None:
            yield _ready(*waiting)
        waiting = coming
    if waiting is not None:
        yield _ready(*waiting)


def _ready(clip: Clip, copied: "torch.cuda.Event") -> Clip:
    """Makes what is computed next wait for the copy, which the processor does not."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for tensor in (clip.frames, clip.labels, clip.valid):
        tensor.record_stream(current)  # its memory is free for another copy when the step is done, not before
    return clip
