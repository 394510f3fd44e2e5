"""Settings of inference (no torch here: the workflow reads them at every start)."""

from pydantic import BaseModel, ConfigDict, Field


class InferenceOptions(BaseModel):
    """How a video is segmented. Sizes in pixels, windows in frames (HODOR, section "Inference")."""

    model_config = ConfigDict(extra="forbid")

    short_side: int = Field(512, ge=32)
    long_side: int = Field(100_000, ge=32)
    # Descriptors of the last `temporal_window` frames are the history that a frame is decoded with.
    temporal_window: int = Field(7, ge=1)
    # The published window forgets the first frame after `temporal_window` frames; True keeps its descriptors.
    keep_first: bool = False
    # Frames whose features are computed together; memory grows with it, never with the video's length.
    feature_batch: int = Field(8, ge=1)
