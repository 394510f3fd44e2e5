"""The memory bank of a video and its readout: similarity to a frame's cells, softmax, weighted sum of values.

Always in float32 (baselines specification, section 6). Legend: B batch, G sets of keys (1 if all objects share them, else
K), K objects, C channels, N memory cells, Q = h w query cells, n query cells of a chunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hodor.device import in_float32

# Scores of a top-k readout that are computed at a time on a CPU (4 MiB), so that they stay in its cache.
CPU_SCORES = 2**20
# Memory cells of a group in `column_topk`, and the number of groups per `k` below which it is not faster than topk.
GROUP = 16
_MIN_GROUPS = 4


class Slot(NamedTuple):
    """One memorised frame."""

    frame: int  # its number
    kept: bool  # an object first appears in it: it is never forgotten
    temporary: bool  # it is forgotten when the next frame is added


class Reader(NamedTuple):
    """Objects that read the same cells with the same keys: `keys` (N, Ck) and, by object, `values` (N, Cv)."""

    keys: Tensor
    values: dict[int, Tensor]


class Bank:
    """Memory of the objects of one video: float32 keys and values, one row per cell, oldest frame first.

    An object is memorised in every frame from its first one on, thus in the newest rows of the bank.

    Args:
        shared: whether all objects have the same keys.
        limit: maximum number of frames, or None. The oldest is forgotten first, but none in which an object first appears.

    Attributes:
        objects: number of objects K.
        frames: numbers of the memorised frames, ascending.
    """

    def __init__(self, shared: bool, limit: int | None) -> None:
        self.shared, self.limit = shared, limit
        self._slots: list[Slot] = []
        self._keys: list[Tensor] = []  # of each set of keys (N, Ck)
        self._values: list[Tensor] = []  # of each object (N, Cv)

    @property
    def objects(self) -> int:
        return len(self._values)

    @property
    def frames(self) -> list[int]:
        return [slot.frame for slot in self._slots]

    def add(self, frame: int, key: Tensor, value: Tensor, *, kept: bool = False, temporary: bool = False) -> None:
        """Add a frame; forget the previous one if it was temporary, and the oldest one if the bank is full.

        Args:
            frame: its number.
            key: (G, Ck, h, w).
            value: (K, Cv, h, w) of all objects so far.
            kept: whether an object first appears in it, so that it is never forgotten.
            temporary: whether it is forgotten when the next frame is added.
        """
        remaining = [not slot.temporary for slot in self._slots]
        if self.limit is not None and sum(remaining) >= self.limit:
            old = [i for i, slot in enumerate(self._slots) if remaining[i] and not slot.kept]
            remaining = [stays and i not in old[:1] for i, stays in enumerate(remaining)]
        self._slots = [slot for slot, stays in zip(self._slots, remaining, strict=True) if stays]
        self._slots.append(Slot(frame, kept, temporary))
        for store, new in ((self._keys, key), (self._values, value)):
            for i, x in enumerate(new.float().flatten(2).transpose(1, 2)):
                rows = list(store[i].split(len(x))) if i < len(store) else []
                flags = remaining[len(remaining) - len(rows) :]
                cells = torch.cat([*(part for part, stays in zip(rows, flags, strict=True) if stays), x])
                store[i : i + 1] = [cells]

    def readers(self) -> list[Reader]:
        """Return the objects in groups that read the same cells with the same keys."""
        groups: dict[tuple[int, int], dict[int, Tensor]] = {}
        for k, values in enumerate(self._values):
            groups.setdefault((0 if self.shared else k, len(values)), {})[k] = values
        return [Reader(self._keys[keys][-count:], values) for (keys, count), values in groups.items()]


def dense_readout(keys: Tensor, values: Tensor, query: Tensor, *, similarity: str) -> Tensor:
    """Read a memory of a few frames with gradients, for training: softmax over all cells.

    Args:
        keys: (B, G, Ck, T, h, w).
        values: (B, K, Cv, T, h, w).
        query: (B, Ck, h, w).
        similarity: `dot` or `l2`.

    Returns:
        (B, K, Cv, h, w) in float32.
    """
    with in_float32(query):
        keys, values, cells = keys.flatten(3).float(), values.flatten(3).float(), query.flatten(2).float()
        scale = keys.shape[2] ** -0.5
        if similarity == "l2":  # the query's own norm cancels in the softmax
            keys, norms = 2 * keys, keys.square().sum(2).unsqueeze(3)
        scores = keys.transpose(2, 3) @ cells.unsqueeze(1)  # (B, G, N, Q)
        if similarity == "l2":
            scores = scores - norms
        weights = functional.softmax(scores * scale, dim=2)
        sets = keys.shape[1]
        read = values.unflatten(1, (sets, -1)).flatten(2, 3) @ weights  # (B, G, K/G Cv, Q)
        return read.view(*values.shape[:3], *query.shape[2:])


def chunked_readout(
    bank: Bank, query: Tensor, *, similarity: str, top_k: int = 0, sigma: float | None = None, chunk: int = 256
) -> Tensor:
    """Read the memory of a video in chunks of query cells, without storing all scores.

    Args:
        bank: the memory.
        query: key of the frame (Ck, h, w).
        similarity: `dot` or `l2`.
        top_k: number of most similar cells to read; 0: all.
        sigma: width in cells of the Gaussian around each memory cell's best match in the frame (KMN), or None.
        chunk: query cells whose scores are computed at a time; fewer for top-k on a CPU.

    Returns:
        (K, Cv, h, w) in float32.
    """
    with in_float32(query):
        cells, size = query.flatten(1).float(), query.shape[1:]
        scale, parts = len(cells) ** -0.5, {}
        if similarity == "l2":  # the query's own norm cancels in the softmax
            cells = torch.cat([cells, torch.ones_like(cells[:1])])
        for reader in bank.readers():
            keys = reader.keys
            if similarity == "l2":
                keys = torch.cat([2 * keys, -keys.square().sum(1, keepdim=True)], dim=1)
            select, step = 0 < top_k < len(keys), chunk
            if select and cells.device.type == "cpu":
                # The product is fastest with a power of two of columns, and slow with fewer than 32.
                step = min(chunk, max(32, 1 << (CPU_SCORES // len(keys)).bit_length() >> 1))
            if sigma is not None:
                best = torch.cat([(part @ cells).argmax(1) for part in keys.split(chunk)])  # of each memory cell (N)
                log_rows, log_columns = _log_kernel(best, size, sigma)
            found: dict[int, list[Tensor]] = {k: [] for k in reader.values}
            for start in range(0, cells.shape[1], step):
                scores = scale * (keys @ cells[:, start : start + step])  # (N, n)
                if sigma is not None:
                    position = torch.arange(start, start + scores.shape[1], device=cells.device)
                    scores += log_rows[:, position // size[1]] + log_columns[:, position % size[1]]
                if select:
                    top, rows = column_topk(scores, top_k)
                    weights = functional.softmax(top, dim=1)
                    for k, values in reader.values.items():
                        read = functional.embedding_bag(rows, values, mode="sum", per_sample_weights=weights)
                        found[k].append(read.t())
                else:
                    weights = functional.softmax(scores, dim=0)
                    for k, values in reader.values.items():
                        found[k].append(values.t() @ weights)
            parts |= {k: torch.cat(chunks, dim=1) for k, chunks in found.items()}
        return torch.stack([parts[k] for k in range(bank.objects)]).unflatten(2, size)


def column_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the top `k` of each column, unordered; ties at rank `k` are broken arbitrarily.

    They are in the `k` groups of rows with the top maxima, which are fast to compute: `topk` runs on a fraction of the
    scores.

    Args:
        scores: (N, n), N at least `k`.
        k: at least 1.

    Returns:
        Scores (n, k) and their rows (n, k).
    """
    columns, groups = scores.t(), len(scores) // GROUP
    if groups < _MIN_GROUPS * k:
        return columns.topk(k, dim=1, sorted=False)
    whole = groups * GROUP
    maxima = scores[:whole].view(groups, GROUP, -1).amax(1)
    top = maxima.t().contiguous().topk(k, dim=1, sorted=False).indices  # (n, k)
    rows = (top.unsqueeze(2) * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)  # (n, k GROUP)
    rest = torch.arange(whole, len(scores), device=scores.device).expand(len(rows), -1)
    rows = torch.cat([rows, rest], dim=1)
    values, position = columns.gather(1, rows).topk(k, dim=1, sorted=False)
    return values, rows.gather(1, position)


def _log_kernel(best: Tensor, size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    """Return the logarithm of KMN's Gaussian as two terms, of rows (N, h) and columns (N, w) of query cells.

    The Gaussian is centred on the best match `best` (N) of each memory cell. To add its logarithm to the scores before the
    softmax is to weight and normalise again, without underflow.
    """
    height, width = size
    rows = torch.arange(height, device=best.device) - (best // width).unsqueeze(1)
    columns = torch.arange(width, device=best.device) - (best % width).unsqueeze(1)
    factor = -1 / (2 * sigma**2)
    return rows.square() * factor, columns.square() * factor
