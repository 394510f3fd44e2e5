"""Size and variant of a HODOR network (no torch here: the workflow reads them at every start)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hodor.models.hodor import variants
from hodor.settings import none_of


class Options(BaseModel):
    """One instance of HODOR; the defaults are the published network (specification sections 1 to 5)."""

    model_config = ConfigDict(extra="forbid")

    attention: str = Field("soft", description="none, hard, soft, or a file of hodor/models/hodor/variants")
    backbone: Literal["swin", "convnet", "efficientnet-lite0"] = "swin"
    # Width of the first backbone stage (Swin-T: 96); the EfficientNet has fixed widths and ignores it.
    backbone_width: int = Field(96, ge=8, multiple_of=8)
    backbone_depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    drop_path: float = Field(0.2, ge=0, lt=1)
    pretrained: bool = False
    # The weight set (hodor/data/sources.py) that training starts from, unless it starts from another row. ImageNet's is
    # a different experiment from the published one, which starts from a COCO detector.
    weights: Literal["swin-tiny-mask-rcnn-3x", "swin-tiny-imagenet"] | None = None
    # So many first blocks of a pretrained backbone keep their weights, which saves most of its backward pass.
    backbone_frozen: int = Field(0, ge=0)
    # Group norms of 16 and 8 groups stand on it and on a quarter of it.
    dim: int = Field(256, multiple_of=32, gt=0)
    heads: int = Field(8, ge=1)
    encoder_layers: int = Field(5, ge=1)
    encoder_hidden: int = Field(1024, ge=16)
    decoder_layers: int = Field(5, ge=1)
    decoder_hidden: int = Field(256, ge=16)
    background_grid: tuple[int, int] = (3, 3)
    dropout: float = Field(0.1, ge=0, lt=1)
    # True: predicted masks are detached before they are encoded again (the released configs); False: the gradient
    # flows through the soft mask (the poster's claim). Only soft masking feels the difference.
    detach_masks: bool = False

    # What the papers leave open; docs/decisions.md argues each default.
    # Hard masking: pixels below this are blocked; a mask without any pixel left sees all pixels, or its largest ones.
    mask_threshold: float = Field(0.5, gt=0, le=1)
    empty_mask: Literal["all", "peak"] = "all"
    # False: the background descriptors attend to all pixels, whatever the masking.
    mask_backgrounds: bool = True
    # Descriptors start as the mean feature under their mask, or (False) under the whole frame.
    masked_initialisation: bool = True
    # alpha * mask inside the division by sqrt(C / heads), as printed, or outside, as released.
    alpha_inside_scale: bool = False
    # Whether weight decay pulls alpha towards 0, as released.
    decay_alpha: bool = True
    # Read the weights as if every alpha were 0: what the learned alphas are worth. For rows that train nothing.
    zero_alpha: bool = False

    def modules(self) -> list[str]:
        """Modules that networks of these options run besides their method's: part of the hash of these rows' code."""
        module = variants.module_of(self.attention)
        return [module] if module else []

    @field_validator("attention")
    @classmethod
    def _attention_is_there(cls, value: str) -> str:
        if value not in variants.names():
            raise ValueError(none_of(value, variants.names()))
        return value

    @model_validator(mode="after")
    def _weights_fit(self) -> "Options":
        if self.weights and self.backbone != "swin":
            raise ValueError(f"`weights` {self.weights} are for backbone swin, not {self.backbone}")
        return self

    @model_validator(mode="after")
    def _alpha_to_zero(self) -> "Options":
        if self.zero_alpha and self.attention != "soft":
            raise ValueError(f"`zero_alpha` is about soft masking: {self.attention} masking has no alpha")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> "Options":
        if self.dim % self.heads:
            raise ValueError(f"`heads` {self.heads} must divide `dim` {self.dim}")
        if self.attention == "soft" and self.heads % 4:
            raise ValueError(
                f"`heads` {self.heads} must be a multiple of 4: the starting alphas 32, 16, 8, 4 share them"
            )
        return self
