"""Follow objects through a video, frame by frame, with any trained row or released checkpoint.

    tracker = Tracker("runs/mini/hodor-soft-coco/seed0").start(frame, masks)
    for frame in frames:
        labels = tracker.step(frame)

`hodor track` (hodor/inference/track_video.py) does the same with files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hodor.data.video import object_ids
from hodor.device import mixed, prepare_device
from hodor.errors import HodorError
from hodor.inference.weights import open_weights
from hodor.models.base import Masks, check_masks

MEMORY_FRAMES = 64
"""Memory frames of a memory method whose settings name no limit, so that a video may be of any length. With one frame in
five remembered, nothing is forgotten in the first 320 frames: no benchmark video of DAVIS is that long."""

MOST_VALUES = 1 << 30
"""Probabilities of a frame, one for each object and pixel: 4 GiB, as of 31 objects in 8K video."""


class Tracker:
    """Follow objects through one video at a time: `start` with the first frame, then `step` frame by frame.

    Frames are not kept: memory does not grow with the video.

    Args:
        weights: a run folder, a .safetensors of this project, or an original checkpoint of HODOR, STM or STCN.
        device: `cpu` or `cuda`; None: the GPU if there is one.
        threads: torch's threads on the CPU; None leaves them unchanged.
        precision: `float32`, `tf32` or `bfloat16`; None: that of the run.
        settings: inference settings instead of the weights' own, such as `short_side=480` (`InferenceOptions`).

    Attributes:
        ids: objects that are followed, in the order in which they were given.
        lost: objects that were given and are too small to be followed; they appear on the frame of their mask only.
        labels: of the last frame, uint8 (H, W): object ids, 0 background.

    Raises:
        HodorError: weights that cannot be used, unknown settings, a missing GPU.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        **settings: Any,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise HodorError("--device cuda: torch sees no GPU; fix the driver, or use --device cpu")
        loaded = open_weights(weights, settings)
        self.loaded, self.method = loaded, loaded.method
        self.precision = precision or loaded.precision
        if self.precision not in ("float32", "tf32", "bfloat16"):
            raise HodorError(f"precision {self.precision!r} is none of float32, tf32, bfloat16")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = prepare_device(device, threads or torch.get_num_threads(), self.precision)
        self.method.to(self.device)
        if self.method.inference.memory_frames is None:
            self.method.inference = self.method.inference.model_copy(update={"memory_frames": MEMORY_FRAMES})
        self.labels = np.zeros((0, 0), np.uint8)
        self._given: set[int] = set()
        self._state: Any = None

    @property
    def ids(self) -> list[int]:
        return [] if self._state is None else list(self._state.ids)

    @property
    def lost(self) -> list[int]:
        return sorted(self._given - set(self.ids))

    def start(self, frame: np.ndarray, masks: Masks | np.ndarray) -> "Tracker":
        """Begin a video, whatever was followed before; returns itself.

        Args:
            frame: uint8 RGB (H, W, 3).
            masks: object id (1..254) -> bool (H, W), or labels, uint8 (H, W), as in a palette PNG.

        Raises:
            HodorError: no object, a mask of another size than the frame, no object large enough to be followed, or
                objects whose probabilities would take more than `MOST_VALUES`.
        """
        _check_frame(frame)
        given = _as_masks(masks)
        if not given or not any(mask.any() for mask in given.values()):
            raise HodorError("the first mask holds no object; give each a number from 1 to 254 (0 is background)")
        check_masks(frame, given)
        _check_memory(frame, len(given))
        with mixed(self.device, self.precision):
            self._state = self.method.start(frame, given)
        self._given = set(given)
        self.labels = _paint(np.zeros(frame.shape[:2], np.uint8), given)
        return self

    def step(
        self,
        frame: np.ndarray,
        new_masks: Masks | np.ndarray | None = None,
        *,
        ignore_followed: bool = False,
        probabilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, Tensor]:
        """Segment the next frame.

        Args:
            frame: as in `start`, of the same size.
            new_masks: objects that first appear in this frame, as in `start`.
            ignore_followed: whether `new_masks` may contain objects that are followed already, and leaves them out
                (masks of DAVIS show all objects in every frame).
            probabilities: whether to return them too.

        Returns:
            Labels, uint8 (H, W); with `probabilities` also float32 (K + 1, H, W) on the CPU: channel 0 background,
            then the objects in the order of `ids`.

        Raises:
            HodorError: before `start`, a frame or mask of another size, or a second mask of an object.
        """
        if self._state is None:
            raise HodorError("Tracker.step before Tracker.start; pass the first frame and its masks to `start`")
        _check_frame(frame)
        if frame.shape[:2] != self.labels.shape:
            raise HodorError(f"a frame of size {frame.shape[:2]}, but the first has {self.labels.shape}")
        new = _as_masks(new_masks)
        if again := sorted(set(new) & set(self.ids)):
            if not ignore_followed:
                raise HodorError(
                    f"a second mask of object {again[0]}, which is followed already; leave it out, or pass "
                    "ignore_followed=True"
                )
            new = {id: mask for id, mask in new.items() if id not in again}
        check_masks(frame, new)
        _check_memory(frame, len(self.ids) + len(new))
        with mixed(self.device, self.precision):
            found = self.method.step(self._state, frame, new or None)
        self._given |= set(new)
        ids = np.array([0, *self._state.ids], np.uint8)
        self.labels = _paint(ids[found.argmax(0).cpu().numpy()], new)
        return (self.labels, found.float().cpu()) if probabilities else self.labels


def _as_masks(masks: Masks | np.ndarray | None) -> dict[int, np.ndarray]:
    """Return object id -> bool (H, W), from a mapping or from labels (void, 255, is no object)."""
    if masks is None:
        return {}
    if isinstance(masks, Mapping):
        return {int(id): np.asarray(mask, bool) for id, mask in masks.items()}
    labels = np.asarray(masks)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise HodorError(f"labels must be uint8 (H, W), got {labels.dtype} {labels.shape}")
    return {id: labels == id for id in object_ids(labels)}


def _paint(labels: np.ndarray, masks: Mapping[int, np.ndarray]) -> np.ndarray:
    """Write masks into labels unchanged; where they overlap, the later one counts."""
    for id, mask in masks.items():
        labels[mask] = id
    return labels


def _check_frame(frame: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise HodorError(f"a frame must be uint8 RGB (H, W, 3), got {frame.dtype} {frame.shape}")


def _check_memory(frame: np.ndarray, objects: int) -> None:
    height, width = frame.shape[:2]
    if (values := (objects + 1) * height * width) > MOST_VALUES:
        raise HodorError(
            f"{objects} objects in frames of {width}x{height} pixels: their probabilities take {values / 2**28:.0f} GiB, "
            f"at most {MOST_VALUES >> 28} are allowed; follow fewer objects at a time, or make the video smaller"
        )
