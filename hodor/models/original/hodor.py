"""HODOR's released checkpoints: `{model: entries, ...}`, specification section 12. Only names, no code of the release.

Of such a file all entries are read but those of `DEAD_PREFIXES`, which the release creates and never uses. It holds
soft masking alone: the releases of the other maskings do not exist.
"""

import re

import torch

from hodor.models.original.format import Entries, Format, Options, renaming

# Ours -> theirs, applied in order to the start of a name.
_PREFIXES = (
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
_PARTS = (
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


def original_name(name: str) -> str:
    """The release's name of our parameter or buffer `name` of a paper-size network."""
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            name = theirs + name[len(ours) :]
            break
    for pattern, replacement in _PARTS:
        name = re.sub(pattern, replacement, name)
    return name


# Parameters that the release creates and never uses: two pyramid outputs, three norms and one projection.
DEAD_PREFIXES = (
    "feature_extractor.bb_fpn.1.fpn_convs.2.",
    "feature_extractor.bb_fpn.1.fpn_convs.3.",
    "feature_extractor.norm_layers.2.",
    "feature_extractor.norm_layers.3.",
    "feature_extractor.norm_layers.4.",
    "decoder.fmap_proj_4x.",
)


def neutral(options: Options) -> Entries:
    """The entries of `DEAD_PREFIXES` with values that do nothing: norms 1 and 0, everything else 0."""
    width, out = 256, {}
    for level in (2, 3):
        out[f"feature_extractor.bb_fpn.1.fpn_convs.{level}.conv.weight"] = torch.zeros(width, width, 3, 3)
        out[f"feature_extractor.bb_fpn.1.fpn_convs.{level}.conv.bias"] = torch.zeros(width)
    out["decoder.fmap_proj_4x.0.weight"] = torch.zeros(width, width, 1, 1)
    for norm in ("decoder.fmap_proj_4x.2", *(f"feature_extractor.norm_layers.{level}" for level in (2, 3, 4))):
        out[f"{norm}.weight"], out[f"{norm}.bias"] = torch.ones(width), torch.zeros(width)
    return out


to_original, to_ours = renaming(lambda name: original_name(name.removeprefix("network.")))

FORMAT = Format(
    name="hodor",
    about="HODOR's released checkpoints",
    mark="feature_extractor.bb_fpn.",
    to_ours=to_ours,
    to_original=to_original,
    method="hodor",
    wrapper="model",
    neutral=neutral,
    constant=(".relative_position_index",),
)
