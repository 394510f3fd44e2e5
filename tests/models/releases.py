"""Original checkpoints with random values."""

import torch

from hodor.models.checkpoints.convert import Options
from hodor.models.checkpoints.releases import FORMATS
from tests.golden.inputs import no_random_weights

# Name of a case -> its format and options.
CASES: dict[str, tuple[str, Options]] = {
    "hodor": ("hodor", {}),
    "stm": ("stm", {}),
    "stcn": ("stcn", {"others": False}),
    "stcn-5": ("stcn", {"others": True}),
    "swin-detection": ("swin-detection", {}),
    "swin-imagenet": ("swin-imagenet", {}),
    "resnet18": ("resnet-imagenet", {"architecture": "resnet18"}),
    "resnet50": ("resnet-imagenet", {"architecture": "resnet50"}),
}


def original(case: str, *, dead: bool = True) -> dict[str, torch.Tensor]:
    """Return random entries as in the release, with or without those that it never uses."""
    generator = torch.Generator().manual_seed(1)
    name, options = CASES[case]
    format = FORMATS[name]
    with no_random_weights():
        live = format.to_original(format.untrained(options))
    for entry, value in live.items():
        if value.is_floating_point() and entry not in format.constants:
            live[entry] = torch.rand(value.shape, generator=generator)
    entries = live | (format.dead(live) if dead else {})
    return {format.prefix + entry: value for entry, value in entries.items()}
