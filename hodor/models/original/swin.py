"""Swin-T checkpoints that HODOR may start from: a COCO detector's (as published), or an ImageNet classifier's.

A detector's file (`{state_dict: {backbone.*, neck.*, heads}}`) gives the backbone and the pyramid. An ImageNet file
(`{model: entries}`) gives the backbone without the norms of its four maps, and no pyramid: a start from it is a
different experiment from the published one, whose starting weights have seen COCO's boxes and masks (specification
section 1), and its results must say so.

Both become a file with our names `backbone.*` and `pyramid.*` of HODOR's network. Names: specification section 12.
"""

import re

import torch

from hodor.models.fpn import FeaturePyramid
from hodor.models.original.format import Entries, Format, Options, renaming
from hodor.models.swin import WINDOW, Swin, shifted_window_mask

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
    """The pyramid's outputs at strides 16 and 32, which HODOR never reads."""
    out = {}
    for level in (2, 3):
        out[f"neck.fpn_convs.{level}.conv.weight"] = torch.zeros(DIM, DIM, 3, 3)
        out[f"neck.fpn_convs.{level}.conv.bias"] = torch.zeros(DIM)
    return out


_to_detector, _from_detector = renaming(_detector_name)

DETECTION = Format(
    name="swin-detection",
    about="Mask R-CNN and Cascade Mask R-CNN detectors with Swin-T and a feature pyramid",
    mark="backbone.patch_embed.",
    to_ours=_from_detector,
    to_original=_to_detector,
    fresh=_fresh_detector,
    wrapper="state_dict",
    neutral=_detector_neutral,
    unused=("rpn_head.", "roi_head."),
    constant=(".relative_position_index",),
)


# An ImageNet classifier


def _fresh_classifier(options: Options) -> Entries:
    """The backbone without the norms of its maps, which a classifier does not have."""
    return {name: value for name, value in _backbone().items() if not re.match(r"backbone\.norm\d\.", name)}


def _classifier_neutral(options: Options) -> Entries:
    """The classifier's last norm and head, and the masks that its shifted blocks keep for images of 224 x 224."""
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
            if side > WINDOW:  # one window alone is not shifted
                mask = shifted_window_mask(side, side, WINDOW // 2, torch.device("cpu"))
                out[f"layers.{stage}.blocks.{block}.attn_mask"] = mask
    return out


_to_classifier, _from_classifier = renaming(lambda name: name.removeprefix("backbone."))

IMAGENET = Format(
    name="swin-imagenet",
    about="ImageNet-1k classifiers with Swin-T at 224 x 224",
    mark="patch_embed.",
    to_ours=_from_classifier,
    to_original=_to_classifier,
    fresh=_fresh_classifier,
    wrapper="model",
    neutral=_classifier_neutral,
    constant=(".relative_position_index",),
)
