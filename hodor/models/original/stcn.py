"""STCN's released checkpoints: a flat dict of entries (baselines specification, section 3.8).

Only names, no code of the release. The value encoder's first convolution has 4 input channels in static checkpoints and
5, the masks of the other objects last, in those of later stages. Counts of batches (`num_batches_tracked`) are read by
nobody.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hodor.config.methods import STCNOptions
from hodor.models.memory.network import Network
from hodor.models.original.format import Entries, Format, Options, batch_counters, renaming

# Ours -> theirs, applied to the start of a name.
_PREFIXES = (
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


def original_name(name: str) -> str:
    """The release's name of our entry `name`."""
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            name = theirs + name[len(ours) :]
            break
    return name.replace(".shortcut.", ".downsample.")


to_original, to_ours = renaming(lambda name: original_name(name.removeprefix("network.")))


def _options(entries: Mapping[str, Tensor]) -> Options:
    stem = entries.get("value_encoder.conv1.weight")
    return {"others": stem is not None and stem.dim() == 4 and stem.shape[1] == 5}


def _neutral(options: Options) -> Entries:
    with torch.device("meta"):
        network = Network(STCNOptions(**options))
    return batch_counters(to_original(network.state_dict()))


FORMAT = Format(
    name="stcn",
    about="STCN's released checkpoints, of static training (4 input channels) or later stages (5)",
    mark="value_encoder.",
    to_ours=to_ours,
    to_original=to_original,
    options=_options,
    variants=("others",),
    method="stcn",
    neutral=_neutral,
)
