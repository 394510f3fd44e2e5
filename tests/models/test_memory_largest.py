"""The largest scores of each column by groups: those of top-k, each once."""

import math

import pytest
import torch

from hodor.models.memory.largest import GROUP, largest, padded


def check(scores: torch.Tensor, k: int):
    values, rows = largest(scores, k)
    assert values.shape == rows.shape == (scores.shape[1], k)
    assert torch.equal(values.sort(1).values, scores.topk(k, dim=0).values.t().sort(1).values)
    assert torch.equal(scores.t().gather(1, rows), values)
    assert all(len(set(row)) == k for row in rows.tolist())


@pytest.mark.parametrize("k", [1, 5, 16, 20])
@pytest.mark.parametrize("groups", [2, 19, 20, 79, 80, 81, 300])
@pytest.mark.parametrize("columns", [1, 7, 64])
def test_is_top_k(groups, k, columns):
    torch.manual_seed(groups)
    check(torch.randn(GROUP * groups, columns), k)


@pytest.mark.parametrize("kinds", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_equal_scores_are_taken_once_each(kinds, k):
    torch.manual_seed(0)
    check(torch.randint(kinds, (GROUP * 100, 9)).float(), k)


@pytest.mark.parametrize("k", [1, GROUP, 20])
def test_all_in_one_group_or_one_in_each(k):
    scores = -torch.rand(GROUP * 100, 3)
    scores[5 * GROUP : 6 * GROUP] += 10
    check(scores, k)
    scores[3 :: 3 * GROUP] += 20
    check(scores, k)


def test_what_fills_up_is_never_taken_while_there_is_another():
    scores = torch.full((padded(20 * GROUP * 4 + 3), 5), -math.inf)
    scores[7:27] = torch.randn(20, 5)
    values, rows = largest(scores, 20)
    assert torch.isfinite(values).all()
    assert rows.sort(1).values.eq(torch.arange(7, 27)).all()


def test_a_matrix_is_filled_up_to_whole_groups():
    assert [padded(n) for n in (1, GROUP, GROUP + 1)] == [GROUP, GROUP, 2 * GROUP]
