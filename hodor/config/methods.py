"""Options of every method, and the registries of methods and attention variants.

A new method is a module of `hodor.models` that registers a class, and an entry of `METHODS`; a new attention variant is a
module and an entry of `ATTENTION`.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from hodor.config.validation import Strict, known_in

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

    attention: known_in(ATTENTION) = Field("soft", description="a key of ATTENTION")
    backbone: Literal["swin", "convnet", "efficientnet-lite0"] = Field(
        "swin", description="network that encodes frames"
    )
    backbone_width: int = Field(
        96,
        ge=8,
        multiple_of=8,
        le=1024,
        description="width of its first stage (Swin-T: 96); the EfficientNet ignores it",
    )
    backbone_depths: tuple[Depth, Depth, Depth, Depth] = Field((2, 2, 6, 2), description="blocks of its stages")
    drop_path: float = Field(0.2, ge=0, lt=1, description="stochastic depth of the backbone")
    pretrained: bool = Field(False, description="ImageNet weights of the EfficientNet")
    weights: Literal["swin-tiny-mask-rcnn-3x", "swin-tiny-imagenet"] | None = Field(
        None,
        description="weight set that training starts from, unless it starts from another row. The published training "
        "starts from a COCO detector; one from ImageNet is a different experiment",
    )
    backbone_frozen: int = Field(
        0,
        ge=0,
        description="first blocks of a pretrained backbone that are frozen, which saves most of its backward pass",
    )
    dim: int = Field(256, multiple_of=32, gt=0, le=2048, description="channels of features and descriptors")
    heads: int = Field(8, ge=1, le=256, description="attention heads")
    encoder_layers: int = Field(5, ge=1, le=64, description="layers of the descriptor encoder")
    encoder_hidden: int = Field(1024, ge=16, le=8192, description="hidden width of its feed-forward networks")
    decoder_layers: int = Field(5, ge=1, le=64, description="layers of the decoder")
    decoder_hidden: int = Field(256, ge=16, le=8192, description="hidden width of its feed-forward networks")
    background_grid: tuple[GridSide, GridSide] = Field(
        (3, 3), description="cells of the background descriptors, down and across"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout of the encoder and the decoder")
    detach_masks: bool = Field(
        False,
        description="true: predicted masks are detached before they are encoded again, as in the released configs; "
        "false: the gradient flows through the soft mask, as the poster says. Matters for soft masking only",
    )

    # Not specified by the papers; docs/decisions.md explains each default.
    mask_threshold: float = Field(0.5, gt=0, le=1, description="hard masking blocks pixels below it")
    empty_mask: Literal["all", "peak"] = Field(
        "all", description="pixels that a mask attends to if none is above the threshold: all, or those of its peak"
    )
    mask_backgrounds: bool = Field(True, description="false: the background descriptors attend to all pixels")
    masked_initialisation: bool = Field(
        True, description="descriptors start as the mean feature under their mask; false: of the whole frame"
    )
    alpha_inside_scale: bool = Field(
        False,
        description="true: (logits + alpha * mask) / sqrt(C / heads), as printed; false: alpha * mask after the "
        "division, as released",
    )
    decay_alpha: bool = Field(True, description="whether weight decay applies to alpha, as released")
    zero_alpha: bool = Field(
        False, description="replace every learned alpha by 0, to measure its effect; for rows without training"
    )

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

    loss: Literal["cross-entropy", "bootstrapped"] = Field(
        "cross-entropy",
        description="`bootstrapped`: from step `bootstrap_start` on, the mean over the hardest pixels only",
    )
    bootstrap_start: int = Field(
        20_000, ge=0, description="step at which the fraction of pixels begins to fall linearly from 1"
    )
    bootstrap_end: int = Field(70_000, ge=1, description="step at which it is `bootstrap_part`")
    bootstrap_part: float = Field(0.15, gt=0, le=1, description="last fraction of pixels")

    @model_validator(mode="after")
    def _falls(self) -> "LossOptions":
        if self.bootstrap_end <= self.bootstrap_start:
            raise ValueError("`bootstrap_end` must come after `bootstrap_start`")
        return self


class EncoderOptions(Strict):
    """Options of the network that encodes frames."""

    backbone: Literal["resnet", "convnet", "efficientnet-lite0"] = Field(
        "resnet", description="network that encodes frames"
    )
    backbone_width: int = Field(
        64,
        ge=8,
        multiple_of=8,
        le=1024,
        description="width of its first stage; the EfficientNet ignores it, the depths and `stride`",
    )
    backbone_depths: tuple[Depth, Depth, Depth] = Field((3, 4, 6), description="blocks of its stages")
    stride: Literal[2, 4] = Field(
        4,
        description="stride of the finest map, a quarter of the coarsest's; 2 is for small frames (convnet)",
    )
    pretrained: bool = Field(False, description="ImageNet weights of the EfficientNet")
    backbone_frozen: int = Field(0, ge=0, description="first blocks of the frame encoder that are frozen")
    weights: str | None = Field(
        None, description="weight set that training starts from (`resnet-imagenet`: for every ResNet encoder), or null"
    )

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

    memory_encoder: Literal["separate", "fused"] = Field(
        "separate",
        description="`separate`: an encoder of frame and mask has its own keys, one set per object (STM); `fused`: a "
        "light encoder of frame and mask is fused with the frame's features, and all objects share the "
        "frame's keys",
    )
    one_encoder: bool = Field(
        False,
        description="not published, for small networks with random starting weights (`memory_encoder: separate`): query"
        " and memory frames share one backbone and one key head, with empty mask channels for the query, "
        "and maps are normalised over the image. Keys then match from the start, which two encoders learn "
        "in hundreds of thousands of steps",
    )
    others: bool = Field(
        True, description="whether the memory encoder has a channel for the masks of the other objects"
    )
    key_dim: int = Field(128, ge=1, le=2048, description="channels of keys")
    value_dim: int = Field(512, ge=1, le=2048, description="channels of values")
    similarity: Literal["dot", "l2"] = Field(
        "dot", description="`dot`: scaled dot product; `l2`: scaled negative squared distance"
    )
    decoder: Literal["stm", "stcn"] = Field(
        "stm",
        description="`stm`: skips through a residual block, two logits; `stcn`: skips through a convolution, one logit",
    )
    decoder_dim: int = Field(256, ge=1, le=2048, description="channels of the decoder")

    top_k: int = Field(0, ge=0, description="inference reads the greatest similarities only; 0: all")
    kernel_sigma: float | None = Field(
        None,
        gt=0,
        description="inference weights similarities by a Gaussian of this number of cells around the best match of each"
        " memory cell; null: not weighted",
    )
    memory_previous: bool = Field(True, description="whether the previous frame is always in the memory")

    memory_backbone: Literal["same", "resnet", "convnet", "efficientnet-lite0"] = Field(
        "same", description="network of the memory encoder: bottleneck blocks if separate, basic blocks if fused"
    )
    memory_width: int = Field(64, ge=8, multiple_of=8, le=1024, description="width of its first stage")
    memory_depths: tuple[Depth, Depth, Depth] = Field((3, 4, 6), description="blocks of its stages")

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

    dim: int = Field(
        256, ge=8, le=2048, description="channels of features and templates; the decoder reads four times as many"
    )
    decoder_dim: int = Field(256, ge=8, le=2048, description="channels of the decoder")
    roi_size: int = Field(24, ge=2, le=256, description="cells per side of a region of any size")
    roi_samples: int = Field(2, ge=1, le=16, description="bilinear samples per side of a cell")
    box_scale: float = Field(1.75, ge=1, description="a region is the box of the last mask, enlarged by this factor")
    training_scales: tuple[float, float] = Field((1.5, 2.0), description="range of that factor in training")
    training_shift: float = Field(
        0.5,
        ge=0,
        le=1,
        description="in training a region is shifted by up to this fraction of its margin around the object",
    )
    training_lost: float = Field(
        0.1, ge=0, le=1, description="fraction of the regions in training that are the whole frame"
    )
    box_cells: int = Field(
        4, ge=1, le=64, description="minimum width and height of a region in cells of the coarsest map"
    )

    loss: Literal["cross-entropy", "bootstrapped"] = Field("bootstrapped", description="that of STCN by default")

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
