"""The verb `convert`: original checkpoints to files of this project and back."""

import json
from pathlib import Path
from typing import Any

from hodor.config.loading import options_class
from hodor.errors import HodorError
from hodor.models.base import build_method, load_weights, read_weights, save_model
from hodor.models.checkpoints.convert import convert_to_original, convert_to_ours, require
from hodor.models.checkpoints.files import ENDINGS, read_checkpoint, write_checkpoint
from hodor.models.checkpoints.formats import Format, Options
from hodor.models.checkpoints.load import format_named, format_of_method, recognise
from hodor.models.checkpoints.weight_sets import METADATA, save_weights

OURS = ".safetensors"


def convert(source: Path, target: Path, format: str | None = None) -> None:
    """Convert an original checkpoint (.pth, .pt, .pkl, .bin) to .safetensors or back, and print a report of all entries.

    A converted release can be loaded like a trained row (`load_model`).

    Args:
        source: the file to read.
        target: the file to write; its folder is created if absent.
        format: an id of `FORMATS`; None: recognised from the entries, or recorded in our file.

    Raises:
        HodorError: unknown endings, a file that cannot be read or written, or entries that are missing, unexpected or of
            another shape. Nothing is written then.
    """
    source, target = Path(source), Path(target)
    inward = source.suffix in ENDINGS and target.suffix == OURS
    if not inward and not (source.suffix == OURS and target.suffix in ENDINGS):
        raise HodorError(
            f"{source} to {target}: use an original checkpoint ({', '.join(ENDINGS)}) and a file that ends in {OURS}"
        )
    if target.is_dir():
        raise HodorError(f"{target}: is a folder; name the file to write")
    chosen = format_named(format) if format else None
    (_to_ours if inward else _to_original)(source, target, chosen)
    print(f"{target}: written")


def _to_ours(source: Path, target: Path, format: Format | None) -> None:
    entries = read_checkpoint(source)
    kind = format or recognise(entries, source)
    weights, options, report = convert_to_ours(kind, entries)
    report.recognised = format is None
    print("\n".join([str(source), *report.lines()]))
    require(report, source)
    _make_folder(target)
    if kind.method is None:
        save_weights(target, weights, kind, options)
        return
    full = _complete(kind.method, options)
    method = build_method(kind.method, full)
    load_weights(method, weights, source)
    save_model(target, method, name=kind.method, options=full)


def _to_original(source: Path, target: Path, format: Format | None) -> None:
    weights, metadata = read_weights(source)
    kind, options = _recorded(source, metadata)
    if format is not None and format.name != kind.name:
        raise HodorError(f"{source}: holds weights for format {kind.name}, not {format.name}")
    entries, report = convert_to_original(kind, weights, options)
    report.notes += _lost(kind, options)
    print("\n".join([str(source), *report.lines()]))
    require(report, source)
    _make_folder(target)
    write_checkpoint(target, entries, kind.wrapper)


def _recorded(source: Path, metadata: dict[str, str]) -> tuple[Format, Options]:
    """Return format and options of a file of this project."""
    if "model" in metadata:
        model = json.loads(metadata["model"])
        return format_of_method(model["method"]), model["options"]
    if METADATA in metadata:
        recorded = json.loads(metadata[METADATA])
        return format_named(recorded["format"]), recorded["options"]
    raise HodorError(
        f"{source}: neither a method nor a format in its metadata; use a file written by `hodor train` or `convert`"
    )


def _lost(format: Format, options: Options) -> list[str]:
    """Report options that differ from the release's and are not part of its format."""
    if format.method is None:
        return []
    usual = _complete(format.method, {key: options[key] for key in format.variants if key in options})
    other = sorted(key for key, value in options.items() if value != usual.get(key))
    return [f"options that are not part of the format: {', '.join(other)}"] if other else []


def _complete(method: str, options: Options) -> dict[str, Any]:
    """Complete a method's options with their defaults, as a model file records them."""
    cls = options_class(method)
    return cls(**options).model_dump(mode="json") if cls else {}


def _make_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HodorError(f"{target.parent}: cannot create the folder ({error.strerror}); choose another one") from error
