"""Training that gives the same bits on the same GPU, as far as torch's operators allow (docs/determinism.md)."""

import os

import torch


def demand_determinism(wanted: bool) -> None:
    """Whether operators must give the same result in every run on one machine; torch warns of those that cannot.

    On a CPU all of ours do anyhow, for a given number of threads.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # Their backward passes add with atomics: where torch only warns, they are not told to do otherwise.
    torch.backends.cuda.enable_flash_sdp(not wanted)
    torch.backends.cuda.enable_mem_efficient_sdp(not wanted)
    torch.backends.cuda.enable_cudnn_sdp(not wanted)
