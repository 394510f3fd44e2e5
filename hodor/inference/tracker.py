"""Track objects through a video, frame by frame, with any trained row or released checkpoint.

    tracker = Tracker.from_pretrained("runs/mini/hodor-soft-coco/seed0").start(frame, masks)
    for frame in frames:
        labels = tracker.step(frame)

`hodor track` (hodor/inference/track_video.py) does the same with files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hodor.data.video import object_ids
from hodor.device import mixed, prepare_device
from hodor.errors import HodorError
from hodor.inference.pretrained import find_pretrained, save_pretrained
from hodor.inference.weights import open_weights
from hodor.models.base import Masks, check_masks

MEMORY_FRAMES = 64
"""Memory frames of a memory method whose settings set no limit, so that a video may have any length. If one frame in five is
memorised, none of the first 320 is forgotten, more than any benchmark video of DAVIS has."""

MOST_VALUES = 1 << 30
"""Maximum number of probabilities of a frame, one for each object and pixel: 4 GiB, as of 31 objects in 8K video."""


class Tracker:
    """Track objects through one video at a time: `start` with the first frame, then `step` frame by frame.

    Frames are not kept: memory does not grow with the video.

    Args:
        weights: a run folder or one of `save_pretrained`, a .safetensors, or an original checkpoint of HODOR, STM or STCN.
        device: `cpu` or `cuda`; None: the GPU if there is one.
        threads: torch's threads on the CPU; None leaves them unchanged.
        precision: `float32`, `tf32` or `bfloat16`; None: that of the run.
        settings: inference settings instead of the weights' own, such as `short_side=480` (`InferenceOptions`).

    Attributes:
        ids: objects that are tracked, in the order in which they were given.
        lost: objects that are too small to be tracked; they appear on the frame of their mask only.
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
        self.loaded = open_weights(weights, settings)
        self.method = self.loaded.method
        self.precision = precision or self.loaded.precision
        if self.precision not in ("float32", "tf32", "bfloat16"):
            raise HodorError(f"precision {self.precision!r}: unknown; use float32, tf32 or bfloat16")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = prepare_device(device, threads or torch.get_num_threads(), self.precision)
        self.method.to(self.device)
        if self.method.inference.memory_frames is None:
            self.method.inference = self.method.inference.model_copy(update={"memory_frames": MEMORY_FRAMES})
        self.labels = np.zeros((0, 0), np.uint8)
        self._given: set[int] = set()
        self._state: Any = None

    @classmethod
    def from_pretrained(
        cls, name: str | Path | None = None, *, revision: str | None = None, **options: Any
    ) -> "Tracker":
        """Load a checkpoint: a path as in `Tracker`, a name on the Hugging Face Hub, or by default the package's own.

        Args:
            name: see `hodor.inference.pretrained.find_pretrained`.
            revision: of a name on the Hub.
            options: the other arguments of `Tracker`.
        """
        return cls(find_pretrained(name, revision), **options)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write weights, settings and model card to a new folder (`hodor.inference.pretrained.save_pretrained`)."""
        save_pretrained(self.loaded, folder, half=half)

    @property
    def ids(self) -> list[int]:
        return [] if self._state is None else list(self._state.ids)

    @property
    def lost(self) -> list[int]:
        return sorted(self._given - set(self.ids))

    def start(self, frame: np.ndarray, masks: Masks | np.ndarray) -> "Tracker":
        """Begin a video and forget the one before; return the tracker itself.

        Args:
            frame: uint8 RGB (H, W, 3).
            masks: object id (1..254) -> bool (H, W), or labels, uint8 (H, W), as in a palette PNG.

        Raises:
            HodorError: no object, a mask of another size than the frame, no object large enough to be tracked, or
                objects whose probabilities need more than `MOST_VALUES`.
        """
        given = _checked(frame, masks)
        if not any(mask.any() for mask in given.values()):
            raise HodorError("the first mask contains no object; use a number from 1 to 254 for each (0 is background)")
        with mixed(self.device, self.precision):
            self._state = self.method.start(frame, given)
        self._given, self.labels = set(), np.zeros(frame.shape[:2], np.uint8)
        self._paint(given)
        return self

    def step(
        self,
        frame: np.ndarray,
        new_masks: Masks | np.ndarray | None = None,
        *,
        ignore_tracked: bool = False,
        probabilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, Tensor]:
        """Segment the next frame.

        Args:
            frame: as in `start`, of the same size.
            new_masks: objects that first appear in this frame, as in `start`.
            ignore_tracked: whether to ignore masks of objects that are tracked already (masks of DAVIS show all objects
                in every frame), instead of raising an error.
            probabilities: whether to return them too.

        Returns:
            Labels, uint8 (H, W); with `probabilities` also float32 (K + 1, H, W) on the CPU: channel 0 background,
            then the objects in the order of `ids`.

        Raises:
            HodorError: before `start`, a frame or mask of another size, or a second mask of an object.
        """
        if self._state is None:
            raise HodorError("Tracker.step before Tracker.start; pass the first frame and its masks to `start`")
        if frame.shape[:2] != self.labels.shape:
            raise HodorError(f"a frame of size {frame.shape[:2]}, but the first has {self.labels.shape}")
        new = _checked(frame, new_masks, self.ids, ignore_tracked=ignore_tracked)
        with mixed(self.device, self.precision):
            found = self.method.step(self._state, frame, new or None)
        self.labels = np.array([0, *self._state.ids], np.uint8)[found.max(0).indices.cpu().numpy()]
        self._paint(new)
        return (self.labels, found.float().cpu()) if probabilities else self.labels

    def _paint(self, masks: dict[int, np.ndarray]) -> None:
        """Write given masks into the labels unchanged; where they overlap, the last one counts."""
        self._given |= set(masks)
        for id, mask in masks.items():
            self.labels[mask] = id


def _checked(
    frame: np.ndarray, masks: Masks | np.ndarray | None, tracked: Sequence[int] = (), *, ignore_tracked: bool = False
) -> dict[int, np.ndarray]:
    """Return the masks of new objects, bool (H, W) by id; raise HodorError if frame or masks cannot be used."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise HodorError(f"a frame must be uint8 RGB (H, W, 3), not {frame.dtype} {frame.shape}")
    if masks is None or isinstance(masks, Mapping):
        new = {int(id): np.asarray(mask, bool) for id, mask in (masks or {}).items()}
    else:
        labels = np.asarray(masks)
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise HodorError(f"labels must be uint8 (H, W), not {labels.dtype} {labels.shape}")
        new = {id: labels == id for id in object_ids(labels)}
    if again := sorted(set(new) & set(tracked)):
        if not ignore_tracked:
            raise HodorError(
                f"a second mask of object {again[0]}, which is tracked already; leave it out, or pass ignore_tracked=True"
            )
        new = {id: mask for id, mask in new.items() if id not in again}
    check_masks(frame, new)
    objects, (height, width) = len(tracked) + len(new), frame.shape[:2]
    if (values := (objects + 1) * height * width) > MOST_VALUES:
        raise HodorError(
            f"{objects} objects in frames of {width}x{height} pixels: their probabilities need {values / 2**28:.0f} GiB, "
            f"more than {MOST_VALUES >> 28}; track fewer objects at a time, or make the video smaller"
        )
    return new
