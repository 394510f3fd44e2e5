"""The memory bank of a video: float32 keys and values of the memorised frames, one row per cell, oldest frame first."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Slot:
    """One memorised frame.

    Attributes:
        frame: its number.
        kept: whether an object first appears in it, so that it is never forgotten.
        temporary: whether it is forgotten when the next frame is added.
    """

    frame: int
    kept: bool
    temporary: bool


@dataclass
class Reader:
    """Objects that read the same cells with the same keys: `keys` (N, Ck) and, by object, `values` (N, Cv)."""

    keys: Tensor
    values: dict[int, Tensor]


class Bank:
    """Memory of the objects of one video.

    An object is memorised in every frame from its first one on, thus in the newest rows of the bank.

    Args:
        shared: whether all objects have the same keys.
        limit: maximum number of frames: the oldest is forgotten first, but never one in which an object first appears.
            None: no limit.
    """

    def __init__(self, *, shared: bool, limit: int | None) -> None:
        self.shared, self.limit = shared, limit
        self._slots: list[Slot] = []
        self._keys: list[Tensor] = []  # of each set of keys (N, Ck)
        self._values: list[Tensor] = []  # of each object (N, Cv)

    @property
    def objects(self) -> int:
        """Number of objects K."""
        return len(self._values)

    @property
    def frames(self) -> list[int]:
        """Numbers of the memorised frames, ascending."""
        return [slot.frame for slot in self._slots]

    def add(self, frame: int, key: Tensor, value: Tensor, *, kept: bool = False, temporary: bool = False) -> None:
        """Add a frame, and forget the previous one if it was temporary and the oldest one if the bank is full.

        Args:
            frame: its number.
            key: (G, Ck, h, w), G = 1 if the keys are shared, else K.
            value: (K, Cv, h, w) of all objects so far.
            kept, temporary: see `Slot`.
        """
        remaining = [not slot.temporary for slot in self._slots]
        if self.limit is not None and sum(remaining) >= self.limit:
            old = [i for i, slot in enumerate(self._slots) if remaining[i] and not slot.kept]
            if old:
                remaining[min(old)] = False
        self._slots = [slot for slot, stays in zip(self._slots, remaining, strict=True) if stays]
        self._slots.append(Slot(frame, kept, temporary))
        for store, new in ((self._keys, key), (self._values, value)):
            for i, x in enumerate(new.float().flatten(2).transpose(1, 2)):
                rows = list(store[i].split(len(x))) if i < len(store) else []
                flags = remaining[len(remaining) - len(rows) :]
                cells = torch.cat([*(part for part, stays in zip(rows, flags, strict=True) if stays), x])
                store[i : i + 1] = [cells]

    def readers(self) -> list[Reader]:
        """Group the objects by the cells and keys that they read."""
        groups: dict[tuple[int, int], dict[int, Tensor]] = {}
        for k, values in enumerate(self._values):
            groups.setdefault((0 if self.shared else k, len(values)), {})[k] = values
        return [Reader(self._keys[keys][-count:], values) for (keys, count), values in groups.items()]
