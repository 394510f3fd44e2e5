"""The known formats, and released checkpoints as methods and as runs."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hodor.errors import HodorError
from hodor.models.base import Method, build_method, load_weights, save_model
from hodor.models.checkpoints import backbones, releases
from hodor.models.checkpoints.convert import convert_to_ours, require
from hodor.models.checkpoints.files import read_checkpoint
from hodor.models.checkpoints.formats import Format, Report
from hodor.provenance import (
    commit,
    machine,
    peak_memory_mib,
    sha256_file,
    versions,
    write_json_atomic,
    write_text_atomic,
)

FORMATS = {
    format.name: format
    for format in (
        releases.HODOR,
        backbones.DETECTION,
        backbones.IMAGENET,
        backbones.RESNET,
        releases.STM,
        releases.STCN,
    )
}
"""Id -> format."""


def format_named(name: str) -> Format:
    """Look up a format by name; HodorError if there is none."""
    if name not in FORMATS:
        known = "; ".join(f"{format.name} ({format.about})" for format in FORMATS.values())
        raise HodorError(f"--format {name}: unknown format; use one of {known}")
    return FORMATS[name]


def format_of_method(method: str) -> Format:
    """Look up the format of a method's release; HodorError if there is none."""
    for format in FORMATS.values():
        if format.method == method:
            return format
    raise HodorError(f"method {method}: its authors released no checkpoints; convert a model of hodor, stm or stcn")


def recognise(names: Collection[str], source: object) -> Format:
    """Recognise the format of a checkpoint from the names of its entries.

    Raises:
        HodorError: no format or several formats match.
    """
    found = [
        format
        for format in FORMATS.values()
        if any(name.startswith((format.mark, f"module.{format.mark}")) for name in names)
    ]
    if len(found) != 1:
        what = "of several formats" if found else f"of no known format (its first entry is {min(names)})"
        raise HodorError(f"{source}: a checkpoint {what}; set --format to one of {', '.join(FORMATS)}")
    return found[0]


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
        raise HodorError(f"{path}: holds only a backbone ({kind.about}); use the checkpoint of a whole network")
    weights, options, report = convert_to_ours(kind, entries)
    report.recognised = True
    require(report, path)
    method = build_method(kind.method, options)
    load_weights(method, weights, path)
    return kind.method, method.eval(), report


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
            "time_s": round(time.monotonic() - began, 2),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        },
    )
