"""Reading the memory: similarity of its cells to a frame's cells, weights, weighted sum of values.

In float32 whatever the precision around it (baselines specification, section 6). Legend: B batch, G sets of keys (1 where
all objects share them, else K), K objects, C channels, N memory cells, Q = h w query cells, n cells of a chunk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from hodor.device import in_float32
from hodor.models.memory.bank import Bank, Block, Reader
from hodor.models.memory.largest import largest, padded

# Scores that a CPU holds at a time (4 MiB: they stay in the cache from their product to their use), and values that are
# gathered at a time (1 MiB).
CPU_SCORES = 2**20
GATHERED = 2**18


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
    """Readout of a video, never with all scores at once.

    Args:
        bank: the memory.
        query: key of the frame (Ck, h, w).
        similarity: `dot` or `l2`.
        top_k: weigh so many most similar cells alone; 0: all.
        sigma: width in cells of the Gaussian around each memory cell's best match in the frame (KMN); None: none.
        chunk: at most as many scores are held as so many query cells have. On a CPU there are fewer still, for they
            stay in its cache.

    Returns:
        (K, Cv, h, w) in float32.
    """
    with in_float32(query):
        cells, size = query.flatten(1).float(), (query.shape[1], query.shape[2])
        scale = len(cells) ** -0.5
        if similarity == "l2":  # -|key|^2 as one more channel of the product
            cells = torch.cat([2 * scale * cells, cells.new_full((1, cells.shape[1]), -scale)])
        else:
            cells = scale * cells
        out = cells.new_empty((bank.objects, bank.value_dim, cells.shape[1]))
        for reader in bank.readers():
            room = chunk * reader.size
            if cells.device.type == "cpu":
                room = min(room, CPU_SCORES)
            if 0 < top_k < reader.seen:
                _read_largest(reader, cells, top_k, sigma, size, room, chunk, out)
            else:
                _read_all(reader, cells, sigma, size, room, out)
        return out.unflatten(2, size)


def _read_all(
    reader: Reader, cells: Tensor, sigma: float | None, size: tuple[int, int], room: int, out: Tensor
) -> None:
    """Write (K, Cv, Q) of the reader's objects: some memory cells at a time, each compared with the whole frame.

    The softmax is over all of them: sum and values read so far fade as a larger score comes. As a memory cell meets all
    query cells at once its best match is known, and the kernel takes no second pass.
    """
    step = max(1, room // cells.shape[1])
    highest, total = cells.new_full((cells.shape[1],), -torch.inf), cells.new_zeros(cells.shape[1])
    buffer = cells.new_empty((step, cells.shape[1]))
    for k in reader.objects:
        out[k] = 0
    for block, part in _parts(reader, step):
        keys = block.keys[part, : len(cells)]
        scores = torch.mm(keys, cells, out=buffer[: len(keys)])  # (n, Q)
        if sigma is not None:
            rows, columns = _kernels(scores.argmax(1), size, sigma)
            scores.unflatten(1, size).add_(rows.unsqueeze(2)).add_(columns.unsqueeze(1))
        before, highest = highest, torch.maximum(highest, scores.amax(0))
        fade = (before - highest).exp_()
        total = total.mul_(fade).add_(scores.sub_(highest).exp_().sum(0))
        for k in reader.objects:
            out[k].mul_(fade).addmm_(block.values[k][part].t(), scores)
    for k in reader.objects:
        out[k] /= total


def _read_largest(
    reader: Reader,
    cells: Tensor,
    top_k: int,
    sigma: float | None,
    size: tuple[int, int],
    room: int,
    chunk: int,
    out: Tensor,
) -> None:
    """Write (K, Cv, Q) of the reader's objects: some query cells at a time, each compared with the whole memory."""
    count, width = cells.shape[1], size[1]
    # A product is fastest with a power of two of columns, and slow with fewer than 32.
    step = min(chunk, count, max(32, 1 << (room // reader.size).bit_length() >> 1))
    buffer = cells.new_empty(padded(reader.size) * step)
    if sigma is not None:
        rows, columns = _kernels(_best_matches(reader, cells, room), size, sigma)
    found, chosen = [], []
    for start in range(0, count, step):
        part = cells[:, start : start + step]
        scores = buffer[: padded(reader.size) * part.shape[1]].view(-1, part.shape[1])  # (N, n)
        _fill(scores, reader, part)
        if sigma is not None:
            place = torch.arange(start, start + part.shape[1], device=cells.device)
            scores[: reader.size] += rows[:, place // width]
            scores[: reader.size] += columns[:, place % width]
        values, places = largest(scores, top_k)
        found.append(values)
        chosen.append(places)
    del buffer
    _gather(reader, torch.cat(chosen), functional.softmax(torch.cat(found), dim=1), out)


def _gather(reader: Reader, chosen: Tensor, weights: Tensor, out: Tensor) -> None:
    """Write (K, Cv, Q) of the reader's objects from the cells chosen (Q, k) and their weights (Q, k)."""
    step = max(1, GATHERED // out.shape[1])
    for start in range(0, len(chosen), step):
        part = slice(start, start + step)
        bags = []
        for block in reader.blocks:
            place, weight = chosen[part] - block.start, weights[part]
            if len(reader.blocks) > 1:  # a cell of another block counts nothing here
                weight = weight * ((place >= 0) & (place < block.stop - block.start))
                place = place.clamp_(0, block.stop - block.start - 1)
            bags.append((block, place, weight))
        for k in reader.objects:
            read = [
                functional.embedding_bag(place, block.values[k], mode="sum", per_sample_weights=weight)
                for block, place, weight in bags
            ]
            out[k, :, part] = sum(read[1:], start=read[0]).t()


def _parts(reader: Reader, step: int) -> Iterator[tuple[Block, slice]]:
    """The cells that a reader sees, at most `step` at a time, as rows of a block."""
    for block in reader.blocks:
        for first, last in block.spans:
            for start in range(first, last, step):
                yield block, slice(start, min(start + step, last))


def _fill(scores: Tensor, reader: Reader, cells: Tensor) -> None:
    """Write the scores (N, n) of query cells (Ck, n); -inf for memory cells not seen and for rows beyond the memory."""
    row = 0
    for block in reader.blocks:
        for first, last in block.spans:
            scores[row : block.start + first] = -torch.inf
            row = block.start + last
            torch.mm(block.keys[first:last, : len(cells)], cells, out=scores[block.start + first : row])
    scores[row:] = -torch.inf


def _best_matches(reader: Reader, cells: Tensor, room: int) -> Tensor:
    """The query cell (N) that each memory cell is most similar to; 0 for cells not seen."""
    best = torch.zeros(reader.size, dtype=torch.long, device=cells.device)
    for block, part in _parts(reader, max(1, room // cells.shape[1])):
        scores = torch.mm(block.keys[part, : len(cells)], cells)
        best[block.start + part.start : block.start + part.stop] = scores.argmax(1)
    return best


def _kernels(best: Tensor, size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    """Logarithm of KMN's Gaussian as two terms, of the row (N, h) and of the column (N, w) of a query cell.

    The Gaussian stands around the query cell `best` (N) that a memory cell is most similar to. Added to the scores before
    the softmax it equals weights times Gaussian, normalised again, and nothing can underflow.
    """
    height, width = size
    rows = torch.arange(height, device=best.device) - (best // width).unsqueeze(1)
    columns = torch.arange(width, device=best.device) - (best % width).unsqueeze(1)
    factor = -1 / (2 * sigma**2)
    return rows.square() * factor, columns.square() * factor
