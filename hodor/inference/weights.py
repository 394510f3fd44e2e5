"""Weights of any kind: a run folder, a folder of `save_pretrained`, a model file of this project, or an original checkpoint.

Weights have inference settings: those of the folder's `config.json`; those with which the benchmark of their run was
segmented, from its record or its stamp; or the published ones of their method (scale `paper`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from hodor import paths
from hodor.config.loading import load
from hodor.config.stages import InferenceOptions
from hodor.config.validation import validate
from hodor.errors import HodorError
from hodor.models.base import Method, load_model
from hodor.models.checkpoints.load import ENDINGS, load_original
from hodor.provenance import read_json

MODEL, CONFIG = "model.safetensors", "config.json"
FIRST_BENCHMARK = "davis2017-val"
"""The benchmark whose settings are used if a run has several."""


@dataclass(frozen=True)
class Loaded:
    """A method in evaluation mode, on the CPU."""

    name: str  # id of the method
    method: Method
    file: Path  # the file that was read
    settings_from: str  # source of its inference settings, to be printed
    precision: str  # of the run, `float32` if none is recorded


def load_method(file: Path, inference: InferenceOptions | None = None) -> tuple[str, Method]:
    """Load a model file of this project (.safetensors) or an original checkpoint (.pth, .pt, .pkl, .bin).

    Returns:
        Id of the method, and the method in evaluation mode.

    Raises:
        HodorError: the file is missing, damaged, of no known network or of another version of this project, or its weights
            are not finite.
    """
    try:
        if file.suffix in ENDINGS:
            name, method, _ = load_original(file)
        else:
            name, method = load_model(file, inference)
        state = method.state_dict()
    except (HodorError, MemoryError):
        raise
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise HodorError(f"{file}: options of the network do not fit this version ({faults}); train its row") from error
    except Exception as error:  # malformed metadata, options of impossible sizes, sparse tensors or such without data
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise HodorError(
            f"{file}: not a model that can be built ({reason}); train its row or use another file"
        ) from error
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise HodorError(f"{file}: {key} contains NaN or infinity; train its row again or use another file")
    return name, method


def open_weights(weights: str | Path, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Load a method with its weights and its inference settings.

    Args:
        weights: a run folder (`runs/mini/hodor-soft-coco/seed0`) or a folder of `save_pretrained`, a .safetensors of this
            project, or an original checkpoint of HODOR, STM or STCN (.pth, .pt, .pkl, .bin), which is converted in memory.
        overrides: inference settings (fields of `InferenceOptions`) that replace the weights' own; with another short side,
            the long side keeps its ratio to it.

    Raises:
        HodorError: see `load_method`; or unknown settings.
    """
    given = Path(weights)
    file = given / MODEL if given.is_dir() else given
    kinds = f"use a run folder, a .safetensors, or an original checkpoint ({', '.join(ENDINGS)})"
    if not file.is_file():
        fault = f"not a run folder, it has no {MODEL}" if given.is_dir() else "no such weights"
        raise HodorError(f"{given}: {fault}; {kinds}")
    if file.suffix not in (*ENDINGS, ".safetensors"):
        raise HodorError(f"{file}: unknown kind of weights; {kinds}")
    name, method = load_method(file)
    recorded = _recorded(file.parent) if file.name == MODEL else None
    settings, precision, source = recorded or _published(name)
    overrides = dict(overrides or {})
    found = validate(InferenceOptions, settings | overrides, "inference settings")
    if "short_side" in overrides and "long_side" not in overrides:
        before = InferenceOptions(**settings)
        long_side = max(32, round(before.long_side * found.short_side / before.short_side))
        found = found.model_copy(update={"long_side": long_side})
    method.inference = found
    return Loaded(name, method, file, source, precision)


def _recorded(run: Path) -> tuple[dict[str, Any], str, str] | None:
    """Return inference settings and precision from config.json, or of a run's segmented benchmark, and their file."""
    if (config := run / CONFIG).is_file():
        content = read_json(config)
        if not isinstance(content.get("inference"), dict):
            raise HodorError(f"{config}: has no `inference` settings; write the folder again with hodor convert")
        return content["inference"], str(content.get("precision", "float32")), str(config)
    records = {path.parent.name: path for path in run.glob("*/segment.json")}
    stamps = run.parent.parent / "stamps"
    prefix = f"segment-{run.parent.name}-{run.name}-"
    present = stamps / paths.present("").name
    current = read_json(present) if present.is_file() else {}
    planned = {
        name.removeprefix(prefix): stamps / paths.stamp("", name, digest).name
        for name, digest in current.items()
        if name.startswith(prefix)
    }
    for found in (records, planned):
        for benchmark in sorted(found, key=lambda name: (name != FIRST_BENCHMARK, name)):
            content = read_json(found[benchmark])
            settings = content.get("stamp_content", content).get("settings") or {}
            if "inference" in settings:
                return settings["inference"], settings.get("precision") or "float32", str(found[benchmark])
    return None


def _published(name: str) -> tuple[dict[str, Any], str, str]:
    """Return the published inference settings of a method, those of its first trained row at scale `paper`."""
    config = load(paths.SHIPPED, {"scale": "paper", "rows": "all", "overrides": {}})
    for row, entry in config.rows.items():
        if entry.method == name and entry.stage is not None:
            return config.inference(row, FIRST_BENCHMARK).model_dump(), "float32", f"scale paper, row {row}"
    return {}, "float32", "the defaults"


def describe(loaded: Loaded) -> str:
    """Describe in one line what was loaded, and its inference settings."""
    inference = loaded.method.inference
    parameters = sum(parameter.numel() for parameter in loaded.method.parameters())
    settings = {"short_side": inference.short_side} | inference.model_dump(mode="json", exclude_defaults=True)
    shown = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{loaded.file}: {loaded.name}, {parameters / 1e6:.1f} M parameters; {shown} (from {loaded.settings_from})"
