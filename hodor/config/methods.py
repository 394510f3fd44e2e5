"""Options of every method, and the registries of methods and attention variants.

A new method is a module of `hodor.models` that registers a class, and an entry of `METHODS`; a new attention variant is a
module and an entry of `ATTENTION`.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, field_validator, model_validator

from hodor.config.validation import Strict, none_of

# Options are read from model files too; their upper limits keep a damaged file from building a huge network.
Depth = Annotated[int, Field(ge=1, le=64)]
"""Number of consecutive blocks or layers."""

GridSide = Annotated[int, Field(ge=1, le=32)]

ATTENTION: dict[str, str | None] = {
    "none": None,
    "hard": None,
    "soft": None,
}
"""Value of HODOR's option `attention` -> the module whose `build(options)` returns the layer.

None: a mode of `hodor.attention.SoftMaskedAttention`, the variants of the paper's table 1. A module's layer maps query
(B, Q, C), pixels (B, N, C) and mask (B, Q, N) in [0, 1] to (B, Q, C).
"""


class HODOROptions(Strict):
    """Options of HODOR; the defaults are the published network (specification sections 1 to 5)."""

    attention: str = Field("soft", description="a key of ATTENTION")
    backbone: Literal["swin", "convnet", "efficientnet-lite0"] = "swin"
    # Width of the first backbone stage (Swin-T: 96), ignored by the EfficientNet.
    backbone_width: int = Field(96, ge=8, multiple_of=8, le=1024)
    backbone_depths: tuple[Depth, Depth, Depth, Depth] = (2, 2, 6, 2)
    drop_path: float = Field(0.2, ge=0, lt=1)
    pretrained: bool = False
    # Weight set (hodor/config/datasets.py) that training starts from, unless it starts from another row. The published
    # training starts from a COCO detector; one from ImageNet is a different experiment.
    weights: Literal["swin-tiny-mask-rcnn-3x", "swin-tiny-imagenet"] | None = None
    # Number of first blocks of a pretrained backbone that are frozen, which saves most of its backward pass.
    backbone_frozen: int = Field(0, ge=0)
    # Divided by 4 and into group norms of 16 and 8 groups.
    dim: int = Field(256, multiple_of=32, gt=0, le=2048)
    heads: int = Field(8, ge=1, le=256)
    encoder_layers: int = Field(5, ge=1, le=64)
    encoder_hidden: int = Field(1024, ge=16, le=8192)
    decoder_layers: int = Field(5, ge=1, le=64)
    decoder_hidden: int = Field(256, ge=16, le=8192)
    background_grid: tuple[GridSide, GridSide] = (3, 3)
    dropout: float = Field(0.1, ge=0, lt=1)
    # True: predicted masks are detached before they are encoded again, as in the released configs; False: the gradient
    # flows through the soft mask, as the poster says. It makes a difference for soft masking only.
    detach_masks: bool = False

    # Not specified by the papers; docs/decisions.md explains each default.
    # Hard masking blocks pixels below the threshold. If none is left, a mask attends to all pixels or to those of its peak.
    mask_threshold: float = Field(0.5, gt=0, le=1)
    empty_mask: Literal["all", "peak"] = "all"
    # False: the background descriptors attend to all pixels.
    mask_backgrounds: bool = True
    # Descriptors start as the mean feature under their mask, or (False) of the whole frame.
    masked_initialisation: bool = True
    # True: (logits + alpha * mask) / sqrt(C / heads), as printed; False: alpha * mask after the division, as released.
    alpha_inside_scale: bool = False
    # Whether weight decay applies to alpha, as released.
    decay_alpha: bool = True
    # Replace every learned alpha by 0, to measure its effect. For rows without training.
    zero_alpha: bool = False

    @field_validator("attention")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ATTENTION:
            raise ValueError(none_of(value, list(ATTENTION)))
        return value

    @model_validator(mode="after")
    def _fits(self) -> "HODOROptions":
        if self.weights and self.backbone != "swin":
            raise ValueError(f"`weights` {self.weights} are for backbone swin, not {self.backbone}")
        if self.zero_alpha and self.attention != "soft":
            raise ValueError(f"`zero_alpha` is for soft masking; {self.attention} masking has no alpha")
        if self.dim % self.heads:
            raise ValueError(f"`heads` {self.heads} must divide `dim` {self.dim}")
        if self.attention == "soft" and self.heads % 4:
            raise ValueError(
                f"`heads` {self.heads} must be a multiple of 4: the starting alphas 32, 16, 8, 4 share them"
            )
        return self


class LossOptions(Strict):
    """Loss of a training step (baselines specification, sections 1.2 and 3.2)."""

    # bootstrapped: from step `bootstrap_start` on, the mean over the hardest pixels only. Their fraction falls linearly
    # from 1 to `bootstrap_part` at step `bootstrap_end`.
    loss: Literal["cross-entropy", "bootstrapped"] = "cross-entropy"
    bootstrap_start: int = Field(20_000, ge=0)
    bootstrap_end: int = Field(70_000, ge=1)
    bootstrap_part: float = Field(0.15, gt=0, le=1)

    @model_validator(mode="after")
    def _falls(self) -> "LossOptions":
        if self.bootstrap_end <= self.bootstrap_start:
            raise ValueError("`bootstrap_end` must come after `bootstrap_start`")
        return self


class EncoderOptions(Strict):
    """Options of the network that encodes frames."""

    backbone: Literal["resnet", "convnet", "efficientnet-lite0"] = "resnet"
    # Width of the first stage; the EfficientNet ignores it, the depths and `stride`.
    backbone_width: int = Field(64, ge=8, multiple_of=8, le=1024)
    backbone_depths: tuple[Depth, Depth, Depth] = (3, 4, 6)
    # Stride of the finest map; the coarsest has four times this stride. 2 is for small frames (convnet).
    stride: Literal[2, 4] = 4
    # ImageNet weights of the EfficientNet, and the number of first blocks of the frame encoder that are frozen.
    pretrained: bool = False
    backbone_frozen: int = Field(0, ge=0)
    # Weight set that training starts from (`resnet-imagenet`: for every ResNet encoder), or None.
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
            raise ValueError("`weights` are for a resnet, and no backbone is one")
        return self


class MemoryOptions(EncoderOptions, LossOptions):
    """Options of a memory network; the defaults are STM's published size (baselines specification, section 1.1)."""

    # separate: an encoder of frame and mask has its own keys, one set per object (STM). fused: a light encoder of frame
    # and mask is fused with the frame's features, and all objects share the frame's keys.
    memory_encoder: Literal["separate", "fused"] = "separate"
    # Not published, for small networks with random starting weights (memory_encoder: separate): query and memory frames
    # share one backbone and one key head, with empty mask channels for the query, and maps are normalised over the image.
    # Keys then match from the start, which two encoders learn in hundreds of thousands of steps.
    one_encoder: bool = False
    # Whether the memory encoder has a channel for the masks of the other objects.
    others: bool = True
    key_dim: int = Field(128, ge=1, le=2048)
    value_dim: int = Field(512, ge=1, le=2048)
    # dot: scaled dot product; l2: scaled negative squared distance.
    similarity: Literal["dot", "l2"] = "dot"
    # stm: skips through a residual block, two logits; stcn: skips through a convolution, one logit.
    decoder: Literal["stm", "stcn"] = "stm"
    decoder_dim: int = Field(256, ge=1, le=2048)

    # Readout in inference: only the `top_k` greatest similarities (0: all), weighted by a Gaussian of `kernel_sigma` cells
    # around the best match of each memory cell (None: not weighted).
    top_k: int = Field(0, ge=0)
    kernel_sigma: float | None = Field(None, gt=0)
    # Whether the previous frame is always in the memory.
    memory_previous: bool = True

    # Memory encoder: bottleneck blocks if separate, basic blocks if fused.
    memory_backbone: Literal["same", "resnet", "convnet", "efficientnet-lite0"] = "same"
    memory_width: int = Field(64, ge=8, multiple_of=8, le=1024)
    memory_depths: tuple[Depth, Depth, Depth] = (3, 4, 6)

    @model_validator(mode="after")
    def _one_encoder_fits(self) -> "MemoryOptions":
        if self.one_encoder and (self.memory_encoder != "separate" or "resnet" in self.backbones):
            raise ValueError("`one_encoder` is for `memory_encoder: separate` without a resnet")
        if self.one_encoder and (self.backbone_frozen or len(self.backbones) > 1):
            raise ValueError("`one_encoder` needs one kind of backbone and no frozen blocks")
        return self

    @property
    def backbones(self) -> set[str]:
        """Kinds of all encoders."""
        return {self.backbone, self.memory_kind}

    @property
    def memory_kind(self) -> str:
        """Kind of the memory encoder."""
        return self.backbone if self.memory_backbone == "same" else self.memory_backbone


class STMOptions(MemoryOptions):
    """Options of STM; the defaults are the published network (baselines specification, section 1.1)."""


class KMNOptions(MemoryOptions):
    """Options of KMN, STM with a Gaussian kernel at readout (baselines specification, section 2.1)."""

    kernel_sigma: float | None = Field(7.0, gt=0)


class STCNOptions(MemoryOptions):
    """Options of STCN; the defaults are the published network and static training (baselines specification, section 3)."""

    memory_encoder: Literal["separate", "fused"] = "fused"
    others: bool = False
    key_dim: int = Field(64, ge=1, le=2048)
    similarity: Literal["dot", "l2"] = "l2"
    decoder: Literal["stm", "stcn"] = "stcn"
    top_k: int = Field(20, ge=0)
    memory_previous: bool = False
    memory_depths: tuple[Depth, Depth, Depth] = (2, 2, 2)
    loss: Literal["cross-entropy", "bootstrapped"] = "bootstrapped"


class DMNAOAOptions(EncoderOptions, LossOptions):
    """Options of DMN+AOA, explained in `docs/dmn-aoa.md` (baselines specification, section 4.3)."""

    # Channels of features and templates; the decoder reads four times as many.
    dim: int = Field(256, ge=8, le=2048)
    decoder_dim: int = Field(256, ge=8, le=2048)
    # Cells per side of a region of any size, and bilinear samples per side of a cell.
    roi_size: int = Field(24, ge=2, le=256)
    roi_samples: int = Field(2, ge=1, le=16)
    # A region is the box of the last mask, enlarged by a factor; in training by a random factor of this range.
    box_scale: float = Field(1.75, ge=1)
    training_scales: tuple[float, float] = (1.5, 2.0)
    # In training a region is shifted by up to this fraction of its margin around the object, and this fraction of the
    # regions is the whole frame.
    training_shift: float = Field(0.5, ge=0, le=1)
    training_lost: float = Field(0.1, ge=0, le=1)
    # Minimum width and height of a region in cells of the coarsest map.
    box_cells: int = Field(4, ge=1, le=64)

    # STCN's.
    loss: Literal["cross-entropy", "bootstrapped"] = "bootstrapped"

    @model_validator(mode="after")
    def _ranges(self) -> "DMNAOAOptions":
        least, most = self.training_scales
        if not 1 <= least <= most:
            raise ValueError("`training_scales` must be two factors, at least 1, the smaller first")
        return self

    @property
    def decoder(self) -> str:
        """Kind of the shared decoder."""
        return "stcn"

    @property
    def value_dim(self) -> int:
        """Width of each of the decoder's two inputs: the values of the region, and of both templates together."""
        return 2 * self.dim


class MethodEntry(NamedTuple):
    """A method: the module that registers its class, and the model of its options, or None."""

    module: str
    options: type[BaseModel] | None = None


METHODS = {
    "copy": MethodEntry("hodor.models.copy"),
    "dmn-aoa": MethodEntry("hodor.models.dmn_aoa", DMNAOAOptions),
    "hodor": MethodEntry("hodor.models.hodor.method", HODOROptions),
    "kmn": MethodEntry("hodor.models.memory.method", KMNOptions),
    "stcn": MethodEntry("hodor.models.memory.method", STCNOptions),
    "stm": MethodEntry("hodor.models.memory.method", STMOptions),
}
"""Id of a method in rows.yaml -> its entry."""
