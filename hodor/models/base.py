"""What every method answers, so that training, segmenting and timing know no method by name."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hodor.config.inference import InferenceOptions
from hodor.config.methods import METHODS
from hodor.config.reading import none_of
from hodor.data.clip import Clip
from hodor.errors import HodorError

Frame = np.ndarray  # uint8 RGB (H, W, 3)
Masks = Mapping[int, np.ndarray]  # object id -> bool (H, W)


class Method(nn.Module, ABC):
    """A trainable or fixed video object segmentation method.

    A subclass takes its options as a dict, `inference` settings, and registers itself with `@register("its-id")`.
    """

    def __init__(self, inference: InferenceOptions) -> None:
        super().__init__()
        self.inference = inference

    @abstractmethod
    def loss(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Scalars of one training step; `loss` is minimised, the others are logged."""

    def features(self, frames: Sequence[Frame]) -> list[Any]:
        """Features of frames of one size, one entry a frame, for `step`; a caller may batch the backbone with it."""
        return [None] * len(frames)

    @abstractmethod
    def start(self, frame: Frame, masks: Masks) -> Any:
        """State of a video whose first frame shows the objects of `masks`.

        Raises:
            HodorError: no object, or a mask of another size than the frame.
        """

    @abstractmethod
    def step(self, state: Any, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        """Segment the next frame: probabilities (K + 1, H, W) at the frame's size.

        Channel 0 is the background, then the objects in the order of `state.ids`; the largest channel is the label.
        Objects of `new_masks` first appear in this frame: their masks are taken as they are.
        """

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters that train with the backbone's learning rate."""
        return []

    def load_starting_weights(self, folder: Path) -> None:
        """Take what training starts from out of a prepared weight set, the one that the option `weights` names.

        Raises:
            HodorError: a method that takes none, or files that do not fit it.
        """
        raise HodorError(f"{folder}: method {type(self).__name__} takes no starting weights: remove option `weights`")

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """Parameters that weight decay leaves alone."""
        return []

    def compilable(self) -> list[nn.Module]:
        """Modules that gain by torch.compile, where a training asks for it: those of many small operations."""
        return []

    def log_values(self) -> dict[str, Any]:
        """Further values worth a line of the training log (JSON types)."""
        return {}


_METHODS: dict[str, Callable[..., Method]] = {}


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator: make a method known under its id."""

    def add(method: type[Method]) -> type[Method]:
        _METHODS[name] = method
        return method

    return add


def build_method(name: str, options: dict[str, Any], inference: InferenceOptions | None = None) -> Method:
    """The method `name` with its options; its module is imported when it is first built.

    Raises:
        HodorError: no such method.
    """
    if name not in METHODS:
        raise HodorError(f"method: {none_of(name, list(METHODS))}")
    import_module(METHODS[name].module)
    return _METHODS[name](options, inference or InferenceOptions())


def check_masks(frame: Frame, masks: Masks) -> None:
    """Refuse masks that do not fit the frame.

    Raises:
        HodorError: an id outside 1..254 or a mask of another size.
    """
    for object_id, mask in masks.items():
        if not 1 <= object_id <= 254:
            raise HodorError(f"object id {object_id}: ids are 1 to 254 (0 is background, 255 void)")
        if mask.shape != frame.shape[:2]:
            raise HodorError(f"the mask of object {object_id} has size {mask.shape}, the frame {frame.shape[:2]}")


def save_model(path: Path, method: Method, *, name: str, options: dict[str, Any]) -> None:
    """Write weights and what is needed to build the method again, atomically."""
    write_weights(path, method.state_dict(), "model", {"method": name, "options": options})


def write_weights(path: Path, weights: Mapping[str, Tensor], key: str, content: dict[str, Any]) -> None:
    """Write a safetensors file whose metadata hold JSON of `content` under `key`, atomically.

    Raises:
        HodorError: the disk is full or the folder cannot be written.
    """
    # One key: safetensors writes several in random order, and equal weights must make equal files.
    metadata = {key: json.dumps(content, sort_keys=True)}
    # Cloned: safetensors refuses entries that share memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(state, temporary, metadata=metadata)
        temporary.chmod(0o644)  # readable as any other output
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise HodorError(f"{path}: could not write the weights ({error}); free space or mend the folder") from error


def load_model(path: Path, inference: InferenceOptions | None = None) -> tuple[str, Method]:
    """Method id and method of a file written by `save_model`, in evaluation mode.

    Raises:
        HodorError: missing, truncated or foreign file, or weights that do not fit the method.
    """
    weights, metadata = read_weights(path)
    if "model" not in metadata:
        raise HodorError(f"{path}: no model of this project (its method and options are not recorded)")
    recorded = json.loads(metadata["model"])
    name, options = recorded["method"], recorded["options"]
    method = build_method(name, without_starting_weights(options), inference)
    load_weights(method, weights, path)
    return name, method.eval()


def without_starting_weights(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a network that starts at random: nothing has to be read to build it."""
    none = {"weights": None, "pretrained": False, "backbone_frozen": 0}
    return options | {key: value for key, value in none.items() if key in options}


def read_weights(path: Path, mend: str = "train its row") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `mend` says how to get it.

    Raises:
        HodorError: the file is missing or broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise HodorError(f"{path}: no such model file; {mend} first") from error
    except (SafetensorError, OSError) as error:
        raise HodorError(f"{path}: broken model file ({error}); delete it and {mend} again") from error


def load_weights(method: Method, weights: dict[str, Tensor], path: Path) -> None:
    """Load weights strictly.

    Raises:
        HodorError: missing, unexpected or differently shaped entries.
    """
    own = method.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    if told := differences(missing=missing, unexpected=unexpected, of_another_shape=sorted(shapes)):
        raise HodorError(f"{path}: the weights do not fit the network: {told}")
    method.load_state_dict(weights)


def differences(**names: list[str]) -> str:
    """What does not fit, in a line: how many of each kind, and the first; empty where all fits. _ stands for a space."""
    found = [(kind.replace("_", " "), entries) for kind, entries in names.items() if entries]
    return "; ".join(f"{len(entries)} {kind}, first {entries[0]}" for kind, entries in found)
