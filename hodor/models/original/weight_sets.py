"""Weight sets: starting weights from elsewhere, which a scale lists and prepares like a data set.

An archive of a weight set is an original checkpoint; it becomes `<name>.safetensors` with our names. The ids and
archives are in `hodor.config.datasets.WEIGHT_SETS`.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hodor.models.base import write_weights
from hodor.models.original import resnet, swin
from hodor.models.original.checkpoint import read_checkpoint
from hodor.models.original.convert import convert_to_ours, require
from hodor.models.original.format import Format, Options, Report

METADATA = "weights"
"""Key of a file's metadata: JSON with the `format` that the weights came in and its `options`."""

FORMATS = {
    "swin-tiny-mask-rcnn-3x": swin.DETECTION,
    "swin-tiny-imagenet": swin.IMAGENET,
    "resnet-imagenet": resnet.RESNET,
}
"""Weight set -> format of all its archives."""


def convert_archive(archive: Path, target: Path, weight_set: str) -> Report:
    """Converts one archive of a weight set, strictly; HodorError where an entry has no place or none is there."""
    format = FORMATS[weight_set]
    weights, options, report = convert_to_ours(format, read_checkpoint(archive))
    require(report, archive)
    save_weights(target, weights, format, options)
    return report


def save_weights(path: Path, weights: Mapping[str, Tensor], format: Format, options: Options) -> None:
    """Writes starting weights with the format that they came in, atomically (`write_weights`)."""
    write_weights(path, weights, METADATA, {"format": format.name, "options": options})
