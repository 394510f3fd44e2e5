"""The interface of every method, the registry of methods, and model files."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hodor.config.methods import METHODS
from hodor.config.stages import InferenceOptions
from hodor.config.validation import none_of
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.provenance import cost, sha256_file, write_json_atomic, write_text_atomic

Frame = np.ndarray  # uint8 RGB (H, W, 3)
Masks = Mapping[int, np.ndarray]  # object id -> bool (H, W)


class Method(nn.Module, ABC):
    """A video object segmentation method.

    A subclass accepts its options as a dict and `InferenceOptions`, and registers itself with `@register("its-id")`.
    """

    def __init__(self, inference: InferenceOptions) -> None:
        super().__init__()
        self.inference = inference

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @abstractmethod
    def loss(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Return the scalars of one training step; `loss` is minimised, the others are logged."""

    def features(self, frames: Sequence[Frame]) -> list[Any]:
        """Return what `step` accepts as `features`, one entry per frame: the backbone's output for a batch of frames."""
        return [None] * len(frames)

    @abstractmethod
    def start(self, frame: Frame, masks: Masks) -> Any:
        """Return the state of a video whose first frame contains the objects of `masks`.

        Raises:
            HodorError: no visible object, or a mask of another size than the frame.
        """

    @abstractmethod
    def step(self, state: Any, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        """Segment the next frame and return probabilities (K + 1, H, W) at the frame's size.

        Channel 0 is the background, the others are the objects in the order of `state.ids`. `new_masks` are of objects
        that first appear in this frame; the result contains them unchanged.
        """

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters trained with the backbone's learning rate."""
        return []

    def alpha_parameters(self) -> list[nn.Parameter]:
        """Return the learned weights of masks in attention, which train with `alpha_factor` times the learning rate."""
        return []

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters without weight decay."""
        return []

    def load_starting_weights(self, folder: Path) -> None:
        """Load initial weights from the prepared weight set that the option `weights` names.

        Raises:
            HodorError: the method has no initial weights, or the files do not fit the network.
        """
        raise HodorError(f"{folder}: method {type(self).__name__} has no initial weights; remove the option `weights`")

    def compilable(self) -> list[nn.Module]:
        """Return the modules with many small operations, which a training may compile."""
        return []

    def log_values(self) -> dict[str, Any]:
        """Return further values for the training log (JSON types)."""
        return {}


_METHODS: dict[str, Callable[..., Method]] = {}


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Return a class decorator that registers a method under its id."""

    def add(method: type[Method]) -> type[Method]:
        _METHODS[name] = method
        return method

    return add


def build_method(name: str, options: dict[str, Any], inference: InferenceOptions | None = None) -> Method:
    """Build the method `name`, importing its module on first use; raise HodorError if it is unknown."""
    if name not in METHODS:
        raise HodorError(f"method: {none_of(name, list(METHODS))}")
    import_module(METHODS[name].module)
    return _METHODS[name](options, inference or InferenceOptions())


def check_masks(frame: Frame, masks: Masks) -> None:
    """Raise HodorError for an object id outside 1..254 or a mask of another size than the frame."""
    for object_id, mask in masks.items():
        if not 1 <= object_id <= 254:
            raise HodorError(f"object id {object_id}: ids are 1 to 254 (0 is background, 255 void)")
        if mask.shape != frame.shape[:2]:
            raise HodorError(f"the mask of object {object_id} has size {mask.shape}, the frame {frame.shape[:2]}")


def save_model(path: Path, method: Method, *, name: str, options: dict[str, Any]) -> None:
    """Write the weights and the method's id and options to a safetensors file, atomically."""
    write_weights(path, method.state_dict(), "model", {"method": name, "options": options})


def save_run(
    out: Path, method: Method, stamp: dict[str, Any], *, options: dict[str, Any], seconds: float, log: str, **more: Any
) -> None:
    """Write a run folder: `model.safetensors`, `train.jsonl` with the content `log`, `train.json` with entries `more`."""
    out.mkdir(parents=True, exist_ok=True)
    save_model(out / "model.safetensors", method, name=stamp["settings"]["method"], options=options)
    write_text_atomic(out / "train.jsonl", log)
    record = {
        "stamp": stamp["sha256"],
        "stamp_content": {key: value for key, value in stamp.items() if key != "sha256"},
        "model": sha256_file(out / "model.safetensors"),
        "log": sha256_file(out / "train.jsonl"),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
    }
    write_json_atomic(out / "train.json", record | more | cost(seconds))


def write_weights(path: Path, weights: Mapping[str, Tensor], key: str, content: dict[str, Any]) -> None:
    """Write a safetensors file with JSON of `content` in its metadata under `key`, atomically.

    Raises:
        HodorError: the disk is full or the folder cannot be written.
    """
    # safetensors writes several keys in random order, and equal weights must give equal files.
    metadata = {key: json.dumps(content, sort_keys=True)}
    # Cloned because safetensors rejects entries that share memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(state, temporary, metadata=metadata)
        temporary.chmod(0o644)  # the default of safetensors is 0600
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise HodorError(f"{path}: cannot write the weights ({error}); check free space and permissions") from error


def load_model(path: Path, inference: InferenceOptions | None = None) -> tuple[str, Method]:
    """Return the method id and the method (in evaluation mode) of a file written by `save_model`.

    Raises:
        HodorError: the file is missing, damaged or of another kind, or its weights do not fit the method.
    """
    weights, metadata = read_weights(path)
    if "model" not in metadata:
        raise HodorError(
            f"{path}: no method and options in its metadata; use a file written by `hodor train` or `hodor convert`"
        )
    recorded = json.loads(metadata["model"])
    name, options = recorded["method"], recorded["options"]
    if name not in METHODS:
        raise HodorError(f"{path}: method: {none_of(name, list(METHODS))}")
    method = build_method(name, without_starting_weights(options), inference)
    load_weights(method, weights, path)
    return name, method.eval()


def without_starting_weights(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without initial weights, so that building the network reads no file."""
    none = {"weights": None, "pretrained": False, "backbone_frozen": 0}
    return {key: none.get(key, value) for key, value in options.items()}


def read_weights(path: Path, fix: str = "train its row") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file; `fix` says how to create it, for error messages.

    Raises:
        HodorError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise HodorError(f"{path}: no such model file; {fix} first") from error
    except (SafetensorError, OSError) as error:
        raise HodorError(f"{path}: broken model file ({error}); delete it and {fix} again") from error


def load_weights(method: Method, weights: dict[str, Tensor], path: Path) -> None:
    """Load weights; raise HodorError if entries are missing, unexpected, of another shape or not floating point."""
    if faults := mismatches(method.state_dict(), weights):
        raise HodorError(f"{path}: the weights do not fit the network: {faults}; use weights of the same options")
    method.load_state_dict(weights)


def mismatches(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Summarise entries that are missing, unexpected, of another shape or type in one line, empty if there are none."""
    both = own.keys() & weights.keys()
    faults = {
        "missing": own.keys() - weights.keys(),
        "unexpected": weights.keys() - own.keys(),
        "of another shape": {key for key in both if own[key].shape != weights[key].shape},
        "not floating point": {
            key for key in both if own[key].is_floating_point() and not weights[key].is_floating_point()
        },
    }
    return differences({kind: sorted(names) for kind, names in faults.items()})


def differences(names: Mapping[str, list[str]]) -> str:
    """Summarise faulty entries in one line: number and first entry of each kind."""
    return "; ".join(f"{len(entries)} {kind}, first {entries[0]}" for kind, entries in names.items() if entries)
