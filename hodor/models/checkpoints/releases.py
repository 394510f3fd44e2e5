"""The formats of released checkpoints and of initial weights: tables of names, no code of the releases.

- HODOR: `{model: entries, ...}` (specification section 12); only soft masking was released.
- STM: entries under `module.` (baselines specification, section 1.8). The memory encoder's first convolution is split into
  three there: image, object's mask, other objects' masks.
- STCN: entries without a wrapper (baselines specification, section 3.8). The value encoder's first convolution has 4 input
  channels after static training and 5, the other objects' masks last, after later stages.
- A COCO detector with Swin-T (`{state_dict: {backbone.*, neck.*, heads}}`), as published: backbone and pyramid.
- An ImageNet classifier with Swin-T at 224 x 224 (`{model: entries}`): the backbone without the norms of its four maps, no
  pyramid. A start from it is a different experiment, and its results must say so (specification section 1).
- torchvision's ImageNet ResNets up to `layer3` (stride 16); names are kept (baselines specification, 1.1 and 3.1).
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.backbones.resnet import ResNet
from hodor.models.backbones.swin import WINDOW, Swin, shifted_window_mask
from hodor.models.checkpoints.convert import Entries, Format, Options
from hodor.models.hodor.network import FeaturePyramid

Table = tuple[tuple[str, str], ...]

DIM = 256
"""Width of the published HODOR and of the detector's pyramid."""


def _replace_prefix(name: str, table: Table) -> str:
    """Replace the first matching prefix of a name; the table maps ours to theirs."""
    for ours, theirs in table:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


# HODOR

_HODOR: Table = (
    ("backbone.", "feature_extractor.bb_fpn.0."),
    ("norms.", "feature_extractor.norm_layers."),
    ("encoder.object_embedding", "encoder.fg_query_embed"),
    ("encoder.background_embedding", "encoder.bg_query_embed"),
    ("encoder.layers.", "encoder.attn_layers."),
    ("decoder.layers.", "decoder.attn_layers."),
    ("decoder.reduce_4.", "decoder.conv_4x_reduce."),
    ("decoder.embed_4.", "decoder.conv_4x."),
    ("decoder.object_query.", "decoder.instance_query_proj."),
    ("decoder.background_query.", "decoder.bg_query_proj."),
    ("decoder.catch_all.", "decoder.catch_all_conv."),
)
_HODOR_PARTS = (
    (r"^pyramid\.lateral\.(\d+)\.", r"feature_extractor.bb_fpn.1.lateral_convs.\1.conv."),
    (r"^pyramid\.output\.(\d+)\.", r"feature_extractor.bb_fpn.1.fpn_convs.\1.conv."),
    (r"^(encoder\.attn_layers\.\d+)\.self_attention\.", r"\1.self_attn."),
    (r"^(encoder\.attn_layers\.\d+)\.cross_attention\.alpha$", r"\1.cross_attn.scaling_factors"),
    (r"^(encoder\.attn_layers\.\d+)\.cross_attention\.", r"\1.cross_attn."),
    (r"^(encoder\.attn_layers\.\d+)\.feed_forward\.", r"\1.ffn."),
    (r"^(decoder\.attn_layers\.\d+)\.convolution\.", r"\1.self_attn_conv_substitute.0."),
    (r"^(decoder\.attn_layers\.\d+)\.convolution_norm\.", r"\1.self_attn_conv_substitute.2."),
    (r"^(decoder\.attn_layers\.\d+)\.cross_attention\.q_proj\.", r"\1.cross_attn.q_proj."),
    (r"^(decoder\.attn_layers\.\d+)\.cross_attention\.([kv])_proj_objects\.", r"\1.\2_proj_fg."),
    (r"^(decoder\.attn_layers\.\d+)\.cross_attention\.([kv])_proj_backgrounds\.", r"\1.\2_proj_bg."),
)


def hodor_name(name: str) -> str:
    """Return the release's name of our parameter or buffer `name` of a paper-size HODOR."""
    name = _replace_prefix(name.removeprefix("network."), _HODOR)
    for pattern, replacement in _HODOR_PARTS:
        name = re.sub(pattern, replacement, name)
    return name


def _unused_pyramid(convs: str) -> Entries:
    """Return the pyramid's outputs at strides 16 and 32, which HODOR does not use."""
    out = {}
    for level in (2, 3):
        out[f"{convs}.{level}.conv.weight"] = torch.zeros(DIM, DIM, 3, 3)
        out[f"{convs}.{level}.conv.bias"] = torch.zeros(DIM)
    return out


def _hodor_neutral() -> Entries:
    """Return two pyramid outputs, three norms and one projection with identity norms and everything else 0."""
    out = _unused_pyramid("feature_extractor.bb_fpn.1.fpn_convs")
    out["decoder.fmap_proj_4x.0.weight"] = torch.zeros(DIM, DIM, 1, 1)
    for norm in ("decoder.fmap_proj_4x.2", *(f"feature_extractor.norm_layers.{level}" for level in (2, 3, 4))):
        out[f"{norm}.weight"], out[f"{norm}.bias"] = torch.ones(DIM), torch.zeros(DIM)
    return out


HODOR = Format(
    name="hodor",
    mark="feature_extractor.bb_fpn.",
    rename=hodor_name,
    method="hodor",
    wrapper="model",
    neutral=_hodor_neutral,
    constant=(".relative_position_index",),
)


# STM

_STM: Table = (
    ("memory_encoder.backbone.layer1.", "Encoder_M.res2."),
    ("memory_encoder.backbone.layer2.", "Encoder_M.res3."),
    ("memory_encoder.backbone.layer3.", "Encoder_M.res4."),
    ("memory_encoder.backbone.", "Encoder_M."),
    ("memory_encoder.head.key.", "KV_M_r4.Key."),
    ("memory_encoder.head.value.", "KV_M_r4.Value."),
    ("query_encoder.layer1.", "Encoder_Q.res2."),
    ("query_encoder.layer2.", "Encoder_Q.res3."),
    ("query_encoder.layer3.", "Encoder_Q.res4."),
    ("query_encoder.", "Encoder_Q."),
    ("query_head.key.", "KV_Q_r4.Key."),
    ("query_head.value.", "KV_Q_r4.Value."),
    ("decoder.compress.0.", "Decoder.convFM."),
    ("decoder.compress.1.", "Decoder.ResMM."),
    ("decoder.levels.0.skip.0.", "Decoder.RF3.convFS."),
    ("decoder.levels.0.skip.1.", "Decoder.RF3.ResFS."),
    ("decoder.levels.0.out.", "Decoder.RF3.ResMM."),
    ("decoder.levels.1.skip.0.", "Decoder.RF2.convFS."),
    ("decoder.levels.1.skip.1.", "Decoder.RF2.ResFS."),
    ("decoder.levels.1.out.", "Decoder.RF2.ResMM."),
    ("decoder.predict.", "Decoder.pred2."),
)
# ImageNet's mean and standard deviation of RGB in 0..1, buffers of both encoders.
_NORMALISATION = (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225)))


STM = Format(
    name="stm",
    mark="Encoder_M.",
    rename=lambda name: _replace_prefix(name.removeprefix("network."), _STM),
    method="stm",
    split={
        "network.memory_encoder.backbone.conv1.weight": (
            ("Encoder_M.conv1.weight", slice(0, 3)),
            ("Encoder_M.conv1_m.weight", slice(3, 4)),
            ("Encoder_M.conv1_o.weight", slice(4, 5)),
        )
    },
    prefix="module.",
    constants={
        f"{encoder}.{name}": torch.tensor(values).view(1, 3, 1, 1)
        for encoder in ("Encoder_M", "Encoder_Q")
        for name, values in _NORMALISATION
    },
    constant=(".mean", ".std"),
)

# STCN

_STCN: Table = (
    ("query_encoder.layer1.", "key_encoder.res2."),
    ("query_encoder.", "key_encoder."),
    ("query_head.key.", "key_proj.key_proj."),
    ("query_head.value.", "key_comp."),
    ("memory_encoder.backbone.", "value_encoder."),
    ("memory_encoder.fuser.attention.channel.0.", "value_encoder.fuser.attention.ChannelGate.mlp.1."),
    ("memory_encoder.fuser.attention.channel.2.", "value_encoder.fuser.attention.ChannelGate.mlp.3."),
    ("memory_encoder.fuser.attention.place.", "value_encoder.fuser.attention.SpatialGate.spatial.conv."),
    ("memory_encoder.fuser.", "value_encoder.fuser."),
    ("decoder.levels.0.skip.", "decoder.up_16_8.skip_conv."),
    ("decoder.levels.0.out.", "decoder.up_16_8.out_conv."),
    ("decoder.levels.1.skip.", "decoder.up_8_4.skip_conv."),
    ("decoder.levels.1.out.", "decoder.up_8_4.out_conv."),
    ("decoder.predict.", "decoder.pred."),
)


def _stcn_name(name: str) -> str:
    return _replace_prefix(name.removeprefix("network."), _STCN).replace(".shortcut.", ".downsample.")


def _stcn_options(entries: Mapping[str, Tensor]) -> Options:
    stem = entries.get("value_encoder.conv1.weight")
    return {"others": stem is not None and stem.dim() == 4 and stem.shape[1] == 5}


STCN = Format(
    name="stcn",
    mark="value_encoder.",
    rename=_stcn_name,
    options=_stcn_options,
    method="stcn",
)


# Backbones


def _backbone() -> Entries:
    return {f"backbone.{name}": value for name, value in Swin().state_dict().items()}


def _detector(options: Options) -> Entries:
    pyramid = FeaturePyramid(Swin().channels, DIM, outputs=2)
    return _backbone() | {f"pyramid.{name}": value for name, value in pyramid.state_dict().items()}


def _detector_name(name: str) -> str:
    name = re.sub(r"^pyramid\.lateral\.(\d+)\.", r"neck.lateral_convs.\1.conv.", name)
    return re.sub(r"^pyramid\.output\.(\d+)\.", r"neck.fpn_convs.\1.conv.", name)


DETECTION = Format(
    name="swin-detection",
    mark="backbone.patch_embed.",
    rename=_detector_name,
    fresh=_detector,
    wrapper="state_dict",
    neutral=lambda: _unused_pyramid("neck.fpn_convs"),
    unused=("rpn_head.", "roi_head."),
    constant=(".relative_position_index",),
)


def _classifier(options: Options) -> Entries:
    """Return the backbone without the norms of its maps, which a classifier does not have."""
    return {name: value for name, value in _backbone().items() if not re.match(r"backbone\.norm\d\.", name)}


def _classifier_neutral() -> Entries:
    """Return the classifier's last norm and head, and the masks of its shifted blocks for images of 224 x 224."""
    width, classes, out = Swin().channels[-1], 1000, {}
    out["norm.weight"], out["norm.bias"] = torch.ones(width), torch.zeros(width)
    out["head.weight"], out["head.bias"] = torch.zeros(classes, width), torch.zeros(classes)
    for stage, depth in enumerate((2, 2, 6)):  # the last stage has a single window, which is not shifted
        side = 224 // 4 // 2**stage
        for block in range(1, depth, 2):
            mask = shifted_window_mask(side, side, WINDOW // 2, torch.device("cpu"))
            out[f"layers.{stage}.blocks.{block}.attn_mask"] = mask
    return out


IMAGENET = Format(
    name="swin-imagenet",
    mark="patch_embed.",
    rename=lambda name: name.removeprefix("backbone."),
    fresh=_classifier,
    wrapper="model",
    neutral=_classifier_neutral,
    constant=(".relative_position_index",),
)


def _resnet(options: Options) -> Entries:
    bottleneck = options["architecture"] == "resnet50"
    return dict(ResNet(bottleneck=bottleneck, depths=(3, 4, 6) if bottleneck else (2, 2, 2)).state_dict())


RESNET = Format(
    name="resnet-imagenet",
    mark="layer1.0.conv1.",
    options=lambda entries: {"architecture": "resnet50" if "layer1.0.conv3.weight" in entries else "resnet18"},
    fresh=_resnet,
    unused=("layer4.", "fc."),
)


FORMATS = {format.name: format for format in (HODOR, DETECTION, IMAGENET, RESNET, STM, STCN)}
"""Id -> format."""


def format_named(name: str) -> Format:
    """Look up a format by name; HodorError if there is none."""
    if name not in FORMATS:
        raise HodorError(f"--format {name}: unknown format; use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def recognise(names: Collection[str], source: object) -> Format:
    """Recognise the format of a checkpoint from the names of its entries.

    Raises:
        HodorError: no format or several formats match.
    """
    marks = {name: (format.mark, f"module.{format.mark}") for name, format in FORMATS.items()}
    found = [id for id, mark in marks.items() if any(name.startswith(mark) for name in names)]
    if len(found) != 1:
        what = "of several formats" if found else f"of no known format (its first entry is {min(names)})"
        raise HodorError(f"{source}: a checkpoint {what}; set --format to one of {', '.join(FORMATS)}")
    return FORMATS[found[0]]
