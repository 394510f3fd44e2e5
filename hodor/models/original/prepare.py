"""The verb `prepare` for weight sets: checkpoints from elsewhere become files with our names, whole or not at all."""

import os
import re
import shutil
from pathlib import Path

from hodor.config.datasets import WEIGHT_SETS
from hodor.data.prepare import check_archives, write_manifest
from hodor.errors import HodorError
from hodor.models.original.weight_sets import convert_archive
from hodor.provenance import sha256_file


def prepare_weights(stamp: dict, archives: Path, out: Path, manifest: Path) -> None:
    """Converts the archives of a weight set to `out` and writes its manifest.

    Args:
        stamp: `settings` holds `dataset` (the weight set) and `edition`.
        archives: folder with the archives and the `archives.json` of `fetch`.
        out: folder of the weight set, replaced.
        manifest: JSON file as of any data set; `splits` maps each file to its numbers of entries and values.

    Raises:
        HodorError: an archive is missing, damaged, or not the checkpoint that its name says.
    """
    settings, archives, out, manifest = stamp["settings"], Path(archives), Path(out), Path(manifest)
    dataset, edition = settings["dataset"], settings["edition"]
    if dataset not in WEIGHT_SETS:
        raise HodorError(f"stamp: unknown weight set {dataset!r}; there are {', '.join(WEIGHT_SETS)}")
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
        report = convert_archive(archives / archive, target, dataset)
        print("\n".join([f"{archive} -> {target.name}", *report.lines()]), flush=True)
        splits[name] = {"entries": len(report.converted), "values": report.values}
        digests[target.name] = sha256_file(target)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    write_manifest(manifest, dataset, edition, splits, digests, known)


def _check_name(archive: Path, sha256: str) -> None:
    """PyTorch's own weights carry the start of their checksum in their name: `resnet18-f37072fd.pth`."""
    if (found := re.search(r"-([0-9a-f]{8})\.pth$", archive.name)) and not sha256.startswith(found[1]):
        raise HodorError(f"{archive}: its sha256 starts with {sha256[:8]}, not as its name says; fetch it again")
