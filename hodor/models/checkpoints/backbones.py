"""Initial weights of backbones: Swin-T for HODOR, ResNets for the memory methods.

- A COCO detector with Swin-T (`{state_dict: {backbone.*, neck.*, heads}}`), as published: backbone and pyramid.
- An ImageNet classifier with Swin-T (`{model: entries}`): the backbone without the norms of its four maps, no pyramid. A
  start from it is a different experiment, and its results must say so (specification section 1).
- torchvision's ImageNet ResNets up to `layer3` (stride 16); names are kept (baselines specification, 1.1 and 3.1).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hodor.models.backbones.resnet import ResNet
from hodor.models.backbones.swin import WINDOW, Swin, shifted_window_mask
from hodor.models.checkpoints.formats import Entries, Format, Options
from hodor.models.hodor.network import FeaturePyramid

DIM = 256
"""Width of the published pyramid."""

_CLASSES = 1000
_SIDE = 224


def _backbone() -> Entries:
    return {f"backbone.{name}": value for name, value in Swin().state_dict().items()}


# A COCO detector


def _fresh_detector(options: Options) -> Entries:
    pyramid = FeaturePyramid(Swin().channels, DIM, outputs=2)
    return _backbone() | {f"pyramid.{name}": value for name, value in pyramid.state_dict().items()}


def _detector_name(name: str) -> str:
    name = re.sub(r"^pyramid\.lateral\.(\d+)\.", r"neck.lateral_convs.\1.conv.", name)
    return re.sub(r"^pyramid\.output\.(\d+)\.", r"neck.fpn_convs.\1.conv.", name)


def _detector_neutral(options: Options) -> Entries:
    """Return the pyramid's outputs at strides 16 and 32, which HODOR does not use."""
    out = {}
    for level in (2, 3):
        out[f"neck.fpn_convs.{level}.conv.weight"] = torch.zeros(DIM, DIM, 3, 3)
        out[f"neck.fpn_convs.{level}.conv.bias"] = torch.zeros(DIM)
    return out


DETECTION = Format(
    name="swin-detection",
    about="Mask R-CNN and Cascade Mask R-CNN detectors with Swin-T and a feature pyramid",
    mark="backbone.patch_embed.",
    rename=_detector_name,
    fresh=_fresh_detector,
    wrapper="state_dict",
    neutral=_detector_neutral,
    unused=("rpn_head.", "roi_head."),
    constant=(".relative_position_index",),
)


# An ImageNet classifier


def _fresh_classifier(options: Options) -> Entries:
    """Return the backbone without the norms of its maps, which a classifier does not have."""
    return {name: value for name, value in _backbone().items() if not re.match(r"backbone\.norm\d\.", name)}


def _classifier_neutral(options: Options) -> Entries:
    """Return the classifier's last norm and head, and the masks of its shifted blocks for images of 224 x 224."""
    width = Swin().channels[-1]
    out = {
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
        "head.weight": torch.zeros(_CLASSES, width),
        "head.bias": torch.zeros(_CLASSES),
    }
    for stage, depth in enumerate((2, 2, 6, 2)):
        side = _SIDE // 4 // 2**stage
        for block in range(1, depth, 2):
            if side > WINDOW:  # a single window is not shifted
                mask = shifted_window_mask(side, side, WINDOW // 2, torch.device("cpu"))
                out[f"layers.{stage}.blocks.{block}.attn_mask"] = mask
    return out


IMAGENET = Format(
    name="swin-imagenet",
    about="ImageNet-1k classifiers with Swin-T at 224 x 224",
    mark="patch_embed.",
    rename=lambda name: name.removeprefix("backbone."),
    fresh=_fresh_classifier,
    wrapper="model",
    neutral=_classifier_neutral,
    constant=(".relative_position_index",),
)


# ImageNet ResNets

_RESNET_DEPTHS = {"resnet18": (2, 2, 2), "resnet50": (3, 4, 6)}


def _architecture(entries: Mapping[str, Tensor]) -> Options:
    return {"architecture": "resnet50" if "layer1.0.conv3.weight" in entries else "resnet18"}


def _fresh_resnet(options: Options) -> Entries:
    kind = options["architecture"]
    return dict(ResNet(bottleneck=kind == "resnet50", depths=_RESNET_DEPTHS[kind]).state_dict())


RESNET = Format(
    name="resnet-imagenet",
    about="torchvision's ResNet-18 and ResNet-50",
    mark="layer1.0.conv1.",
    options=_architecture,
    variants=("architecture",),
    fresh=_fresh_resnet,
    unused=("layer4.", "fc."),
)
