"""Settings of inference."""

from typing import Literal

from pydantic import Field

from hodor.config.reading import Strict


class InferenceOptions(Strict):
    """How a video is segmented. Sizes in pixels, windows in frames (HODOR, section "Inference")."""

    short_side: int = Field(512, ge=32)
    long_side: int = Field(100_000, ge=32)
    # Descriptors of the last `temporal_window` frames are the history that a frame is decoded with.
    temporal_window: int = Field(7, ge=1)
    # The published window forgets the first frame after `temporal_window` frames; True keeps its descriptors.
    keep_first: bool = False
    # Frames whose features are computed together; memory grows with it, never with the video's length.
    feature_batch: int = Field(8, ge=1)
    # HODOR decodes with compiled code (a CUDA graph on a GPU): worth it from a few hundred frames of one size on.
    compile: bool = False

    # Memory methods (STM, KMN, STCN). One frame in `memory_every` is remembered.
    memory_every: int = Field(5, ge=1)
    # Number of remembered frames, at most; the oldest is forgotten first, frames on which an object appears never.
    memory_frames: int | None = Field(None, ge=2)
    # Cells of a frame that are compared with the memory at a time, at most: memory use grows with it, results change by
    # rounding only.
    readout_chunk: int = Field(256, ge=1)
    # None: as the method's own options of the same names say.
    memory_previous: bool | None = None
    top_k: int | None = Field(None, ge=0)
    kernel_sigma: float | None = Field(None, gt=0)
    # Filters for a channel of other objects' masks that training never had, in a memory encoder that lacks it (STCN
    # from static images; baselines specification, section 3.4). none: no such channel.
    others_channel: Literal["none", "zeros", "orthogonal"] = "none"
