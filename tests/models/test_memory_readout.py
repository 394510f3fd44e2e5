"""The memory bank and its readout: equal to the definition, bounded, without a matrix of all scores."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hodor.models.memory import readout
from hodor.models.memory.readout import GROUP, Bank, chunked_readout, column_topk, dense_readout

SIZE, KEY, VALUE = (5, 7), 6, 4


def scores(keys: torch.Tensor, query: torch.Tensor, similarity: str) -> torch.Tensor:
    """Return scores (N, Q) by definition: scaled dot product, or scaled negative squared distance."""
    if similarity == "dot":
        return keys @ query / math.sqrt(len(query))
    return -torch.cdist(keys, query.t()).square() / math.sqrt(len(query))


def by_definition(keys, values, query, *, similarity, top_k=0, sigma=None):
    """Return the dense readout of one object: keys (N, Ck), values (N, Cv), query (Ck, h, w)."""
    s = scores(keys, query.flatten(1), similarity)
    if sigma is not None:  # KMN weights the softmax and normalises again; so does its logarithm before the softmax
        s += gaussian(s, sigma).log()
    if top_k:
        s = s.masked_fill(s < s.topk(min(top_k, len(s)), dim=0).values[-1], -math.inf)
    return (values.t() @ s.softmax(0)).unflatten(1, query.shape[1:])


def gaussian(s: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return KMN's kernel (N, Q) around the best match of each memory cell, not separated."""
    place = torch.stack(torch.meshgrid(*map(torch.arange, SIZE), indexing="ij"), -1).flatten(0, 1).float()  # (Q, 2)
    distance = (place[None] - place[s.argmax(1)][:, None]).square().sum(2)
    return torch.exp(-distance / (2 * sigma**2))


def filled(frames: int, starts: list[int], *, shared: bool, limit=None):
    """Return a bank and, for each object, the keys (N, Ck) and values (N, Cv) that it must read from frame `starts` on."""
    torch.manual_seed(0)
    bank = Bank(shared, limit)
    seen = [([], []) for _ in starts]
    for t in range(frames):
        count = sum(start <= t for start in starts)
        key, value = torch.randn(1 if shared else count, KEY, *SIZE), torch.randn(count, VALUE, *SIZE)
        bank.add(t, key, value, kept=t in starts)
        for k in range(count):
            seen[k][0].append(key[0 if shared else k].flatten(1).t())
            seen[k][1].append(value[k].flatten(1).t())
    return bank, [(torch.cat(keys), torch.cat(values)) for keys, values in seen]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("frames", "chunk", "starts"), [(1, 1000, [0, 0]), (3, 1, [0, 0, 0]), (7, 8, [0, 0, 0]), (7, 9, [0, 2, 5])]
)
@pytest.mark.parametrize(
    ("similarity", "top_k", "sigma"),
    [*((s, top_k, None) for s in ("dot", "l2") for top_k in (0, 1, 20, 10_000)), ("dot", 0, 0.7), ("dot", 4, 2.0)],
)
@pytest.mark.parametrize("shared", [False, True])
def test_chunked_readout_is_the_dense_one(frames, chunk, starts, top_k, sigma, shared, similarity):
    """Each object reads the frames from its first one on; top-k is applied after KMN's kernel."""
    bank, seen = filled(frames, starts, shared=shared)
    query, settings = torch.randn(KEY, *SIZE), {"similarity": similarity, "top_k": top_k, "sigma": sigma}
    read = chunked_readout(bank, query, chunk=chunk, **settings)
    assert read.shape == (len(starts), VALUE, *SIZE)
    for k, (keys, values) in enumerate(seen):
        close(read[k], by_definition(keys, values, query, **settings))


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize("shared", [True, False])
def test_readout_of_training_is_the_dense_one(shared, similarity):
    keys, values = torch.randn(2, 1 if shared else 3, KEY, 2, *SIZE), torch.randn(2, 3, VALUE, 2, *SIZE)
    query = torch.randn(2, KEY, *SIZE)
    read = dense_readout(keys, values, query, similarity=similarity)
    for b in range(2):
        for k in range(3):
            key, value = keys[b, 0 if shared else k].flatten(1).t(), values[b, k].flatten(1).t()
            close(read[b, k], by_definition(key, value, query[b], similarity=similarity))


# KMN


def test_the_kernel_weights_the_softmax_which_is_normalised_again():
    """As published, in contrast to the logarithm in `by_definition`."""
    bank, ((keys, values),) = filled(5, [0], shared=False)
    query = torch.randn(KEY, *SIZE)
    s = scores(keys, query.flatten(1), "dot")
    weights = s.softmax(0) * gaussian(s, 3.0)
    read = chunked_readout(bank, query, similarity="dot", sigma=3.0, chunk=8)
    close(read[0], (values.t() @ (weights / weights.sum(0))).unflatten(1, SIZE))


@pytest.mark.parametrize(
    ("scale", "settings"), [(1e4, {"similarity": "l2", "top_k": 5}), (30, {"similarity": "dot", "sigma": 0.05})]
)
def test_large_scores_and_narrow_kernels_are_finite(scale, settings):
    """Before normalisation, weights of cells with a far best match underflow in float32."""
    bank, _ = filled(2, [0], shared=False)
    assert torch.isfinite(chunked_readout(bank, scale * torch.randn(KEY, *SIZE), **settings)).all()


def test_equal_scores_at_the_last_rank_are_read_once_each():
    """Two frames have the same keys: either cell is right, their mixture is not."""
    bank, key = Bank(shared=True, limit=None), torch.randn(1, KEY, *SIZE)
    for t in range(4):
        bank.add(t, key if t in (1, 3) else key + 100, torch.full((1, VALUE, *SIZE), float(t)))
    read = chunked_readout(bank, key[0], similarity="l2", top_k=1)
    assert ((read - 1).abs().minimum((read - 3).abs()) < 1e-6).all()
    close(chunked_readout(bank, key[0], similarity="l2", top_k=2)[0, :, 2, 2], torch.full((VALUE,), 2.0))


@pytest.mark.parametrize(
    ("frames", "limit", "starts", "kept"),
    [(9, 4, [0, 3], [0, 3, 7, 8]), (6, 2, [0, 1, 2], [0, 1, 2, 5]), (20, 5, [0, 0], [0, 16, 17, 18, 19])],
)
def test_the_oldest_frame_but_first_ones_is_forgotten(frames, limit, starts, kept):
    bank, _ = filled(frames, starts, shared=False, limit=limit)
    assert bank.frames == kept
    seen = sum(frame >= start for frame in kept for start in starts)
    held = sum(x.untyped_storage().nbytes() for x in (*bank._keys, *bank._values))
    assert held == 4 * seen * SIZE[0] * SIZE[1] * (KEY + VALUE), "of no other frame"


def test_a_temporary_frame_leaves_with_the_next():
    bank = Bank(shared=True, limit=None)
    for t in range(5):
        bank.add(t, torch.randn(1, KEY, *SIZE), torch.randn(1, VALUE, *SIZE), kept=t == 0, temporary=t in (1, 2, 4))
    assert bank.frames == [0, 3, 4]


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_an_object_reads_its_frames_of_a_bounded_bank(shared, top_k):
    """Frames are forgotten between the first frames of two objects; all scores are far below 0, that of a padded cell."""
    torch.manual_seed(0)
    bank, frames = Bank(shared, limit=4), []
    query = torch.randn(KEY, *SIZE)
    for t in range(7):
        count = 1 if t < 4 else 2
        frames.append((5 + torch.randn(1 if shared else count, KEY, *SIZE), torch.randn(count, VALUE, *SIZE)))
        bank.add(t, *frames[t], kept=t in (0, 4))
        read = chunked_readout(bank, query, similarity="l2", top_k=top_k)
        for k in range(count):
            seen = [frames[f] for f in bank.frames if k < len(frames[f][1])]
            keys = torch.cat([key[0 if shared else k].flatten(1).t() for key, _ in seen])
            values = torch.cat([value[k].flatten(1).t() for _, value in seen])
            close(read[k], by_definition(keys, values, query, similarity="l2", top_k=top_k))
    assert bank.frames == [0, 4, 5, 6]


class Sizes(TorchDispatchMode):
    """Recorder of the size of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = out if isinstance(out, (tuple, list)) else [out]
        self.largest = max(self.largest, *(x.numel() for x in found if isinstance(x, torch.Tensor)), 0)
        return out


@pytest.mark.parametrize(
    ("similarity", "top_k", "sigma"), [("l2", 0, None), ("dot", 0, 7.0), ("l2", 5, None), ("dot", 5, 7.0)]
)
def test_no_matrix_of_all_scores_is_formed(similarity, top_k, sigma, monkeypatch):
    """The largest tensor is a chunk of query cells by all memory cells; for top-k on a CPU the chunk is smaller."""
    bank, _ = filled(10, [0], shared=False)
    query, settings = torch.randn(KEY, *SIZE), {"similarity": similarity, "top_k": top_k, "sigma": sigma}
    with Sizes() as sizes:
        read = chunked_readout(bank, query, chunk=8, **settings)
    assert sizes.largest == 8 * 10 * SIZE[0] * SIZE[1]
    monkeypatch.setattr(readout, "CPU_SCORES", 1)
    if top_k and not sigma:
        with Sizes() as sizes:
            close(chunked_readout(bank, query, chunk=1000, **settings), read)
        assert sizes.largest == 32 * 10 * SIZE[0] * SIZE[1]


# Top-k of columns


def near_ties(rows: int) -> list[torch.Tensor]:
    """Return random scores, many equal ones, and high ones in one group, in a row of every third, or in the rest."""
    made = [torch.randn(rows, columns) for columns in (1, 7, 64)]
    made += [torch.randint(kinds, (rows, 9)).float() for kinds in (1, 2, 5)]
    for large in (slice(GROUP, 2 * GROUP), slice(3, None, 3 * GROUP), slice(-7, None)):
        made.append(-torch.rand(rows, 3))
        made[-1][large] += 20
    return made


@pytest.mark.parametrize("k", [1, 5, 16, 20])
@pytest.mark.parametrize("rows", [2 * GROUP, 79 * GROUP, 80 * GROUP, 80 * GROUP + 1, 300 * GROUP - 1])
def test_column_topk(rows, k):
    torch.manual_seed(rows)
    for scores in near_ties(rows):
        values, found = column_topk(scores, k)
        assert values.shape == found.shape == (scores.shape[1], k)
        assert torch.equal(values.sort(1).values, scores.topk(k, dim=0).values.t().sort(1).values)
        assert torch.equal(scores.t().gather(1, found), values)
        assert all(len(set(row)) == k for row in found.tolist())
