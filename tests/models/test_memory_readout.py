"""The memory bank and its readout: equal to the dense form, bounded, and never moved."""

import math

import pytest
import torch

from hodor.models.memory import readout
from hodor.models.memory.bank import BLOCK_FRAMES, Bank
from hodor.models.memory.readout import chunked_readout, dense_readout

SIZE, KEY, VALUE = (5, 7), 6, 4


def scores(keys: torch.Tensor, query: torch.Tensor, similarity: str) -> torch.Tensor:
    """(N, Q) by the definitions: scaled dot product, or scaled negative squared distance."""
    if similarity == "dot":
        return keys @ query / math.sqrt(len(query))
    return -torch.cdist(keys, query.t()).square() / math.sqrt(len(query))


def by_definition(keys, values, query, *, similarity, top_k=0, kernel=None):
    """Readout of one object in the dense form: keys (N, Ck), values (N, Cv), query (Ck, h, w), kernel (N, Q)."""
    s = scores(keys, query.flatten(1), similarity)
    if top_k:
        s = s.masked_fill(s < s.topk(min(top_k, len(s)), dim=0).values[-1], -math.inf)
    weights = s.softmax(0)
    if kernel is not None:
        weights = weights * kernel / (weights * kernel).sum(0)
    return (values.t() @ weights).unflatten(1, query.shape[1:])


def gaussian(s: torch.Tensor, sigma: float) -> torch.Tensor:
    """KMN's kernel (N, Q) around the best match of each memory cell, without separation."""
    place = torch.stack(torch.meshgrid(*map(torch.arange, SIZE), indexing="ij"), -1).flatten(0, 1).float()  # (Q, 2)
    distance = (place[None] - place[s.argmax(1)][:, None]).square().sum(2)
    return torch.exp(-distance / (2 * sigma**2))


def filled(frames: int, objects: int, *, shared: bool, limit=None, starts=None, seed=0):
    """A bank and, for each object, the keys (N, Ck) and values (N, Cv) that it has to see."""
    torch.manual_seed(seed)
    bank = Bank(shared=shared, limit=limit)
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


@pytest.mark.parametrize("frames", [1, 3, BLOCK_FRAMES + 4])
@pytest.mark.parametrize("chunk", [1, 8, 1000])
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


def test_top_k_of_large_scores_does_not_overflow():
    bank, _ = filled(2, 1, shared=True)
    read = chunked_readout(bank, 1e4 * torch.randn(KEY, *SIZE), similarity="l2", top_k=5)
    assert torch.isfinite(read).all()


# KMN


@pytest.mark.parametrize("chunk", [3, 8, 1000])
@pytest.mark.parametrize("sigma", [0.7, 3.0])
@pytest.mark.parametrize("frames", [2, BLOCK_FRAMES + 1])
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


def test_an_infinite_kernel_is_none():
    bank, _ = filled(3, 2, shared=False)
    query = torch.randn(KEY, *SIZE)
    plain = chunked_readout(bank, query, similarity="dot", chunk=8)
    assert torch.equal(chunked_readout(bank, query, similarity="dot", sigma=math.inf, chunk=8), plain)
    assert not torch.allclose(chunked_readout(bank, query, similarity="dot", sigma=1.0, chunk=8), plain)


def test_a_narrow_kernel_does_not_underflow():
    """Cells whose best match is far have weights below the smallest number of float32 before they are normalised."""
    bank, _ = filled(2, 1, shared=False)
    assert torch.isfinite(chunked_readout(bank, 30 * torch.randn(KEY, *SIZE), similarity="dot", sigma=0.05)).all()


@pytest.mark.parametrize("chunk", [3, 1000])
def test_the_largest_are_those_under_the_kernel(chunk):
    bank, seen = filled(BLOCK_FRAMES + 1, 2, shared=False)
    query = torch.randn(KEY, *SIZE)
    read = chunked_readout(bank, query, similarity="dot", top_k=4, sigma=2.0, chunk=chunk)
    for k, (keys, values) in enumerate(seen):
        s = scores(keys, query.flatten(1), "dot")
        s += gaussian(s, 2.0).log()
        weights = s.masked_fill(s < s.topk(4, dim=0).values[-1], -math.inf).softmax(0)
        close(read[k], (values.t() @ weights).unflatten(1, SIZE))


# What is held at a time


@pytest.mark.parametrize("gathered", [1, 3 * VALUE, 2**18])
@pytest.mark.parametrize("room", [1, 36, 35 * 35 - 1, 40 * 700])
@pytest.mark.parametrize(("top_k", "sigma"), [(0, None), (7, None), (0, 2.0), (7, 2.0)])
def test_how_much_is_held_at_a_time_changes_nothing(monkeypatch, room, gathered, top_k, sigma):
    """Parts that end within a frame, with it, and within a block of storage."""
    bank, _ = filled(BLOCK_FRAMES + 4, 2, shared=True, starts=[0, 3])
    query = torch.randn(KEY, *SIZE)
    whole = chunked_readout(bank, query, similarity="l2", top_k=top_k, sigma=sigma, chunk=1000)
    monkeypatch.setattr(readout, "CPU_SCORES", room)
    monkeypatch.setattr(readout, "GATHERED", gathered)
    close(chunked_readout(bank, query, similarity="l2", top_k=top_k, sigma=sigma, chunk=1000), whole)


def test_equal_scores_at_the_last_rank_are_read_once_each():
    """Two frames with the same keys: the best cell is in both, either is right, their mixture is not."""
    bank, key = Bank(shared=True, limit=None), torch.randn(1, KEY, *SIZE)
    for t in range(4):
        bank.add(t, key if t in (1, 3) else key + 100, torch.full((1, VALUE, *SIZE), float(t)))
    read = chunked_readout(bank, key[0], similarity="l2", top_k=1)
    assert ((read - 1).abs().minimum((read - 3).abs()) < 1e-6).all()
    close(chunked_readout(bank, key[0], similarity="l2", top_k=2)[0, :, 2, 2], torch.full((VALUE,), 2.0))


def test_scores_that_grow_from_part_to_part_do_not_overflow(monkeypatch):
    """The softmax over all cells is summed part by part: the largest score comes last, or first."""
    query = torch.randn(KEY, *SIZE)
    monkeypatch.setattr(readout, "CPU_SCORES", 1)
    for order in (range(3), reversed(range(3))):
        bank = Bank(shared=True, limit=None)
        for t, height in enumerate(order):
            bank.add(t, 1000.0 * height * query.unsqueeze(0), torch.full((1, VALUE, *SIZE), float(height)))
        close(chunked_readout(bank, query, similarity="dot"), torch.full((1, VALUE, *SIZE), 2.0))


# Memory


@pytest.mark.parametrize(("top_k", "sigma"), [(0, None), (6, None), (0, 2.0)])
@pytest.mark.parametrize("shared", [True, False])
def test_an_object_reads_no_frame_before_its_first(shared, sigma, top_k):
    """Objects that appear on frames 0, 2 and after the first block of storage."""
    bank, seen = filled(BLOCK_FRAMES + 3, 3, shared=shared, starts=[0, 2, BLOCK_FRAMES + 1])
    query = torch.randn(KEY, *SIZE)
    read = chunked_readout(bank, query, similarity="dot", top_k=top_k, sigma=sigma, chunk=9)
    for k, (keys, values) in enumerate(seen):
        kernel = None if sigma is None else gaussian(scores(keys, query.flatten(1), "dot"), sigma)
        close(read[k], by_definition(keys, values, query, similarity="dot", top_k=top_k, kernel=kernel))


def test_the_oldest_frame_but_first_ones_is_forgotten():
    bank, _ = filled(9, 2, shared=True, limit=4, starts=[0, 3])
    assert bank.frames == [0, 3, 7, 8]


def test_a_bank_of_first_frames_alone_keeps_them_and_the_newest():
    bank, _ = filled(6, 3, shared=True, limit=2, starts=[0, 1, 2])
    assert bank.frames == [0, 1, 2, 5]


def test_what_is_forgotten_is_not_read():
    torch.manual_seed(0)
    frames = [(torch.randn(1, KEY, *SIZE), torch.randn(1, VALUE, *SIZE)) for _ in range(6)]
    bounded, fresh = Bank(shared=False, limit=3), Bank(shared=False, limit=None)
    for t, (key, value) in enumerate(frames):
        bounded.add(t, key, value, kept=t == 0)
        if t in (0, 4, 5):
            fresh.add(t, key, value)
    query = torch.randn(KEY, *SIZE)
    close(*(chunked_readout(bank, query, similarity="dot") for bank in (bounded, fresh)))


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_an_object_reads_its_frames_where_places_were_taken_again(shared, top_k):
    """A place in the middle of the storage is the only one that the second object sees, then two apart.

    All scores are far below 0, so that a cell which is not seen would be read if its score were any number.
    """
    torch.manual_seed(0)
    bank, frames = Bank(shared=shared, limit=4), []
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


def test_memory_grows_without_moving_and_stays_bounded():
    def storage(bank):
        return {(*key, name): x.data_ptr() for name in ("_keys", "_values") for key, x in getattr(bank, name).items()}

    bank = Bank(shared=False, limit=None)
    seen = {}
    for t in range(3 * BLOCK_FRAMES):
        bank.add(t, torch.randn(2, KEY, *SIZE), torch.randn(2, VALUE, *SIZE))
        now = storage(bank)
        assert seen.items() <= now.items()
        assert len(now) == 4 * (t // BLOCK_FRAMES + 1)
        seen = now
    bounded = Bank(shared=False, limit=5)
    for t in range(40):
        bounded.add(t, torch.randn(2, KEY, *SIZE), torch.randn(2, VALUE, *SIZE), kept=t == 0)
    assert bounded.frames == [0, 36, 37, 38, 39]
    held = sum(x.numel() for name in ("_keys", "_values") for x in getattr(bounded, name).values())
    assert held == 2 * 5 * SIZE[0] * SIZE[1] * (KEY + 1 + VALUE)  # 1: the norm of the key


@pytest.mark.parametrize(("top_k", "sigma"), [(0, None), (0, 7.0), (5, None), (5, 7.0)])
@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_no_matrix_of_all_cells_is_formed(monkeypatch, similarity, top_k, sigma):
    """The largest matrix product of a readout stays below chunk x memory cells, and on a CPU below what its cache holds."""
    bank, _ = filled(10, 1, shared=False)
    cells, largest, mm = SIZE[0] * SIZE[1], 0, torch.mm

    def watched(*args, **settings):
        nonlocal largest
        out = mm(*args, **settings)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(torch, "mm", watched)
    for chunk, room, most in (
        (8, 2**20, 8 * 10 * cells),
        (1000, 2**20, 10 * cells * cells),
        (1000, 32 * 350, 32 * 350),
    ):
        largest = 0
        monkeypatch.setattr(readout, "CPU_SCORES", room)
        chunked_readout(bank, torch.randn(KEY, *SIZE), similarity=similarity, top_k=top_k, sigma=sigma, chunk=chunk)
        assert most / 2 < largest <= most


def test_half_precision_around_it_changes_nothing():
    bank, _ = filled(3, 2, shared=True)
    query = torch.randn(KEY, *SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = chunked_readout(bank, query, similarity="l2", top_k=4)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, chunked_readout(bank, query, similarity="l2", top_k=4))
