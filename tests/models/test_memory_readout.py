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


def by_definition(keys, values, query, *, similarity, top_k=0, kernel=None):
    """Return the dense readout of one object: keys (N, Ck), values (N, Cv), query (Ck, h, w), kernel (N, Q)."""
    s = scores(keys, query.flatten(1), similarity)
    if top_k:
        s = s.masked_fill(s < s.topk(min(top_k, len(s)), dim=0).values[-1], -math.inf)
    weights = s.softmax(0)
    if kernel is not None:
        weights = weights * kernel / (weights * kernel).sum(0)
    return (values.t() @ weights).unflatten(1, query.shape[1:])


def gaussian(s: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return KMN's kernel (N, Q) around the best match of each memory cell, not separated."""
    place = torch.stack(torch.meshgrid(*map(torch.arange, SIZE), indexing="ij"), -1).flatten(0, 1).float()  # (Q, 2)
    distance = (place[None] - place[s.argmax(1)][:, None]).square().sum(2)
    return torch.exp(-distance / (2 * sigma**2))


def filled(frames: int, objects: int, *, shared: bool, limit=None, starts=None, seed=0):
    """Return a bank and, for each object, the keys (N, Ck) and values (N, Cv) that it must read."""
    torch.manual_seed(seed)
    bank = Bank(shared, limit)
    starts = starts or [0] * objects
    seen = [([], []) for _ in range(objects)]
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


@pytest.mark.parametrize(("frames", "chunk"), [(1, 1000), (3, 1), (7, 8)])
@pytest.mark.parametrize("top_k", [0, 1, 20, 10_000])
@pytest.mark.parametrize(("shared", "similarity"), [(False, "dot"), (True, "l2"), (True, "dot"), (False, "l2")])
def test_chunked_readout_is_the_dense_one(frames, chunk, top_k, shared, similarity):
    bank, seen = filled(frames, 3, shared=shared)
    query = torch.randn(KEY, *SIZE)
    read = chunked_readout(bank, query, similarity=similarity, top_k=top_k, chunk=chunk)
    assert read.shape == (3, VALUE, *SIZE)
    for k, (keys, values) in enumerate(seen):
        close(read[k], by_definition(keys, values, query, similarity=similarity, top_k=top_k))


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


@pytest.mark.parametrize("chunk", [3, 8, 1000])
@pytest.mark.parametrize("sigma", [0.7, 3.0])
@pytest.mark.parametrize("frames", [2, 5])
def test_both_published_forms_of_the_kernel_agree_with_ours(chunk, sigma, frames):
    bank, seen = filled(frames, 2, shared=False)
    query = torch.randn(KEY, *SIZE)
    read = chunked_readout(bank, query, similarity="dot", sigma=sigma, chunk=chunk)
    for k, (keys, values) in enumerate(seen):
        s = scores(keys, query.flatten(1), "dot")
        g = gaussian(s, sigma)
        softmax_first = by_definition(keys, values, query, similarity="dot", kernel=g)
        weights = torch.exp(s - s.max(0).values) * g
        exponential_first = (values.t() @ (weights / weights.sum(0))).unflatten(1, SIZE)
        close(softmax_first, exponential_first)
        close(read[k], softmax_first)


@pytest.mark.parametrize(
    ("scale", "settings"), [(1e4, {"similarity": "l2", "top_k": 5}), (30, {"similarity": "dot", "sigma": 0.05})]
)
def test_large_scores_and_narrow_kernels_are_finite(scale, settings):
    """Before normalisation, weights of cells with a far best match underflow in float32."""
    bank, _ = filled(2, 1, shared=False)
    assert torch.isfinite(chunked_readout(bank, scale * torch.randn(KEY, *SIZE), **settings)).all()


@pytest.mark.parametrize("chunk", [3, 1000])
def test_top_k_is_applied_after_the_kernel(chunk):
    bank, seen = filled(5, 2, shared=False)
    query = torch.randn(KEY, *SIZE)
    read = chunked_readout(bank, query, similarity="dot", top_k=4, sigma=2.0, chunk=chunk)
    for k, (keys, values) in enumerate(seen):
        s = scores(keys, query.flatten(1), "dot")
        s += gaussian(s, 2.0).log()
        weights = s.masked_fill(s < s.topk(4, dim=0).values[-1], -math.inf).softmax(0)
        close(read[k], (values.t() @ weights).unflatten(1, SIZE))


def test_equal_scores_at_the_last_rank_are_read_once_each():
    """Two frames have the same keys: either cell is right, their mixture is not."""
    bank, key = Bank(shared=True, limit=None), torch.randn(1, KEY, *SIZE)
    for t in range(4):
        bank.add(t, key if t in (1, 3) else key + 100, torch.full((1, VALUE, *SIZE), float(t)))
    read = chunked_readout(bank, key[0], similarity="l2", top_k=1)
    assert ((read - 1).abs().minimum((read - 3).abs()) < 1e-6).all()
    close(chunked_readout(bank, key[0], similarity="l2", top_k=2)[0, :, 2, 2], torch.full((VALUE,), 2.0))


# Memory


@pytest.mark.parametrize(("top_k", "sigma"), [(0, None), (6, None), (0, 2.0)])
@pytest.mark.parametrize("shared", [True, False])
def test_an_object_reads_no_frame_before_its_first(shared, sigma, top_k):
    bank, seen = filled(7, 3, shared=shared, starts=[0, 2, 5])
    query = torch.randn(KEY, *SIZE)
    read = chunked_readout(bank, query, similarity="dot", top_k=top_k, sigma=sigma, chunk=9)
    for k, (keys, values) in enumerate(seen):
        kernel = None if sigma is None else gaussian(scores(keys, query.flatten(1), "dot"), sigma)
        close(read[k], by_definition(keys, values, query, similarity="dot", top_k=top_k, kernel=kernel))


@pytest.mark.parametrize(
    ("frames", "limit", "starts", "kept"), [(9, 4, [0, 3], [0, 3, 7, 8]), (6, 2, [0, 1, 2], [0, 1, 2, 5])]
)
def test_the_oldest_frame_but_first_ones_is_forgotten(frames, limit, starts, kept):
    bank, _ = filled(frames, len(starts), shared=True, limit=limit, starts=starts)
    assert bank.frames == kept


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


def test_a_temporary_frame_leaves_with_the_next():
    bank = Bank(shared=True, limit=None)
    for t in range(5):
        bank.add(t, torch.randn(1, KEY, *SIZE), torch.randn(1, VALUE, *SIZE), kept=t == 0, temporary=t in (1, 2, 4))
    assert bank.frames == [0, 3, 4]


def test_a_bounded_bank_has_the_storage_of_its_frames():
    bank = Bank(shared=False, limit=5)
    for t in range(20):
        bank.add(t, torch.randn(2, KEY, *SIZE), torch.randn(2, VALUE, *SIZE), kept=t == 0)
    assert bank.frames == [0, 16, 17, 18, 19]
    held = sum(x.untyped_storage().nbytes() for x in (*bank._keys, *bank._values))
    assert held == 4 * 2 * 5 * SIZE[0] * SIZE[1] * (KEY + VALUE)


class Sizes(TorchDispatchMode):
    """Recorder of the size of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = out if isinstance(out, (tuple, list)) else [out]
        self.largest = max(self.largest, *(x.numel() for x in found if isinstance(x, torch.Tensor)), 0)
        return out


@pytest.mark.parametrize(("top_k", "sigma"), [(0, None), (0, 7.0), (5, None), (5, 7.0)])
@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_no_matrix_of_all_scores_is_formed(similarity, top_k, sigma):
    """The largest tensor of a readout is a chunk of query cells by all memory cells."""
    bank, _ = filled(10, 1, shared=False)
    memory = 10 * SIZE[0] * SIZE[1]
    with Sizes() as sizes:
        chunked_readout(bank, torch.randn(KEY, *SIZE), similarity=similarity, top_k=top_k, sigma=sigma, chunk=8)
    assert sizes.largest == 8 * memory


def test_a_top_k_readout_on_a_cpu_holds_few_scores(monkeypatch):
    bank, _ = filled(10, 1, shared=False)
    query = torch.randn(KEY, *SIZE)
    whole = chunked_readout(bank, query, similarity="l2", top_k=5, chunk=1000)
    monkeypatch.setattr(readout, "CPU_SCORES", 1)
    with Sizes() as sizes:
        close(chunked_readout(bank, query, similarity="l2", top_k=5, chunk=1000), whole)
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
