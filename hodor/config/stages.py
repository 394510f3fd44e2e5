"""Settings of a training stage (no torch here: the workflow reads them at every start)."""

from typing import Literal

from pydantic import Field, model_validator

from hodor.config.reading import Strict


class Source(Strict):
    """One data set split that a stage draws from, with its share of the samples."""

    dataset: str
    split: str
    # Video stages alone: images of all sources are one pool.
    share: float = Field(1.0, gt=0, le=1)
    # Image stages alone: how often an image is in the pool, and the most images of this source that are.
    repeat: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    # Greatest distance in frames between the annotated frame and another frame of the clip (video stages).
    max_distance: int = Field(6, ge=1)


class HideAndSeek(Strict):
    """Hide-and-Seek in training (KMN; baselines specification, section 2.7): grid cells show the mean colour instead.

    A cell is hidden with a probability that rises in a line from 0 to `probability` over the first `ramp` (a part) of
    the steps, independently of other cells and frames.
    """

    # Cells a side: 24 at a crop of 384 gives cells of 16 pixels, those of the stride-16 map.
    grid: int = Field(24, ge=1)
    probability: float = Field(0.5, ge=0, le=1)
    ramp: float = Field(0.5, ge=0, le=1)
    # Whether cells of the reference frame are hidden too.
    reference: bool = True
    # Labels in hidden cells.
    labels: Literal["background", "keep"] = "background"


class Packing(Strict):
    """Training data packed into few files of decoded pixels (`hodor.data.packing`).

    Without `margin` images keep their size, and clips are bit-identical to those of the plain data set. With it an image
    is stored at no more than `margin` times the size of its clip: fewer bytes, nearly the same clips.
    """

    # Factor on both sides; `static-affine` shows images up to their own size, which therefore stays.
    margin: float | None = Field(None, ge=1)


class StageOptions(Strict):
    """What one training stage does.

    `images`: pseudo-video clips from single images (HODOR, stage 1). `sparse-video`: clips from videos in which one
    frame is annotated, trained with cyclic consistency (stage 2). `dense-video`: clips from fully annotated videos
    (stage 2b, in no table of the paper). `static-affine`, `static-stcn`: square pseudo-video clips as STM and STCN
    make them.
    """

    kind: Literal["images", "sparse-video", "dense-video", "static-affine", "static-stcn"]
    sources: list[Source] = Field(min_length=1)
    steps: int = Field(ge=0)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=100)
    # The backbone's learning rate is this multiple of `learning_rate`; the release uses one group (1.0).
    backbone_factor: float = Field(1.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    warmup_start: float = Field(1e-7, ge=0, le=100)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    decay_steps: list[int] = []
    decay_factor: float = Field(0.1, gt=0, le=1)
    # adam: weight decay is part of the gradient (STM, KMN, STCN); adamw: apart from it (HODOR).
    optimiser: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float | None = Field(None, gt=0)

    # Clips. Areas and sides are in pixels of the original image; with `filter_pixels` they are those of an image of
    # that many pixels and scale with the image (subset and mini images are smaller than COCO's).
    filter_pixels: int | None = Field(None, ge=1024)
    frames: int = Field(3, ge=2)
    max_objects: int = Field(4, ge=1)
    min_area: float = Field(2000, ge=0)
    min_side: float = Field(20, ge=0)
    # Every image is scaled to about this many pixels (images) ...
    pixels: int | None = Field(None, ge=1024)
    # ... or to this short side, the long one capped (videos) ...
    short_side: int | None = Field(None, ge=32)
    long_side: int | None = Field(None, ge=32)
    # ... or clips are squares of this side, cut from larger images (static-affine, static-stcn). There `min_area` counts
    # pixels of the reference frame as cut, for the objects of data sets that tell instances apart.
    crop: int | None = Field(None, ge=32)
    hide_and_seek: HideAndSeek | None = None
    padding_multiple: int = Field(32, ge=8)
    annotated_frame: Literal["middle", "last"] = "middle"
    # Whether colours are changed at random; STM's published clips (static-affine) keep them.
    colour: bool = True
    # What the papers leave open; docs/decisions.md argues each default.
    # Annotations of groups of objects, and which of two overlapping objects covers the other (images).
    crowds: Literal["drop", "keep"] = "drop"
    overlap: Literal["file-order", "smaller-on-top"] = "file-order"
    # Interpolation of warped images, and the pixels where a warp shows no image: the mean colour or the image's edge.
    resampling: Literal["linear", "cubic"] = "linear"
    exposed: Literal["mean", "edge"] = "mean"

    # null: from the data set's own files.
    packed: Packing | None = None
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
        video = self.kind.endswith("video")
        if not video and any(source.share != 1 for source in self.sources):
            raise ValueError("`share` is for video stages: the images of all sources are one pool")
        if video and any(source.repeat != 1 or source.limit is not None for source in self.sources):
            raise ValueError("`repeat` and `limit` are for image stages: videos are drawn by `share`")
        if self.schedule == "step" and not self.decay_steps:
            raise ValueError("schedule `step` needs `decay_steps`")
        return self
