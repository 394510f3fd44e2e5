"""Read released checkpoints, and import them as methods, runs and weight sets. No code from a file is executed."""

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hodor.config.datasets import WEIGHT_SETS
from hodor.data.files import put_in_place
from hodor.data.prepare import check_archives, write_manifest
from hodor.errors import HodorError
from hodor.models.base import Method, build_method, load_weights, save_run, write_weights
from hodor.models.checkpoints.convert import Entries, Format, Options, Report, convert_to_ours
from hodor.models.checkpoints.releases import DETECTION, IMAGENET, RESNET, recognise
from hodor.provenance import sha256_file

ENDINGS = (".pth", ".pt", ".pkl", ".bin")

METADATA = "weights"
"""Key of the metadata of initial weights: JSON with the original `format` and its `options`."""

_WRAPPERS = ("model", "state_dict", "network")
_WEIGHT_SETS = {"swin-tiny-mask-rcnn-3x": DETECTION, "swin-tiny-imagenet": IMAGENET, "resnet-imagenet": RESNET}


def read_checkpoint(path: Path) -> Entries:
    """Read the entries of a checkpoint, without the release's wrapper.

    Raises:
        HodorError: the file is missing, empty, damaged, no checkpoint, or contains objects other than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such checkpoint; check the path") from None
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # the unpickler raises almost any exception on damaged files
        # torch's error names the refused object, or reports that something is no plain list or dict.
        if found := re.search(r"GLOBAL ([\w.]+)|(Can only) ", str(error)):
            raise HodorError(
                f"{path}: contains more than tensors ({found[1] or 'an object'}), which would need code from the file; "
                "none was executed. Use a file of tensors only"
            ) from error
        raise HodorError(f"{path}: damaged, truncated or no PyTorch checkpoint; download it again") from error
    known = isinstance(content, Mapping)
    for entries in (content, *(content.get(key) for key in _WRAPPERS)) if known else ():
        if isinstance(entries, Mapping) and entries and all(isinstance(value, Tensor) for value in entries.values()):
            return {str(name): value.detach() for name, value in entries.items()}
    found = ", ".join(sorted(map(str, content))[:6]) if known else type(content).__name__
    raise HodorError(
        f"{path}: no named tensors, neither at the top nor under {', '.join(_WRAPPERS)} (it contains {found or 'nothing'}); "
        "use a released checkpoint"
    )


def write_checkpoint(path: Path, entries: Entries, wrapper: str | None) -> None:
    """Write original entries, under the key `wrapper` if there is one, atomically.

    Raises:
        HodorError: the disk is full or the folder cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in entries.items()}
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            torch.save({wrapper: plain} if wrapper else plain, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write in a RuntimeError
        temporary.unlink(missing_ok=True)
        raise HodorError(f"{path}: cannot write the checkpoint ({error}); check free space and permissions") from error


def save_initial_weights(path: Path, weights: Mapping[str, Tensor], format: Format, options: Options) -> None:
    """Write initial weights with their original format in the metadata, atomically."""
    write_weights(path, weights, METADATA, {"format": format.name, "options": options})


def build_converted(kind: Format, options: Options, weights: dict[str, Tensor], path: Path) -> Method:
    """Build the method of a converted release, in evaluation mode; `path` is for error messages."""
    method = build_method(kind.method, options)
    load_weights(method, weights, path)
    return method.eval()


def load_original(path: Path) -> tuple[str, Method, Report]:
    """Load a released checkpoint without converting it to a file; as strict as `hodor convert`.

    Returns:
        Method id, method in evaluation mode, report of the conversion.

    Raises:
        HodorError: the file is missing, damaged, of no known release, or contains only a backbone.
    """
    entries = read_checkpoint(path)
    kind = recognise(entries, path)
    if kind.method is None:
        raise HodorError(f"{path}: contains only a backbone ({kind.name}); use the checkpoint of a whole network")
    weights, options, report = convert_to_ours(kind, entries)
    report.require(path)
    return kind.method, build_converted(kind, options, weights, path), report


def import_release(stamp: dict[str, Any], checkpoint: Path, out: Path) -> None:
    """Convert a released checkpoint to the run folder `out`.

    Raises:
        HodorError: the checkpoint is missing, damaged or not of the method that the stamp's settings name.
    """
    settings, began = stamp["settings"], time.monotonic()
    name, method, report = load_original(checkpoint)
    if name != settings["method"]:
        raise HodorError(
            f"{checkpoint}: a checkpoint of {name}, but config/rows.yaml names {settings['method']}; replace the file"
        )
    print("\n".join([str(checkpoint), *report.lines()]), flush=True)
    options = method.options.model_dump(mode="json")
    inputs = {"checkpoint": sha256_file(checkpoint)}
    save_run(out, method, stamp, options=options, seconds=time.monotonic() - began, log="", inputs=inputs, steps=0)


def prepare_weights(stamp: dict, archives: Path, out: Path, manifest: Path) -> None:
    """Convert the archives of a weight set to files of initial weights in `out` and write its manifest.

    Args:
        stamp: its settings name the `dataset` (the weight set) and the `edition`.
        archives: folder with the archives and the `archives.json` of `fetch`.
        out: folder of the weight set, replaced.
        manifest: JSON file as for a data set; `splits` maps each file to its numbers of entries and values.

    Raises:
        HodorError: an archive is missing, damaged or another checkpoint.
    """
    dataset, edition = stamp["settings"]["dataset"], stamp["settings"]["edition"]
    known = check_archives(dataset, archives)
    manifest.unlink(missing_ok=True)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    format, splits, digests = _WEIGHT_SETS[dataset], {}, {}
    for archive, name in WEIGHT_SETS[dataset].items():
        target = part / f"{name}.safetensors"
        weights, options, report = convert_to_ours(format, read_checkpoint(archives / archive))
        report.require(archives / archive)
        save_initial_weights(target, weights, format, options)
        print("\n".join([f"{archive} -> {target.name}", *report.lines()]), flush=True)
        splits[name] = {"entries": report.converted, "values": report.values}
        digests[target.name] = sha256_file(target)
    put_in_place(part, out)
    head = {"dataset": dataset, "edition": edition, "splits": splits}
    write_manifest(manifest, head, digests, {"archives": known})
