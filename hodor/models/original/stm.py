"""STM's released checkpoint: a flat dict of entries under `module.` (baselines specification, section 1.8).

Only names, no code of the release. Its memory encoder has three first convolutions, of the image, the object's mask and
the other objects' masks, which are one here. Counts of batches (`num_batches_tracked`) are read by nobody.
"""

from collections.abc import Iterable

import torch

from hodor.config.methods import STMOptions
from hodor.models.memory.network import Network
from hodor.models.original.format import Entries, Format, Options, batch_counters

# Ours -> theirs, applied to the start of a name.
_PREFIXES = (
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
_STEM = "memory_encoder.backbone.conv1.weight"
# The release's convolutions of image, object and others: which input channels of ours they are.
_STEM_PARTS = (
    ("Encoder_M.conv1.weight", slice(0, 3)),
    ("Encoder_M.conv1_m.weight", slice(3, 4)),
    ("Encoder_M.conv1_o.weight", slice(4, 5)),
)
# ImageNet's mean and standard deviation of RGB in 0..1, buffers of both encoders there.
_NORMALISATION = (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225)))


def original_name(name: str) -> str:
    """The release's name (without `module.`) of our entry `name`, which is not the memory encoder's first convolution."""
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


def to_original(weights: Entries) -> Entries:
    """Our entries -> the release's, with the constants of its normalisation."""
    out: Entries = {}
    for name, value in weights.items():
        name = name.removeprefix("network.")
        if name == _STEM:
            out |= {theirs: value[:, part].clone() for theirs, part in _STEM_PARTS}
        else:
            out[original_name(name)] = value
    for encoder in ("Encoder_M", "Encoder_Q"):
        out |= {f"{encoder}.{name}": torch.tensor(values).view(1, 3, 1, 1) for name, values in _NORMALISATION}
    return out


def to_ours(entries: Entries, names: Iterable[str]) -> Entries:
    """The release's entries -> ours."""
    out: Entries = {}
    for name in names:
        short = name.removeprefix("network.")
        if short == _STEM:
            out[name] = torch.cat([entries[theirs] for theirs, _ in _STEM_PARTS], dim=1)
        else:
            out[name] = entries[original_name(short)]
    return out


def _neutral(options: Options) -> Entries:
    with torch.device("meta"):
        network = Network(STMOptions(**options))
    return batch_counters(to_original(network.state_dict()))


FORMAT = Format(
    name="stm",
    about="STM's released checkpoint",
    mark="Encoder_M.",
    to_ours=to_ours,
    to_original=to_original,
    method="stm",
    prefix="module.",
    neutral=_neutral,
    constant=(".mean", ".std"),
)
