"""The largest scores of a column and where they stand: exact, without sorting through every score."""

import torch
from torch import Tensor

# Memory cells to a group. A maximum over the rows of a group is one pass at the speed of the cache, while top-k looks at
# every score with a branch: it is left a sixteenth of them, and then the groups that won.
GROUP = 16
_FEW = 4  # below so many times `k` groups, top-k of all scores is as fast


def padded(rows: int) -> int:
    """So many rows has a matrix of scores for `largest`: the next multiple of a group."""
    return -(-rows // GROUP) * GROUP


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each column, in no order; which of equal scores is taken at rank `k` is not determined.

    The `k` largest lie in the `k` groups with the largest maxima, for each group that has one of them has a maximum that
    is at least as large.

    Args:
        scores: (N, n), N a multiple of `GROUP` and at least `k`; filled up with -inf.
        k: at least 1.

    Returns:
        Scores (n, k) and their rows (n, k).
    """
    columns, groups = scores.t(), len(scores) // GROUP
    if groups < _FEW * k:
        return columns.topk(k, dim=1, sorted=False)
    maxima = scores.view(groups, GROUP, -1).amax(1)
    won = maxima.t().contiguous().topk(k, dim=1, sorted=False).indices  # (n, k)
    rows = (won.unsqueeze(2) * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)  # (n, k GROUP)
    values, place = columns.gather(1, rows).topk(k, dim=1, sorted=False)
    return values, rows.gather(1, place)
