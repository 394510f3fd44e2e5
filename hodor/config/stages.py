"""Settings of training stages and of inference."""

from typing import Literal

from pydantic import Field, model_validator

from hodor.config.validation import Strict


class Source(Strict):
    """One split that a stage samples from."""

    dataset: str
    split: str
    # Video stages: fraction of the clips.
    share: float = Field(1.0, gt=0, le=1)
    # Image stages, whose sources form one pool: copies of each image in the pool, and maximum number of images.
    repeat: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    # Video stages: maximum distance in frames of another frame of the clip from the annotated one.
    max_distance: int = Field(6, ge=1)


class HideAndSeek(Strict):
    """Hide-and-Seek (KMN; baselines specification, section 2.7): random grid cells show the mean colour.

    The probability of a cell rises linearly from 0 to `probability` over the first fraction `ramp` of the steps. Cells
    and frames are independent.
    """

    # Cells per side: at a crop of 384, 24 gives cells of 16 pixels, those of the stride-16 map.
    grid: int = Field(24, ge=1)
    probability: float = Field(0.5, ge=0, le=1)
    ramp: float = Field(0.5, ge=0, le=1)
    # Whether cells of the reference frame are hidden too.
    reference: bool = True
    # Labels in hidden cells.
    labels: Literal["background", "keep"] = "background"


class StageOptions(Strict):
    """Settings of a training stage.

    `kind` is one of: `images`, pseudo-video clips from single images (HODOR, stage 1); `sparse-video`, clips from videos
    with one annotated frame, trained with cyclic consistency (stage 2); `dense-video`, clips from fully annotated videos
    (stage 2b, in no table of the paper); `static-affine` and `static-stcn`, the square pseudo-video clips of STM and STCN.
    """

    kind: Literal["images", "sparse-video", "dense-video", "static-affine", "static-stcn"]
    sources: list[Source] = Field(min_length=1)
    steps: int = Field(ge=0)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=100)
    # Learning rate of the backbone as a multiple of `learning_rate`; the release has one group (1.0).
    backbone_factor: float = Field(1.0, ge=0)
    # Same for soft masking's alpha. Adam moves a parameter by at most about the sum of its learning rates, so that a short
    # schedule needs a factor for alpha to move as far as in the published one (docs/decisions.md, 9).
    alpha_factor: float = Field(1.0, gt=0)
    warmup_steps: int = Field(0, ge=0)
    warmup_start: float = Field(1e-7, ge=0, le=100)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    decay_steps: list[int] = []
    decay_factor: float = Field(0.1, gt=0, le=1)
    # adam: weight decay is added to the gradient (STM, KMN, STCN); adamw: decoupled (HODOR).
    optimiser: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float | None = Field(None, gt=0)

    # Clips. `min_area` and `min_side` are in pixels of the original image; with `filter_pixels` they are for an image of
    # that area and scale with the image (images of subset and mini are smaller than COCO's).
    filter_pixels: int | None = Field(None, ge=1024)
    frames: int = Field(3, ge=2)
    max_objects: int = Field(4, ge=1)
    min_area: float = Field(2000, ge=0)
    min_side: float = Field(20, ge=0)
    # Images are scaled to about this area (images) ...
    pixels: int | None = Field(None, ge=1024)
    # ... or to this short side, with a maximum of the long side (videos) ...
    short_side: int | None = Field(None, ge=32)
    long_side: int | None = Field(None, ge=32)
    # ... or clips are square crops of this side (static-affine, static-stcn). `min_area` then counts pixels in the crop of
    # the reference frame, for data sets that distinguish instances.
    crop: int | None = Field(None, ge=32)
    hide_and_seek: HideAndSeek | None = None
    padding_multiple: int = Field(32, ge=8)
    annotated_frame: Literal["middle", "last"] = "middle"
    # Colour jitter; STM's published clips (static-affine) have none.
    colour: bool = True
    # Not specified by the papers; docs/decisions.md explains each default.
    # Annotations of groups of objects, and the order of overlapping objects (images).
    crowds: Literal["drop", "keep"] = "drop"
    overlap: Literal["file-order", "smaller-on-top"] = "file-order"
    # Interpolation of warped images, and the pixels outside the image: the mean colour or the image's edge.
    resampling: Literal["linear", "cubic"] = "linear"
    exposed: Literal["mean", "edge"] = "mean"

    workers: int = Field(1, ge=0, le=1024)
    checkpoint_every: int = Field(200, ge=1)
    log_every: int = Field(20, ge=1)

    @model_validator(mode="after")
    def _one_size_rule(self) -> "StageOptions":
        if self.kind.startswith("static"):
            if self.crop is None or any((self.pixels, self.short_side, self.long_side)):
                raise ValueError("a static stage needs `crop` and none of `pixels`, `short_side`, `long_side`")
            if self.crop % self.padding_multiple:
                raise ValueError(f"`crop` must be a multiple of `padding_multiple`, {self.padding_multiple}")
        elif self.crop is not None or self.hide_and_seek is not None:
            raise ValueError("`crop` and `hide_and_seek` are for the kinds static-affine and static-stcn")
        elif (self.pixels is None) == (self.short_side is None):
            raise ValueError("set exactly one of `pixels` and `short_side`")
        if not self.kind.startswith("static") and self.frames != 3:
            raise ValueError(f"kind {self.kind} needs `frames: 3`, which HODOR's cycles visit")
        video = self.kind.endswith("video")
        if not video and any(source.share != 1 for source in self.sources):
            raise ValueError("`share` is for video stages; an image stage has `repeat` and `limit`")
        if video and any(source.repeat != 1 or source.limit is not None for source in self.sources):
            raise ValueError("`repeat` and `limit` are for image stages; a video stage has `share`")
        if self.schedule == "step" and not self.decay_steps:
            raise ValueError("schedule `step` needs `decay_steps`")
        return self


class InferenceOptions(Strict):
    """Settings of segmentation. Sizes in pixels, windows in frames (HODOR, section "Inference")."""

    short_side: int = Field(512, ge=32)
    long_side: int = Field(100_000, ge=32)
    # A frame is decoded with the descriptors of the last `temporal_window` frames.
    temporal_window: int = Field(7, ge=1)
    # Keep the descriptors of the first frame, which leave the published window after `temporal_window` frames.
    keep_first: bool = False
    # Frames whose features are computed together; memory grows with it, not with the length of the video.
    feature_batch: int = Field(8, ge=1)
    # Compile HODOR's decoder (a CUDA graph on a GPU), which pays off from a few hundred frames of one size.
    compile: bool = False

    # Memory methods (STM, KMN, STCN). Every `memory_every`th frame is stored.
    memory_every: int = Field(5, ge=1)
    # Maximum number of stored frames; the oldest is dropped first, but never one on which an object first appears.
    memory_frames: int | None = Field(None, ge=2)
    # Maximum number of cells of a frame that are compared with the memory at a time; it changes results by rounding only.
    readout_chunk: int = Field(256, ge=1)
    # null: those of the method's options.
    memory_previous: bool | None = None
    top_k: int | None = Field(None, ge=0)
    kernel_sigma: float | None = Field(None, gt=0)
    # Initial filters of a channel for the other objects' masks, which STCN's static training lacks (baselines
    # specification, section 3.4). none: no such channel.
    others_channel: Literal["none", "zeros", "orthogonal"] = "none"
