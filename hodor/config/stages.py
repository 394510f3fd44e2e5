"""Settings of a training stage, the packs of training data that it reads, and settings of inference.

A pack is one split of one data set at one rule of sizes. Stages with the same rule share it.
"""

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from hodor.config.validation import Strict


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
    # That of soft masking's alpha is this multiple. Adam moves a parameter by at most about the sum of its learning rates:
    # a short schedule needs a factor to let alpha move as far as the published one does ([decision 9]).
    alpha_factor: float = Field(1.0, gt=0)
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


Rule = dict[str, int]
"""Greatest size of a stored image: {} (its own), {"pixels": n} or {"short_side": n}, the latter with "long_side"."""

# STCN's clips enlarge the crop by up to this factor (hodor.data.clips_static.SCALE).
STCN_ENLARGES = 1.5


class PackId(NamedTuple):
    """What a pack holds."""

    dataset: str
    split: str
    rule: Rule

    @property
    def name(self) -> str:
        """`coco-train2017-whole`, `coco-train2017-pixels300000`, `davis-train-short576-long1200`."""
        sizes = [f"{key.partition('_')[0]}{value}" for key, value in self.rule.items()]
        return "-".join([self.dataset, self.split, *(sizes or ["whole"])])


def packs(stage: StageOptions | None) -> tuple[PackId, ...]:
    """Return the packs that a stage reads, one for each of its sources; none where it reads plain data."""
    if stage is None or stage.packed is None:
        return ()
    rule = size_rule(stage)
    return tuple({id.name: id for id in (PackId(s.dataset, s.split, rule) for s in stage.sources)}.values())


def size_rule(stage: StageOptions) -> Rule:
    """Return the size rule of a packed stage."""
    margin = stage.packed.margin if stage.packed else None
    if margin is None or stage.kind == "static-affine":
        return {}
    if stage.kind == "static-stcn":
        return {"short_side": round(margin * STCN_ENLARGES * stage.crop)}
    if stage.pixels is not None:
        return {"pixels": round(margin**2 * stage.pixels)}
    rule = {"short_side": round(margin * stage.short_side)}
    if stage.long_side is not None:
        rule["long_side"] = round(margin * stage.long_side)
    return rule


def stored_size(size: tuple[int, int], rule: Rule) -> tuple[int, int]:
    """Return height and width at which an image of `size` is stored: never larger than it is."""
    scale = 1.0
    if "pixels" in rule:
        scale = min(scale, (rule["pixels"] / (size[0] * size[1])) ** 0.5)
    if "short_side" in rule:
        scale = min(scale, rule["short_side"] / min(size))
    if "long_side" in rule:
        # Both must hold, as in `clip_size`: the smaller scale wins.
        scale = min(scale, rule["long_side"] / max(size))
    return size if scale == 1.0 else (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
