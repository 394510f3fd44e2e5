"""Prepare weight sets: original checkpoints become files of initial weights with our names (`hodor prepare`).

The ids and archives are in `hodor.config.datasets.WEIGHT_SETS`.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hodor.config.datasets import WEIGHT_SETS
from hodor.data.prepare import check_archives, write_manifest
from hodor.errors import HodorError
from hodor.models.base import write_weights
from hodor.models.checkpoints import backbones
from hodor.models.checkpoints.convert import convert_to_ours, require
from hodor.models.checkpoints.files import read_checkpoint
from hodor.models.checkpoints.formats import Format, Options
from hodor.provenance import sha256_file

METADATA = "weights"
"""Key of a file's metadata: JSON with the original `format` and its `options`."""

FORMATS = {
    "swin-tiny-mask-rcnn-3x": backbones.DETECTION,
    "swin-tiny-imagenet": backbones.IMAGENET,
    "resnet-imagenet": backbones.RESNET,
}
"""Weight set -> format of its archives."""


def prepare_weights(stamp: dict, archives: Path, out: Path, manifest: Path) -> None:
    """Convert the archives of a weight set to `out` and write its manifest.

    Args:
        stamp: `settings` holds `dataset` (the weight set) and `edition`.
        archives: folder with the archives and the `archives.json` of `fetch`.
        out: folder of the weight set, replaced.
        manifest: JSON file as of a data set; `splits` maps each file to its numbers of entries and values.

    Raises:
        HodorError: an archive is missing, damaged or another checkpoint.
    """
    settings, archives, out, manifest = stamp["settings"], Path(archives), Path(out), Path(manifest)
    dataset, edition = settings["dataset"], settings["edition"]
    if dataset not in WEIGHT_SETS:
        raise HodorError(f"stamp: unknown weight set {dataset!r}; use one of {', '.join(WEIGHT_SETS)}")
    manifest.unlink(missing_ok=True)
    known = check_archives(dataset, archives)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    splits, digests = {}, {}
    for archive, name in WEIGHT_SETS[dataset].items():
        if edition == "official":
            _check_name(archives / archive, known[archive])
        target = part / f"{name}.safetensors"
        format = FORMATS[dataset]
        weights, options, report = convert_to_ours(format, read_checkpoint(archives / archive))
        require(report, archives / archive)
        save_weights(target, weights, format, options)
        print("\n".join([f"{archive} -> {target.name}", *report.lines()]), flush=True)
        splits[name] = {"entries": len(report.converted), "values": report.values}
        digests[target.name] = sha256_file(target)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    write_manifest(manifest, dataset, edition, splits, digests, known)


def save_weights(path: Path, weights: Mapping[str, Tensor], format: Format, options: Options) -> None:
    """Write initial weights with their original format in the metadata, atomically."""
    write_weights(path, weights, METADATA, {"format": format.name, "options": options})


def _check_name(archive: Path, sha256: str) -> None:
    """Check the start of the checksum that PyTorch's own weights have in their names: `resnet18-f37072fd.pth`."""
    if (found := re.search(r"-([0-9a-f]{8})\.pth$", archive.name)) and not sha256.startswith(found[1]):
        raise HodorError(
            f"{archive}: its sha256 starts with {sha256[:8]}, its name requires {found[1]}; download it again"
        )
