"""Released checkpoints as entries, as methods, as runs and as weight sets; reading never runs code from a file."""

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
from hodor.data.prepare import check_archives, write_manifest
from hodor.errors import HodorError
from hodor.models.base import Method, build_method, load_weights, save_model, write_weights
from hodor.models.checkpoints.convert import Entries, Format, Options, Report, convert_to_ours
from hodor.models.checkpoints.releases import DETECTION, IMAGENET, RESNET, recognise
from hodor.provenance import cost, sha256_file, write_json_atomic, write_text_atomic

ENDINGS = (".pth", ".pt", ".pkl", ".bin")

METADATA = "weights"
"""Key of the metadata of initial weights: JSON with the original `format` and its `options`."""

_WRAPPERS = ("model", "state_dict", "network")
_WEIGHT_SETS = {"swin-tiny-mask-rcnn-3x": DETECTION, "swin-tiny-imagenet": IMAGENET, "resnet-imagenet": RESNET}


# Files


def read_checkpoint(path: Path) -> Entries:
    """Read the entries of a checkpoint of tensors, without the release's wrapper.

    Raises:
        HodorError: the file is missing, empty, damaged, no checkpoint, or holds objects other than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such checkpoint; check the path") from None
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # the unpickler raises almost any exception on damaged files
        # The error of torch names the refused object, or reports that something is no plain list or dict.
        if found := re.search(r"GLOBAL ([\w.]+)|(Can only) ", str(error)):
            raise HodorError(
                f"{path}: holds more than tensors ({found[1] or 'an object'}), which would need code from the file; none "
                "was run. Use a file of tensors only"
            ) from error
        raise HodorError(f"{path}: damaged, truncated or no PyTorch checkpoint; download it again") from error
    if isinstance(content, Mapping) and not _is_entries(content):
        wrapped = (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping))
        content = next(wrapped, content)
    if not _is_entries(content):
        held = ", ".join(sorted(map(str, content))[:6]) if isinstance(content, Mapping) else type(content).__name__
        raise HodorError(
            f"{path}: no named tensors, neither at the top nor under {', '.join(_WRAPPERS)} (it holds {held or 'nothing'}); "
            "use a released checkpoint"
        )
    return {name: value.detach() for name, value in content.items()}


def _is_entries(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
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


# Methods and runs


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
        HodorError: the file is missing, damaged, faulty or of no known release, or holds only a backbone.
    """
    entries = read_checkpoint(path)
    kind = recognise(entries, path)
    if kind.method is None:
        raise HodorError(f"{path}: holds only a backbone ({kind.name}); use the checkpoint of a whole network")
    weights, options, report = convert_to_ours(kind, entries)
    report.require(path)
    return kind.method, build_converted(kind, options, weights, path), report


def adopt(stamp: dict[str, Any], checkpoint: Path, out: Path) -> None:
    """Convert a released checkpoint to a run: `out/model.safetensors` and `out/train.json`.

    Args:
        stamp: its settings name the expected `method`.
        checkpoint: as released by its authors.
        out: run folder.

    Raises:
        HodorError: the checkpoint is missing, damaged, faulty or of another method.
    """
    settings, began = stamp["settings"], time.monotonic()
    name, method, report = load_original(checkpoint)
    if name != settings["method"]:
        raise HodorError(
            f"{checkpoint}: a checkpoint of {name}, but config/rows.yaml names {settings['method']}; put the right file there"
        )
    print("\n".join([str(checkpoint), *report.lines()]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    options = method.options.model_dump(mode="json")  # methods with a release have options
    save_model(out / "model.safetensors", method, name=name, options=options)
    write_text_atomic(out / "train.jsonl", "")  # no training, no log
    write_json_atomic(
        out / "train.json",
        {
            "stamp": stamp["sha256"],
            "stamp_content": {key: value for key, value in stamp.items() if key != "sha256"},
            "inputs": {"checkpoint": sha256_file(checkpoint)},
            "model": sha256_file(out / "model.safetensors"),
            "log": sha256_file(out / "train.jsonl"),
            "parameters": sum(parameter.numel() for parameter in method.parameters()),
            "steps": 0,
            **cost(time.monotonic() - began),
        },
    )


# Weight sets


def prepare_weights(stamp: dict, archives: Path, out: Path, manifest: Path) -> None:
    """Convert the archives of a weight set to files of initial weights in `out` and write its manifest.

    Args:
        stamp: `settings` holds `dataset` (the weight set) and `edition`.
        archives: folder with the archives and the `archives.json` of `fetch`.
        out: folder of the weight set, replaced.
        manifest: JSON file as of a data set; `splits` maps each file to its numbers of entries and values.

    Raises:
        HodorError: an archive is missing, damaged or another checkpoint.
    """
    settings, archives, out, manifest = stamp["settings"], Path(archives), Path(out), Path(manifest)
    dataset = settings["dataset"]
    manifest.unlink(missing_ok=True)
    known = check_archives(dataset, archives)
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
        splits[name] = {"entries": len(report.converted), "values": report.values}
        digests[target.name] = sha256_file(target)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    head = {"dataset": dataset, "edition": settings["edition"], "splits": splits}
    write_manifest(manifest, head, digests, {"archives": known})
