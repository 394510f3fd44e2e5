"""Settings of training stages and of inference."""

from typing import Literal

from pydantic import Field, model_validator

from hodor.config.validation import Strict


class Source(Strict):
    """One split that a stage samples from."""

    dataset: str = Field(description="data set")
    split: str = Field(description="its split")
    share: float = Field(1.0, gt=0, le=1, description="video stages: fraction of the clips")
    repeat: int = Field(1, ge=1, description="image stages, whose sources form one pool: copies of each image")
    limit: int | None = Field(None, ge=1, description="image stages: maximum number of images; null: all")
    max_distance: int = Field(
        6,
        ge=1,
        description="video stages: maximum distance in frames of another frame of the clip from the annotated one",
    )


class HideAndSeek(Strict):
    """Hide-and-Seek (KMN; baselines specification, section 2.7): random grid cells show the mean colour.

    The probability of a cell rises linearly from 0 to `probability` over the first fraction `ramp` of the steps. Cells
    and frames are independent.
    """

    grid: int = Field(
        24,
        ge=1,
        description="cells per side; at a crop of 384, 24 gives cells of 16 pixels, those of the stride-16 map",
    )
    probability: float = Field(0.5, ge=0, le=1, description="greatest probability that a cell is hidden")
    ramp: float = Field(0.5, ge=0, le=1, description="fraction of the steps over which the probability rises from 0")
    reference: bool = Field(True, description="whether cells of the reference frame are hidden too")
    labels: Literal["background", "keep"] = Field("background", description="labels in hidden cells")


class StageOptions(Strict):
    """Settings of a training stage."""

    kind: Literal["images", "sparse-video", "dense-video", "static-affine", "static-stcn"] = Field(
        description="`images`: pseudo-video clips from single images (HODOR, stage 1); `sparse-video`: clips from "
        "videos with one annotated frame, trained with cyclic consistency (stage 2); `dense-video`: fully "
        "annotated videos; `static-affine`, `static-stcn`: the square clips of STM and STCN"
    )
    sources: list[Source] = Field(min_length=1, description="what the stage samples from")
    steps: int = Field(ge=0, description="optimiser steps")
    batch: int = Field(ge=1, description="clips in a step, over all workers")
    learning_rate: float = Field(gt=0, le=100, description="peak learning rate")
    backbone_factor: float = Field(
        1.0,
        ge=0,
        description="learning rate of the backbone as a multiple of `learning_rate`; the release has one group (1.0)",
    )
    alpha_factor: float = Field(
        1.0,
        gt=0,
        description="learning rate of alpha as a multiple of `learning_rate`; a short schedule needs more than 1 for "
        "alpha to move as far as in the published one (docs/decisions.md, 9)",
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises linearly")
    warmup_start: float = Field(1e-7, ge=0, le=100, description="learning rate from which it rises")
    schedule: Literal["constant", "step", "cosine"] = Field(
        "constant", description="course of the learning rate after the warm-up"
    )
    decay_steps: list[int] = Field(
        [], description="schedule `step`: steps at which the learning rate is multiplied by `decay_factor`"
    )
    decay_factor: float = Field(0.1, gt=0, le=1, description="schedule `step`: factor of each decay")
    optimiser: Literal["adamw", "adam"] = Field(
        "adamw",
        description="`adam`: weight decay is added to the gradient (STM, KMN, STCN); `adamw`: decoupled (HODOR)",
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay")
    gradient_clip: float | None = Field(None, gt=0, description="maximum norm of the gradient; null: not clipped")

    filter_pixels: int | None = Field(
        None,
        ge=1024,
        description="image area to which `min_area` and `min_side` refer, so that they scale with the image; "
        "null: they are in pixels of the original image",
    )
    frames: int = Field(3, ge=2, description="frames of a clip")
    max_objects: int = Field(4, ge=1, description="maximum number of objects of a clip")
    min_area: float = Field(
        2000, ge=0, description="smallest area of an object; with `crop` in pixels of the crop of the reference frame"
    )
    min_side: float = Field(20, ge=0, description="smallest side of an object's box")
    pixels: int | None = Field(
        None, ge=1024, description="area to which images are scaled; one of `pixels`, `short_side` and `crop` is needed"
    )
    short_side: int | None = Field(None, ge=32, description="short side to which frames are scaled")
    long_side: int | None = Field(None, ge=32, description="with `short_side`: maximum of the long side")
    crop: int | None = Field(None, ge=32, description="side of the square crops of static-affine and static-stcn")
    hide_and_seek: HideAndSeek | None = Field(None, description="static stages: hide random cells (KMN)")
    padding_multiple: int = Field(32, ge=8, description="clips are padded to a multiple of this")
    annotated_frame: Literal["middle", "last"] = Field(
        "middle", description="sparse-video: place of the annotated frame in the clip"
    )
    colour: bool = Field(True, description="colour jitter; STM's published clips (static-affine) have none")
    # Not specified by the papers; docs/decisions.md explains each default.
    crowds: Literal["drop", "keep"] = Field("drop", description="images: annotations of groups of objects")
    overlap: Literal["file-order", "smaller-on-top"] = Field(
        "file-order", description="images: order of overlapping objects"
    )
    resampling: Literal["linear", "cubic"] = Field("linear", description="interpolation of warped images")
    exposed: Literal["mean", "edge"] = Field(
        "mean", description="pixels outside the image: the mean colour or the image's edge"
    )

    workers: int = Field(1, ge=0, le=1024, description="processes that make clips")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between lines of the log")

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

    short_side: int = Field(512, ge=32, description="short side in pixels to which frames are scaled")
    long_side: int = Field(100_000, ge=32, description="maximum of the long side in pixels")
    temporal_window: int = Field(
        7, ge=1, description="HODOR: a frame is decoded with the descriptors of this number of last frames"
    )
    keep_first: bool = Field(
        False, description="HODOR: keep the descriptors of the first frame, which leave the published window"
    )
    feature_batch: int = Field(8, ge=1, description="frames whose features are computed together; memory grows with it")
    compile: bool = Field(
        False,
        description="compile HODOR's decoder (a CUDA graph on a GPU), which pays off from a few hundred frames of one "
        "size",
    )

    memory_every: int = Field(5, ge=1, description="memory methods (STM, KMN, STCN): every n-th frame is stored")
    memory_frames: int | None = Field(
        None,
        ge=2,
        description="maximum number of stored frames; the oldest is dropped first, but none on which an object first "
        "appears; null: no maximum",
    )
    readout_chunk: int = Field(
        256,
        ge=1,
        description="maximum number of cells compared with the memory at a time; changes results by rounding only",
    )
    memory_previous: bool | None = Field(
        None, description="whether the previous frame is always in the memory; null: as the method's options"
    )
    top_k: int | None = Field(None, ge=0, description="as the method's option; null: its value")
    kernel_sigma: float | None = Field(None, gt=0, description="as the method's option; null: its value")
    others_channel: Literal["none", "zeros", "orthogonal"] = Field(
        "none",
        description="initial filters of a channel for the other objects' masks, which STCN's static training lacks "
        "(baselines specification, section 3.4); none: no such channel",
    )
