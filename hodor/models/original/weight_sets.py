"""Weight sets: starting weights from elsewhere, which a scale lists and prepares like a data set.

An archive of a weight set is an original checkpoint; it becomes `<name>.safetensors` with our names. The ids and
archives are in `hodor.data.sources.WEIGHT_SETS`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hodor.errors import HodorError
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
    """Writes starting weights with the format that they came in, atomically.

    Raises:
        HodorError: the disk is full or the folder cannot be written.
    """
    metadata = {METADATA: json.dumps({"format": format.name, "options": options}, sort_keys=True)}
    # Cloned: safetensors refuses entries that share memory.
    plain = {name: value.detach().contiguous().clone() for name, value in weights.items()}
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(plain, temporary, metadata=metadata)
        temporary.chmod(0o644)  # readable as any other output
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise HodorError(f"{path}: could not write the weights ({error}); free space or mend the folder") from error
