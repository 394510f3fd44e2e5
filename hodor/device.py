"""The device that a step computes on."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from hodor.allocator import keep_freed_memory
from hodor.errors import HodorError


def prepare_device(device: str, threads: int, precision: str = "float32") -> torch.device:
    """The device `cpu` or `cuda`; sets the number of threads and, on a GPU, whether float32 products may be TF32.

    Sums in floating point depend on the threads. `precision` is `float32`, `tf32` (no difference on a CPU) or
    `bfloat16`, for which `mixed` gives the context.

    Raises:
        HodorError: a GPU is asked for and torch sees none.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    if device == "cuda" and not torch.cuda.is_available():
        raise HodorError("the scale asks for a GPU (device: cuda) and torch sees none: mend the driver, or device: cpu")
    if device == "cpu":
        keep_freed_memory()
    return torch.device(device)


def mixed(device: torch.device, precision: str) -> AbstractContextManager:
    """Within it, convolutions and matrix products run in bfloat16 where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def in_float32(tensor: torch.Tensor) -> AbstractContextManager:
    """Within it, operations keep the precision of their inputs whatever the precision around, where `tensor` lies.

    (torch's meta device, on which costs are counted, knows no other precision and refuses to be asked.)
    """
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


@cache
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A vector of a few numbers, float32, made once: making it again would wait for a GPU. Do not write to it."""
    with torch.inference_mode(False):  # it may be made while a video is segmented, and be used in training
        return torch.tensor(values, dtype=torch.float32, device=device)
