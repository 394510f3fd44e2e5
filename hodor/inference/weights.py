"""Weights that a user names, whatever they are: a run folder, a model file of ours, an authors' checkpoint.

The inference settings belong to the weights: a run's are those that its benchmark was segmented with (its record or
its stamp); weights without a record take the published ones of their method (scale `paper`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hodor.config.inference import InferenceOptions
from hodor.config.loading import load, scale_names
from hodor.config.reading import validate
from hodor.errors import HodorError
from hodor.models.base import Method, load_model
from hodor.models.checkpoints.files import ENDINGS
from hodor.models.checkpoints.load import load_original
from hodor.provenance import read_json

MODEL = "model.safetensors"
FIRST_BENCHMARK = "davis2017-val"
"""The benchmark whose settings a run of several benchmarks lends."""


@dataclass(frozen=True)
class Loaded:
    """A method ready to segment (evaluation mode, on the CPU).

    name: its id. file: what was read. settings_from: where its inference settings are from, for a person. precision:
    that of the run, `float32` where none is recorded.
    """

    name: str
    method: Method
    file: Path
    settings_from: str
    precision: str


def open_weights(weights: str | Path, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Loads a method with its weights.

    Args:
        weights: a run folder (`runs/mini/hodor-soft-coco/seed0`), a .safetensors of this project, or an original
            checkpoint of HODOR, STM or STCN (.pth, .pt, .pkl, .bin), which is converted in memory.
        overrides: inference settings (fields of `InferenceOptions`) that replace the weights' own.

    Raises:
        HodorError: nothing there, a file of another kind, broken or not of a network known here, or unknown settings.
    """
    given = Path(weights)
    file = given / MODEL if given.is_dir() else given
    if given.is_dir() and not file.is_file():
        raise HodorError(
            f"{given}: no run folder, it holds no {MODEL}; give runs/<scale>/<row>/seed<k> of a trained row, or a file"
        )
    if not file.is_file():
        raise HodorError(f"{file}: no such weights; give a run folder, a .safetensors, or a checkpoint of the authors")
    if file.suffix in ENDINGS:
        name, method, _ = load_original(file)
    elif file.suffix == ".safetensors":
        name, method = load_model(file)
    else:
        raise HodorError(
            f"{file}: unknown kind of weights; give a run folder, a .safetensors, or an original checkpoint "
            f"({', '.join(ENDINGS)})"
        )
    settings, precision, told = _recorded(file.parent) if file.name == MODEL else ({}, None, "")
    if not told:
        settings, told = _published(name)
    method.inference = _merge(settings, dict(overrides or {}))
    return Loaded(name, method.eval(), file, told, precision or "float32")


def _recorded(run: Path) -> tuple[dict[str, Any], str | None, str]:
    """Inference settings and precision that a run's benchmark was segmented with, and where they stand; or nothing."""
    records = {path.parent.name: path for path in run.glob("*/segment.json")}
    stamps = run.parent.parent / "stamps"
    prefix = f"segment-{run.parent.name}-{run.name}-"
    planned = {path.stem.removeprefix(prefix): path for path in stamps.glob(f"{prefix}*.json")}
    for found in (records, planned):
        for benchmark in sorted(found, key=lambda name: (name != FIRST_BENCHMARK, name)):
            content = read_json(found[benchmark])
            settings = content.get("stamp_content", content).get("settings") or {}
            if "inference" in settings:
                return settings["inference"], settings.get("precision"), str(found[benchmark])
    return {}, None, ""


def _published(name: str) -> tuple[dict[str, Any], str]:
    """The published inference settings of a method: those of its first trained row at scale `paper`."""
    folder = Path(__file__).resolve().parents[2] / "config"
    if "paper" in scale_names(folder):
        config = load(folder, {"scale": "paper", "rows": "all", "overrides": {}})
        for row, entry in config.rows.items():
            if entry.method == name and entry.stage is not None:
                return config.inference(row, FIRST_BENCHMARK).model_dump(), f"scale paper, row {row}"
    return {}, "the defaults"


def _merge(settings: dict[str, Any], overrides: dict[str, Any]) -> InferenceOptions:
    """The settings with those that a person gave; the long side keeps its ratio to another short side."""
    merged = validate(InferenceOptions, settings | overrides, "inference settings")
    before = InferenceOptions(**settings)
    if "short_side" in overrides and "long_side" not in overrides:
        ratio = merged.short_side / before.short_side
        merged = merged.model_copy(update={"long_side": max(32, round(before.long_side * ratio))})
    return merged


def describe(loaded: Loaded) -> str:
    """One line for a person: what was loaded and how it will segment."""
    method = loaded.method
    parameters = sum(parameter.numel() for parameter in method.parameters())
    settings = json.loads(method.inference.model_dump_json(exclude_defaults=True))
    shown = ", ".join(
        f"{key} {value}" for key, value in ({"short_side": method.inference.short_side} | settings).items()
    )
    return f"{loaded.file}: {loaded.name}, {parameters / 1e6:.1f} M parameters; {shown} (from {loaded.settings_from})"
