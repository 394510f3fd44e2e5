"""The verb `convert`: an original checkpoint becomes a file of ours, or the other way round."""

import json
from pathlib import Path
from typing import Any

from hodor.config.loading import options_class
from hodor.errors import HodorError
from hodor.models.base import build_method, load_weights, read_weights, save_model
from hodor.models.original.checkpoint import ENDINGS, read_checkpoint, write_checkpoint
from hodor.models.original.convert import convert_to_original, convert_to_ours, require
from hodor.models.original.format import Format, Options
from hodor.models.original.formats import format_named, format_of_method, recognise
from hodor.models.original.weight_sets import METADATA, save_weights

OURS = ".safetensors"


def convert(source: Path, target: Path, format: str | None = None) -> None:
    """Converts by the endings: an original checkpoint (.pth, .pt, .pkl, .bin) to .safetensors, or back.

    What becomes of every entry is printed. A converted release loads as any trained row does (`load_model`).

    Args:
        source: the file to read.
        target: the file to write, replaced at the end; its folder is made where absent.
        format: an id of `FORMATS`; None: told from the names of the entries, or recorded in our file.

    Raises:
        HodorError: endings that do not fit, a file that cannot be read or written, entries that are missing, unexpected
            or of another shape. Nothing is written then.
    """
    source, target = Path(source), Path(target)
    directions = {True: _to_ours, False: _to_original}
    inward = source.suffix in ENDINGS and target.suffix == OURS
    if not inward and not (source.suffix == OURS and target.suffix in ENDINGS):
        raise HodorError(
            f"{source} to {target}: one must be an original checkpoint ({', '.join(ENDINGS)}), the other end in {OURS}"
        )
    if target.is_dir():
        raise HodorError(f"{target}: is a folder; give the file to write")
    chosen = format_named(format) if format else None
    directions[inward](source, target, chosen)
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
    """Format and options of a file of ours."""
    if "model" in metadata:
        model = json.loads(metadata["model"])
        return format_of_method(model["method"]), model["options"]
    if METADATA in metadata:
        recorded = json.loads(metadata[METADATA])
        return format_named(recorded["format"]), recorded["options"]
    raise HodorError(f"{source}: no file of this project (neither its method nor its format is recorded)")


def _lost(format: Format, options: Options) -> list[str]:
    """Options other than the release's that its format cannot hold, in a line."""
    if format.method is None:
        return []
    usual = _complete(format.method, {key: options[key] for key in format.variants if key in options})
    other = sorted(key for key, value in options.items() if value != usual.get(key))
    return [f"options that the format does not hold: {', '.join(other)}"] if other else []


def _complete(method: str, options: Options) -> dict[str, Any]:
    """All options of a method, those not given at their defaults, as a model file records them."""
    cls = options_class(method)
    return cls(**options).model_dump(mode="json") if cls else {}


def _make_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HodorError(f"{target.parent}: cannot be made ({error.strerror}); give another folder") from error
