"""Released checkpoints of HODOR, STM and STCN: tables of names, no code of the releases.

- HODOR: `{model: entries, ...}` (specification section 12); only soft masking was released.
- STM: entries under `module.` (baselines specification, section 1.8). The memory encoder's first convolution is split into
  three there: image, object's mask, other objects' masks.
- STCN: entries without a wrapper (baselines specification, section 3.8). The value encoder's first convolution has 4 input
  channels after static training and 5, the other objects' masks last, after later stages.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hodor.models.checkpoints.formats import Entries, Format, Options

Table = tuple[tuple[str, str], ...]


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


# Parameters that the release creates but never uses: two pyramid outputs, three norms and one projection.
DEAD_PREFIXES = (
    "feature_extractor.bb_fpn.1.fpn_convs.2.",
    "feature_extractor.bb_fpn.1.fpn_convs.3.",
    "feature_extractor.norm_layers.2.",
    "feature_extractor.norm_layers.3.",
    "feature_extractor.norm_layers.4.",
    "decoder.fmap_proj_4x.",
)


def _hodor_neutral(options: Options) -> Entries:
    """Return the entries of `DEAD_PREFIXES`: identity norms, everything else 0."""
    width, out = 256, {}
    for level in (2, 3):
        out[f"feature_extractor.bb_fpn.1.fpn_convs.{level}.conv.weight"] = torch.zeros(width, width, 3, 3)
        out[f"feature_extractor.bb_fpn.1.fpn_convs.{level}.conv.bias"] = torch.zeros(width)
    out["decoder.fmap_proj_4x.0.weight"] = torch.zeros(width, width, 1, 1)
    for norm in ("decoder.fmap_proj_4x.2", *(f"feature_extractor.norm_layers.{level}" for level in (2, 3, 4))):
        out[f"{norm}.weight"], out[f"{norm}.bias"] = torch.ones(width), torch.zeros(width)
    return out


HODOR = Format(
    name="hodor",
    about="HODOR's released checkpoints",
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
    about="STM's released checkpoint",
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
    about="STCN's released checkpoints, of static training (4 input channels) or later stages (5)",
    mark="value_encoder.",
    rename=_stcn_name,
    options=_stcn_options,
    variants=("others",),
    method="stcn",
)
