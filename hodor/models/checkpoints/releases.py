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
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.backbones.resnet import ResNet
from hodor.models.backbones.swin import WINDOW, Swin, shifted_window_mask
from hodor.models.checkpoints.convert import Entries, Format, Options
from hodor.models.hodor.network import FeaturePyramid

DIM = 256
"""Width of the published HODOR and of the detector's pyramid."""


def _renaming(*table: tuple[str, str]) -> Callable[[str], str]:
    """Return the function from our names to a release's: substitutions by regular expressions, in order."""

    def rename(name: str) -> str:
        name = name.removeprefix("network.")
        for ours, theirs in table:
            name = re.sub(ours, theirs, name)
        return name

    return rename


def _pyramid_names(theirs: str) -> tuple[tuple[str, str], ...]:
    lateral = (r"^pyramid.lateral.(\d+).", rf"{theirs}.lateral_convs.\1.conv.")
    return lateral, (r"^pyramid.output.(\d+).", rf"{theirs}.fpn_convs.\1.conv.")


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
    rename=_renaming(
        ("^backbone.", "feature_extractor.bb_fpn.0."),
        *_pyramid_names("feature_extractor.bb_fpn.1"),
        ("^norms.", "feature_extractor.norm_layers."),
        ("^encoder.object_embedding", "encoder.fg_query_embed"),
        ("^encoder.background_embedding", "encoder.bg_query_embed"),
        (r"^(en|de)coder.layers.", r"\1coder.attn_layers."),
        (".self_attention.", ".self_attn."),
        (".cross_attention.([kv])_proj_objects.", r".\1_proj_fg."),
        (".cross_attention.([kv])_proj_backgrounds.", r".\1_proj_bg."),
        (".cross_attention.alpha$", ".cross_attn.scaling_factors"),
        (".cross_attention.", ".cross_attn."),
        (".feed_forward.", ".ffn."),
        (".convolution_norm.", ".self_attn_conv_substitute.2."),
        (".convolution.", ".self_attn_conv_substitute.0."),
        ("^decoder.reduce_4.", "decoder.conv_4x_reduce."),
        ("^decoder.embed_4.", "decoder.conv_4x."),
        ("^decoder.object_query.", "decoder.instance_query_proj."),
        ("^decoder.background_query.", "decoder.bg_query_proj."),
        ("^decoder.catch_all.", "decoder.catch_all_conv."),
    ),
    method="hodor",
    wrapper="model",
    neutral=_hodor_neutral,
)


STM = Format(
    name="stm",
    mark="Encoder_M.",
    rename=_renaming(
        ("^memory_encoder.backbone.", "Encoder_M."),
        ("^memory_encoder.head.key.", "KV_M_r4.Key."),
        ("^memory_encoder.head.value.", "KV_M_r4.Value."),
        ("^query_encoder.", "Encoder_Q."),
        ("^query_head.key.", "KV_Q_r4.Key."),
        ("^query_head.value.", "KV_Q_r4.Value."),
        ("^(Encoder_.).layer1.", r"\1.res2."),
        ("^(Encoder_.).layer2.", r"\1.res3."),
        ("^(Encoder_.).layer3.", r"\1.res4."),
        ("^decoder.compress.0.", "Decoder.convFM."),
        ("^decoder.compress.1.", "Decoder.ResMM."),
        ("^decoder.levels.0.", "Decoder.RF3."),
        ("^decoder.levels.1.", "Decoder.RF2."),
        (".skip.0.", ".convFS."),
        (".skip.1.", ".ResFS."),
        (".out.", ".ResMM."),
        ("^decoder.predict.", "Decoder.pred2."),
    ),
    method="stm",
    split={
        "network.memory_encoder.backbone.conv1.weight": (
            ("Encoder_M.conv1.weight", slice(0, 3)),
            ("Encoder_M.conv1_m.weight", slice(3, 4)),
            ("Encoder_M.conv1_o.weight", slice(4, 5)),
        )
    },
    prefix="module.",
    constants={  # ImageNet's mean and standard deviation of RGB in 0..1
        f"{encoder}.{name}": torch.tensor(values).view(1, 3, 1, 1)
        for encoder in ("Encoder_M", "Encoder_Q")
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225)))
    },
)


def _stcn_options(entries: Mapping[str, Tensor]) -> Options:
    stem = entries.get("value_encoder.conv1.weight")
    return {"others": stem is not None and stem.dim() == 4 and stem.shape[1] == 5}


STCN = Format(
    name="stcn",
    mark="value_encoder.",
    rename=_renaming(
        ("^query_encoder.layer1.", "key_encoder.res2."),
        ("^query_encoder.", "key_encoder."),
        ("^query_head.key.", "key_proj.key_proj."),
        ("^query_head.value.", "key_comp."),
        ("^memory_encoder.backbone.", "value_encoder."),
        ("^memory_encoder.fuser.", "value_encoder.fuser."),
        (".attention.channel.0.", ".attention.ChannelGate.mlp.1."),
        (".attention.channel.2.", ".attention.ChannelGate.mlp.3."),
        (".attention.place.", ".attention.SpatialGate.spatial.conv."),
        ("^decoder.levels.0.", "decoder.up_16_8."),
        ("^decoder.levels.1.", "decoder.up_8_4."),
        (".skip.", ".skip_conv."),
        (".out.", ".out_conv."),
        ("^decoder.predict.", "decoder.pred."),
        (".shortcut.", ".downsample."),
    ),
    options=_stcn_options,
    method="stcn",
)


# Backbones


def _backbone() -> Entries:
    return {f"backbone.{name}": value for name, value in Swin().state_dict().items()}


def _detector(options: Options) -> Entries:
    pyramid = FeaturePyramid(Swin().channels, DIM, outputs=2)
    return _backbone() | {f"pyramid.{name}": value for name, value in pyramid.state_dict().items()}


DETECTION = Format(
    name="swin-detection",
    mark="backbone.patch_embed.",
    rename=_renaming(*_pyramid_names("neck")),
    fresh=_detector,
    wrapper="state_dict",
    neutral=lambda: _unused_pyramid("neck.fpn_convs"),
    unused=("rpn_head.", "roi_head."),
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
    rename=_renaming(("^backbone.", "")),
    fresh=_classifier,
    wrapper="model",
    neutral=_classifier_neutral,
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
    """Return the format of a name; HodorError if there is none."""
    if name not in FORMATS:
        raise HodorError(f"--format {name}: unknown format; use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def recognise(names: Collection[str], source: object) -> Format:
    """Recognise the format of a checkpoint from the names of its entries.

    Raises:
        HodorError: no format or several formats match.
    """
    plain = [name.removeprefix("module.") for name in names]
    found = [format for format in FORMATS.values() if any(name.startswith(format.mark) for name in plain)]
    if len(found) != 1:
        what = "of several formats" if found else f"of no known format (its first entry is {min(names)})"
        raise HodorError(f"{source}: a checkpoint {what}; set --format to one of {', '.join(FORMATS)}")
    return found[0]
