"""Settings of a memory network (no torch here: the workflow reads them at every start).

STM, KMN and STCN are one network under different settings (baselines specification, section 6); each gives its own
defaults in its package.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LossOptions(BaseModel):
    """What a training step averages over (baselines specification, sections 1.2 and 3.2)."""

    model_config = ConfigDict(extra="forbid")

    # bootstrapped: from step `bootstrap_start` on, the mean over the hardest pixels, whose part falls in a line to
    # `bootstrap_part` at step `bootstrap_end`.
    loss: Literal["cross-entropy", "bootstrapped"] = "cross-entropy"
    bootstrap_start: int = Field(20_000, ge=0)
    bootstrap_end: int = Field(70_000, ge=1)
    bootstrap_part: float = Field(0.15, gt=0, le=1)

    @model_validator(mode="after")
    def _falls(self) -> "LossOptions":
        if self.bootstrap_end <= self.bootstrap_start:
            raise ValueError("`bootstrap_end` must come after `bootstrap_start`")
        return self


class EncoderOptions(BaseModel):
    """The network that encodes frames."""

    model_config = ConfigDict(extra="forbid")

    backbone: Literal["resnet", "convnet", "efficientnet-lite0"] = "resnet"
    # Width of the first stage; the EfficientNet has fixed widths and ignores it, its depths and `stride`.
    backbone_width: int = Field(64, ge=8, multiple_of=8)
    backbone_depths: tuple[int, int, int] = (3, 4, 6)
    # Stride of the finest map; the coarsest is four times coarser. 2 is for small frames (convnet).
    stride: Literal[2, 4] = 4
    # ImageNet weights of the EfficientNet; so many first blocks of the frames' encoder then keep them.
    pretrained: bool = False
    backbone_frozen: int = Field(0, ge=0)
    # The weight set that training starts from (`resnet-imagenet`: all encoders that are residual), or None.
    weights: str | None = None

    @property
    def backbones(self) -> set[str]:
        """Kinds of all encoders."""
        return {self.backbone}

    @model_validator(mode="after")
    def _fits(self) -> "EncoderOptions":
        if self.stride == 2 and self.backbones != {"convnet"}:
            raise ValueError("`stride` 2 is for the convnet alone, in every encoder")
        if (self.pretrained or self.backbone_frozen) and "efficientnet-lite0" not in self.backbones:
            raise ValueError("`pretrained` and `backbone_frozen` are for efficientnet-lite0; a resnet takes `weights`")
        if self.backbone_frozen and self.backbone != "efficientnet-lite0":
            raise ValueError("`backbone_frozen` is for frames encoded by an efficientnet-lite0")
        if self.weights is not None and "resnet" not in self.backbones:
            raise ValueError("`weights` are for a resnet: no backbone is one")
        return self


class MemoryOptions(EncoderOptions, LossOptions):
    """One memory network; the defaults are STM's published size (baselines specification, section 1.1)."""

    # separate: an encoder with keys of its own reads frame and mask, so there are keys for each object (STM). fused: a
    # light encoder reads frame and mask and is fused with the frame's features; all objects share the frame's keys.
    memory_encoder: Literal["separate", "fused"] = "separate"
    # Not published, for small networks that start at random (memory_encoder: separate): frames with and without masks go
    # through one backbone and one key head, which read a query's mask channels as 0, and the heads read maps normalised
    # over the image. Keys then agree from the start, which two encoders learn in hundreds of thousands of steps.
    one_encoder: bool = False
    # Whether the memory encoder sees the masks of the other objects in a channel of its own.
    others: bool = True
    key_dim: int = Field(128, ge=1)
    value_dim: int = Field(512, ge=1)
    # dot: scaled dot product; l2: negative squared distance, scaled.
    similarity: Literal["dot", "l2"] = "dot"
    # stm: skips through a residual block, two logits; stcn: skips through a convolution, one logit.
    decoder: Literal["stm", "stcn"] = "stm"
    decoder_dim: int = Field(256, ge=1)

    # Readout of a video, never of training: the `top_k` largest similarities alone, or (0) all; weights times a
    # Gaussian of `kernel_sigma` cells around the best match of each memory cell, or (None) as they are.
    top_k: int = Field(0, ge=0)
    kernel_sigma: float | None = Field(None, gt=0)
    # Whether the previous frame is always in the memory.
    memory_previous: bool = True

    # The memory encoder's: bottleneck blocks where it is separate, basic blocks where it is fused.
    memory_backbone: Literal["same", "resnet", "convnet", "efficientnet-lite0"] = "same"
    memory_width: int = Field(64, ge=8, multiple_of=8)
    memory_depths: tuple[int, int, int] = (3, 4, 6)

    @model_validator(mode="after")
    def _one_encoder_fits(self) -> "MemoryOptions":
        if self.one_encoder and (self.memory_encoder != "separate" or "resnet" in self.backbones):
            raise ValueError("`one_encoder` is for `memory_encoder: separate` without a resnet")
        if self.one_encoder and (self.backbone_frozen or len(self.backbones) > 1):
            raise ValueError("`one_encoder` has no frozen blocks and one kind of backbone")
        return self

    @property
    def backbones(self) -> set[str]:
        """Kinds of all encoders."""
        return {self.backbone, self.memory_kind}

    @property
    def memory_kind(self) -> str:
        """The backbone of the memory encoder."""
        return self.backbone if self.memory_backbone == "same" else self.memory_backbone
