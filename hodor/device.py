"""The device that a step computes on."""

import torch

from hodor.errors import HodorError


def prepare_device(device: str, threads: int) -> torch.device:
    """The device `cpu` or `cuda`; sets the number of threads, on which sums in floating point depend.

    Raises:
        HodorError: a GPU is asked for and torch sees none.
    """
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise HodorError("the scale asks for a GPU (device: cuda) and torch sees none: mend the driver, or device: cpu")
    return torch.device(device)
