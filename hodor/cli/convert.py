"""The verb `convert`: original checkpoints to .safetensors files of this project and back; runs to folders for others."""

import json
from pathlib import Path

from hodor.config.rows import options_class
from hodor.errors import HodorError
from hodor.inference.pretrained import CARD, save_pretrained
from hodor.inference.weights import CONFIG, MODEL, open_weights
from hodor.models.base import read_weights, save_model
from hodor.models.checkpoints.convert import Format, Options, convert_to_original, convert_to_ours
from hodor.models.checkpoints.load import (
    ENDINGS,
    METADATA,
    build_converted,
    read_checkpoint,
    save_initial_weights,
    write_checkpoint,
)
from hodor.models.checkpoints.releases import FORMATS, format_named, recognise

OURS = ".safetensors"


def convert(source: Path, target: Path, format: str | None = None, *, half: bool = False) -> None:
    """Convert an original checkpoint (.pth, .pt, .pkl, .bin) to .safetensors or back, and print a report of all entries.

    A converted release can be loaded like a trained row (`load_model`). A run folder becomes a folder in the form of the
    Hugging Face Hub (`save_pretrained`).

    Args:
        source: file or run folder to read.
        target: file or folder to write; its parent is created if absent.
        format: id of `FORMATS`. None: recognised from the entries, or recorded in the .safetensors file.
        half: store the weights of a run folder as float16.

    Raises:
        HodorError: unknown endings, a file that cannot be read or written, or entries that are missing, unexpected or of
            another shape; nothing is written.
    """
    source, target = Path(source), Path(target)
    if source.is_dir():
        save_pretrained(open_weights(source), target, half=half)
        print(f"{target}: {MODEL}, {CONFIG}, {CARD}")
        return
    if not source.exists():
        raise HodorError(f"{source}: no such file or folder; check the path")
    if half:
        raise HodorError(f"{source}: --half is for a run folder, whose weights are converted for others")
    inward = source.suffix in ENDINGS and target.suffix == OURS
    if not inward and not (source.suffix == OURS and target.suffix in ENDINGS):
        raise HodorError(
            f"{source} to {target}: use an original checkpoint ({', '.join(ENDINGS)}) and a file that ends in {OURS}"
        )
    if target.is_dir():
        raise HodorError(f"{target}: is a folder; give a file to write")
    chosen = format_named(format) if format else None
    (_to_ours if inward else _to_original)(source, target, chosen)
    print(f"{target}: written")


def _to_ours(source: Path, target: Path, format: Format | None) -> None:
    entries = read_checkpoint(source)
    kind = format or recognise(entries, source)
    weights, options, report = convert_to_ours(kind, entries)
    print("\n".join([str(source), *report.lines()]))
    report.require(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind.method is None:
        save_initial_weights(target, weights, kind, options)
    else:
        method = build_converted(kind, options, weights, source)
        save_model(target, method, name=kind.method, options=method.options.model_dump(mode="json"))


def _to_original(source: Path, target: Path, format: Format | None) -> None:
    weights, metadata = read_weights(source)
    kind, options = _recorded(source, metadata)
    if format is not None and format.name != kind.name:
        raise HodorError(f"{source}: holds weights for format {kind.name}, not {format.name}")
    entries, report = convert_to_original(kind, weights, options)
    print("\n".join([str(source), *report.lines()]))
    if kind.method is not None:
        usual = options_class(kind.method)(**{key: options[key] for key in kind.options({})}).model_dump(mode="json")
        if other := sorted(key for key, value in options.items() if value != usual.get(key)):
            print(f"options that are not part of the format: {', '.join(other)}")
    report.require(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(target, entries, kind.wrapper)


def _recorded(source: Path, metadata: dict[str, str]) -> tuple[Format, Options]:
    """Return format and options of a file of this project."""
    try:
        if "model" in metadata:
            model = json.loads(metadata["model"])
            method, options = str(model["method"]), dict(model["options"])
            for format in FORMATS.values():
                if format.method == method:
                    return format, options
            raise HodorError(
                f"{source}: a model of {method}, which has no released checkpoints; convert one of hodor, stm, stcn"
            )
        if METADATA in metadata:
            recorded = json.loads(metadata[METADATA])
            return format_named(str(recorded["format"])), dict(recorded["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise HodorError(f"{source}: damaged metadata ({error!r}); copy it or make it again") from None
    raise HodorError(f"{source}: no method or format in its metadata; use a file of `hodor train` or `hodor convert`")
