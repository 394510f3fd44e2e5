"""The memory of a video: keys and values of the frames that are remembered.

Storage is allocated in blocks of several frames, rows of cells; a further block never moves those before it, and a
frame that is forgotten leaves its place to the next one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

BLOCK_FRAMES = 16


@dataclass
class Slot:
    """One remembered frame.

    Attributes:
        frame: its number.
        objects: the first so many objects are remembered in it; later ones appeared after it.
        kept: an object first appears in it, so it is never forgotten.
        temporary: it is forgotten as soon as the next frame comes.
    """

    frame: int
    objects: int
    kept: bool
    temporary: bool


@dataclass
class Block:
    """Cells `start` to `stop` of a reader.

    Attributes:
        start, stop: numbers of the cells.
        keys: (n, Ck + 1), the last channel the squared norm of the others.
        values: (n, Cv) by object.
        spans: the rows, from and to, that the objects see: rising, apart from each other.
    """

    start: int
    stop: int
    keys: Tensor
    values: dict[int, Tensor]
    spans: list[tuple[int, int]]


@dataclass
class Reader:
    """Objects that see the same cells by the same keys.

    Attributes:
        objects: their numbers.
        blocks: the cells.
        size: number of cells, those that the objects must not see included.
        seen: number of cells that they see.
    """

    objects: list[int]
    blocks: list[Block]
    size: int
    seen: int


class Bank:
    """Memory of the objects of one video.

    Attributes:
        objects: number of objects K.
        value_dim: channels of a value.
    """

    def __init__(self, *, shared: bool, limit: int | None) -> None:
        """Empty.

        Args:
            shared: all objects have the same keys.
            limit: at most so many frames are remembered: the oldest is forgotten first, but never one in which an
                object first appears. None: no limit.
        """
        self.shared, self.limit = shared, limit
        self.objects, self.value_dim = 0, 0
        self._slots: list[Slot | None] = []
        # By set of keys and block, by object and block; a block of an object is there once it is remembered in it.
        self._keys: dict[tuple[int, int], Tensor] = {}
        self._values: dict[tuple[int, int], Tensor] = {}
        self._cells = 0
        self._block = BLOCK_FRAMES if limit is None else min(BLOCK_FRAMES, limit)

    @property
    def frames(self) -> list[int]:
        """Numbers of the remembered frames, rising."""
        return sorted(slot.frame for slot in self._slots if slot)

    def add(self, frame: int, key: Tensor, value: Tensor, *, kept: bool = False, temporary: bool = False) -> None:
        """Remember a frame; a temporary one before it is forgotten.

        Args:
            frame: its number.
            key: (G, Ck, h, w), G 1 where the keys are shared, else K.
            value: (K, Cv, h, w) of all objects so far.
            kept, temporary: see `Slot`.
        """
        self.objects, self.value_dim, self._cells = value.shape[0], value.shape[1], value.shape[2] * value.shape[3]
        self._forget()
        place = self._free_place()
        self._slots[place] = Slot(frame, self.objects, kept, temporary)
        block, row = divmod(place, self._block)
        rows = slice(row * self._cells, (row + 1) * self._cells)
        for i, x in enumerate(key.flatten(2)):
            target = self._part(self._keys, (i, block), x.shape[0] + 1, x)[rows]
            target[:, :-1] = x.t()
            torch.sum(target[:, :-1].square(), 1, out=target[:, -1])
        for i, x in enumerate(value.flatten(2)):
            self._part(self._values, (i, block), x.shape[0], x)[rows] = x.t()

    def readers(self) -> Iterator[Reader]:
        """The objects, those together that see the same cells by the same keys."""
        groups: dict[tuple, list[int]] = {}
        for k in range(self.objects):
            sees = tuple(slot is not None and k < slot.objects for slot in self._slots)
            groups.setdefault((0 if self.shared else k, sees), []).append(k)
        for (keys, sees), objects in groups.items():
            yield self._reader(keys, sees, objects)

    def _reader(self, keys: int, sees: tuple[bool, ...], objects: list[int]) -> Reader:
        blocks, start = [], 0
        for first in range(0, len(sees), self._block):
            part = sees[first : first + self._block]
            if not any(part):
                continue
            index, count = first // self._block, len(part) * self._cells
            values = {k: self._values[k, index][:count] for k in objects}
            spans = [(a * self._cells, b * self._cells) for a, b in _runs(part)]
            blocks.append(Block(start, start + count, self._keys[keys, index][:count], values, spans))
            start += count
        return Reader(objects, blocks, start, sum(sees) * self._cells)

    def _forget(self) -> None:
        """Drop the temporary frame, and the oldest where the bank is full."""
        for place, slot in enumerate(self._slots):
            if slot and slot.temporary:
                self._slots[place] = None
        used = [slot for slot in self._slots if slot]
        if self.limit is not None and len(used) >= self.limit:
            old = [slot for slot in used if not slot.kept]
            if old:
                self._slots[self._slots.index(min(old, key=lambda slot: slot.frame))] = None

    def _free_place(self) -> int:
        if None in self._slots:
            return self._slots.index(None)
        self._slots.append(None)
        return len(self._slots) - 1

    def _part(self, store: dict[tuple[int, int], Tensor], key: tuple[int, int], channels: int, like: Tensor) -> Tensor:
        """A block of storage, allocated when it is first asked for."""
        if key not in store:
            # Zeros, for cells of frames before an object appeared are multiplied by weights of 0.
            store[key] = torch.zeros((self._block * self._cells, channels), device=like.device)
        return store[key]


def _runs(flags: tuple[bool, ...]) -> list[tuple[int, int]]:
    """From and to of each run of true flags."""
    edges = [i for i, (a, b) in enumerate(pairwise((False, *flags, False))) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))
