"""Training that gives the same bits on the same GPU, as far as torch's operators allow (docs/determinism.md)."""

import os

import torch


def demand_determinism(wanted: bool) -> None:
    """Whether operators must give the same result in every run on one machine; those that cannot are warned of.

    On a CPU all of ours do anyhow, for a given number of threads.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted, warn_only=True)
