"""torchvision's ImageNet ResNets that the memory methods start from: names kept, `layer4` and `fc` left out.

The memory methods read maps up to stride 16, which `layer3` gives (He et al., "Deep Residual Learning for Image
Recognition", CVPR 2016; baselines specification, sections 1.1 and 3.1).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hodor.models.original.format import Entries, Format, Options, batch_counters, renaming

# Blocks of layer1 to layer3, convolution kernels of a block, and how much wider its output is.
_ARCHITECTURES = {"resnet18": ((2, 2, 2), (3, 3), 1), "resnet50": ((3, 4, 6), (1, 3, 1), 4)}


def _architecture(entries: Mapping[str, Tensor]) -> Options:
    return {"architecture": "resnet50" if "layer1.0.conv3.weight" in entries else "resnet18"}


def _fresh(options: Options) -> Entries:
    """Entries of a network without classes and last stage: convolutions 0, norms as they start."""
    blocks, kernels, expansion = _ARCHITECTURES[options["architecture"]]
    out: Entries = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        out[f"{name}.weight"] = torch.zeros(outputs, inputs, kernel, kernel)

    def norm(name: str, width: int) -> None:
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            out[f"{name}.{part}"] = torch.full((width,), float(value))

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            place = f"layer{stage + 1}.{block}"
            outputs, before = width * expansion, inputs
            for i, kernel in enumerate(kernels, 1):
                after = outputs if i == len(kernels) else width
                convolution(f"{place}.conv{i}", after, before, kernel)
                norm(f"{place}.bn{i}", after)
                before = after
            if block == 0 and inputs != outputs:
                convolution(f"{place}.downsample.0", outputs, inputs, 1)
                norm(f"{place}.downsample.1", outputs)
            inputs = outputs
    return out


_to_original, _to_ours = renaming(lambda name: name)

RESNET = Format(
    name="resnet-imagenet",
    about="torchvision's ResNet-18 and ResNet-50",
    mark="layer1.0.conv1.",
    to_ours=_to_ours,
    to_original=_to_original,
    options=_architecture,
    variants=("architecture",),
    fresh=_fresh,
    neutral=lambda options: batch_counters(_fresh(options)),
    unused=("layer4.", "fc."),
)
