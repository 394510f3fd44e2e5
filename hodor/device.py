"""Devices, threads and precision."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from hodor.errors import HodorError


def prepare_device(device: str, threads: int, precision: str = "float32") -> torch.device:
    """Set the number of threads and the precision of float32 products, and return the device.

    Args:
        device: `cpu` or `cuda`.
        threads: CPU threads, on which floating-point sums depend.
        precision: `float32`, `tf32` (a GPU may compute float32 products in TF32) or `bfloat16` (see `mixed`).

    Raises:
        HodorError: `cuda` without a usable GPU.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    if device == "cuda" and not torch.cuda.is_available():
        raise HodorError("device: cuda: torch finds no GPU; fix the driver or set device: cpu")
    return torch.device(device)


def mixed(device: torch.device, precision: str) -> AbstractContextManager:
    """Return a context in which convolutions and matrix products run in bfloat16 if `precision` is `bfloat16`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a CPU multiplies matrices in bfloat16 faster than in float32 (AMX)."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in every torch from 2.11 on
    return device.type == "cpu" and capabilities is not None and bool(capabilities().get("amx_bf16"))


def in_float32(tensor: torch.Tensor) -> AbstractContextManager:
    """Return a context in which autocast is disabled on the device of `tensor`."""
    # The meta device, on which `hodor cost` counts, has no autocast.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


@cache
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return a float32 vector, cached because creating one synchronises with the GPU; it must not be modified."""
    with torch.inference_mode(False):  # training cannot use an inference tensor
        return torch.tensor(values, dtype=torch.float32, device=device)


def feature_map(x: torch.Tensor) -> torch.Tensor:
    """Return a map (B, C, H, W) in its faster memory layout: contiguous on a GPU, on a CPU as it is (channels last)."""
    return x if x.device.type == "cpu" else x.contiguous()
