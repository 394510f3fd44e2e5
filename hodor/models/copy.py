"""Baseline that copies each object's first mask to every later frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.models.base import Frame, Masks, Method, check_masks, register


@dataclass
class State:
    """Object ids in the order of the channels and their masks (K, H, W)."""

    ids: list[int]
    masks: np.ndarray


@register("copy")
class Copy(Method):
    """Copies of the first masks; no training, no use of the frames."""

    def __init__(self, options: Mapping[str, Any], inference: InferenceOptions) -> None:
        super().__init__(inference)
        if options:
            raise HodorError(f"method copy accepts no options; remove {', '.join(options)}")

    def loss(self, clip: Clip, step: int) -> dict[str, Tensor]:
        raise HodorError("method copy cannot be trained; leave its row's `stage` empty")

    def start(self, frame: Frame, masks: Masks) -> State:
        check_masks(frame, masks)
        return State(sorted(masks), np.array([masks[i] for i in sorted(masks)], bool).reshape(-1, *frame.shape[:2]))

    def step(self, state: State, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        if new_masks:
            check_masks(frame, new_masks)
            given = np.array([new_masks[i] for i in sorted(new_masks)], bool)
            state.masks = np.concatenate([state.masks & ~given.any(0), given])
            state.ids = state.ids + sorted(new_masks)
        background = ~state.masks.any(0, keepdims=True)
        return torch.from_numpy(np.concatenate([background, state.masks])).float()
