"""Weights of any kind: a run folder, a model file of this project, an authors' checkpoint.

Inference settings belong to the weights: a run has those with which its benchmark was segmented (from its record or
its stamp), weights without a record have the published ones of their method (scale `paper`).
"""

import json
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

MODEL = "model.safetensors"
FIRST_BENCHMARK = "davis2017-val"
"""The benchmark whose settings count where a run has several."""


@dataclass(frozen=True)
class Loaded:
    """A method ready to segment (evaluation mode, on the CPU).

    Attributes:
        name: id of the method.
        file: the file that was read.
        settings_from: where its inference settings come from, for people.
        precision: that of the run, `float32` where none is recorded.
    """

    name: str
    method: Method
    file: Path
    settings_from: str
    precision: str


def load_method(file: Path, inference: InferenceOptions | None = None) -> tuple[str, Method]:
    """Load a model file of this project (.safetensors) or an authors' checkpoint (.pth, .pt, .pkl, .bin).

    Returns:
        Id of the method, and the method in evaluation mode.

    Raises:
        HodorError: a file that is missing, damaged, of no known network or of another version of this project, or
            weights that are not finite.
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
            f"{file}: not a model that can be built ({reason}); train its row or take another file"
        ) from error
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise HodorError(f"{file}: {key} holds NaN or infinity; train its row again or take another file")
    return name, method


def open_weights(weights: str | Path, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Load a method with its weights and its inference settings.

    Args:
        weights: a run folder (`runs/mini/hodor-soft-coco/seed0`), a .safetensors of this project, or an original
            checkpoint of HODOR, STM or STCN (.pth, .pt, .pkl, .bin), which is converted in memory.
        overrides: inference settings (fields of `InferenceOptions`) that replace the weights' own; the long side keeps its
            ratio to another short side.

    Raises:
        HodorError: see `load_method`; or unknown settings.
    """
    given = Path(weights)
    file = given / MODEL if given.is_dir() else given
    kinds = f"give a run folder, a .safetensors, or an original checkpoint ({', '.join(ENDINGS)})"
    if not file.is_file():
        what = f"not a run folder, it has no {MODEL}" if given.is_dir() else "no such weights"
        raise HodorError(f"{given}: {what}; {kinds}")
    if file.suffix not in (*ENDINGS, ".safetensors"):
        raise HodorError(f"{file}: unknown kind of weights; {kinds}")
    name, method = load_method(file)
    settings, precision, source = _recorded(file.parent) if file.name == MODEL else ({}, None, "")
    if not source:
        settings, source = _published(name)
    overrides = dict(overrides or {})
    found = validate(InferenceOptions, settings | overrides, "inference settings")
    if "short_side" in overrides and "long_side" not in overrides:  # keep their ratio
        before = InferenceOptions(**settings)
        long_side = max(32, round(before.long_side * found.short_side / before.short_side))
        found = found.model_copy(update={"long_side": long_side})
    method.inference = found
    return Loaded(name, method.eval(), file, source, precision or "float32")


def _recorded(run: Path) -> tuple[dict[str, Any], str | None, str]:
    """Return inference settings and precision with which a run's benchmark was segmented, and their file; or nothing."""
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
    """Return the published inference settings of a method: those of its first trained row at scale `paper`."""
    config = load(paths.SHIPPED, {"scale": "paper", "rows": "all", "overrides": {}})
    for row, entry in config.rows.items():
        if entry.method == name and entry.stage is not None:
            return config.inference(row, FIRST_BENCHMARK).model_dump(), f"scale paper, row {row}"
    return {}, "the defaults"


def describe(loaded: Loaded) -> str:
    """Return one line for people: what was loaded, and its inference settings."""
    method = loaded.method
    parameters = sum(parameter.numel() for parameter in method.parameters())
    settings = {"short_side": method.inference.short_side}
    settings |= json.loads(method.inference.model_dump_json(exclude_defaults=True))
    shown = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{loaded.file}: {loaded.name}, {parameters / 1e6:.1f} M parameters; {shown} (from {loaded.settings_from})"
