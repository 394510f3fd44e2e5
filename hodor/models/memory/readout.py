"""Reading the memory: similarity of its cells to a frame's cells, weights, weighted sum of values.

In float32 whatever the precision around it (baselines specification, section 6). Legend: B batch, G sets of keys (1 where
all objects share them, else K), K objects, C channels, N memory cells, Q = h w query cells, n cells of a chunk.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hodor.device import in_float32
from hodor.models.memory.bank import Bank, Reader


def dense_readout(keys: Tensor, values: Tensor, query: Tensor, *, similarity: str) -> Tensor:
    """Readout of training, with gradients: softmax over all cells of a memory of a few frames.

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
        if similarity == "l2":  # the query's own norm is the same for all memory cells: softmax does not see it
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
    """Readout of a video: never more than `chunk` of the query cells are compared with the memory at a time.

    Args:
        bank: the memory.
        query: key of the frame (Ck, h, w).
        similarity: `dot` or `l2`.
        top_k: weigh so many most similar cells alone; 0: all.
        sigma: width in cells of the Gaussian around each memory cell's best match in the frame (KMN); None: none.
        chunk: query cells.

    Returns:
        (K, Cv, h, w) in float32.
    """
    with in_float32(query):
        height, width = query.shape[1:]
        cells = query.flatten(1).float().t()  # (Q, Ck)
        scale = query.shape[0] ** -0.5
        cells = cells * (2 * scale if similarity == "l2" else scale)
        out = cells.new_empty((bank.objects, len(cells), bank.value_dim))
        for reader in bank.readers():
            single = len(cells) <= chunk
            whole = _scores(reader, cells, similarity, scale) if single else None
            if sigma is not None:
                rows, columns = _kernels(reader, cells, similarity, scale, whole, chunk, (height, width), sigma)
            for start in range(0, len(cells), chunk):
                part = slice(start, min(start + chunk, len(cells)))
                scores = whole if single else _scores(reader, cells[part], similarity, scale)  # (n, N)
                if sigma is not None:
                    place = torch.arange(part.start, part.stop, device=cells.device)
                    scores += rows[place // width]
                    scores += columns[place % width]
                _weighted(reader, scores, top_k, out[:, part])
        return out.transpose(1, 2).unflatten(2, (height, width))


def _scores(reader: Reader, cells: Tensor, similarity: str, scale: float) -> Tensor:
    """Scaled similarity (n, N) of scaled query cells (n, Ck) to the cells of a reader; -inf for cells it must not see."""
    scores = cells.new_empty((len(cells), reader.size))
    for block in reader.blocks:
        target = scores[:, block.start : block.stop]
        if similarity == "l2":
            torch.addmm(block.norms, cells, block.keys.t(), beta=-scale, out=target)
        else:
            torch.mm(cells, block.keys.t(), out=target)
    return scores if reader.hidden is None else scores.masked_fill_(reader.hidden, -torch.inf)


def _weighted(reader: Reader, scores: Tensor, top_k: int, out: Tensor) -> None:
    """Write the read values (K, n, Cv) of the reader's objects; `scores` (n, N) are used up."""
    chosen = None
    if 0 < top_k < scores.shape[1]:
        scores, chosen = scores.topk(top_k, dim=1, sorted=False)
    weights = functional.softmax(scores, dim=1)
    for k in reader.objects:
        for i, block in enumerate(reader.blocks):
            if chosen is None:
                read = weights[:, block.start : block.stop] @ block.values[k]
            elif len(reader.blocks) == 1:
                read = functional.embedding_bag(chosen, block.values[k], mode="sum", per_sample_weights=weights)
            else:
                inside = (chosen >= block.start) & (chosen < block.stop)
                place = (chosen - block.start).clamp(0, block.stop - block.start - 1)
                part = weights * inside
                read = functional.embedding_bag(place, block.values[k], mode="sum", per_sample_weights=part)
            out[k] = read if i == 0 else out[k] + read


def _kernels(
    reader: Reader,
    cells: Tensor,
    similarity: str,
    scale: float,
    whole: Tensor | None,
    chunk: int,
    size: tuple[int, int],
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Logarithm of KMN's Gaussian as two terms, of the row (h, N) and of the column (w, N) of a query cell.

    The Gaussian stands around the query cell that a memory cell is most similar to. Added to the scores before the
    softmax it equals weights times Gaussian, normalised again, and nothing can underflow.
    """
    best = cells.new_full((reader.size,), -torch.inf)
    place = torch.zeros(reader.size, dtype=torch.long, device=cells.device)
    for start in range(0, len(cells), chunk):
        scores = whole if whole is not None else _scores(reader, cells[start : start + chunk], similarity, scale)
        value, index = scores.max(dim=0)
        better = value > best
        best, place = torch.where(better, value, best), torch.where(better, index + start, place)
    height, width = size
    rows = torch.arange(height, device=cells.device)[:, None] - (place // width)[None]
    columns = torch.arange(width, device=cells.device)[:, None] - (place % width)[None]
    factor = -1 / (2 * sigma**2)
    return rows.square() * factor, columns.square() * factor
