"""Which form of a layer runs: the plain one, or the one for inference.

Layers whose plain form is what training runs have a second one for where no gradient is asked for, above all on a CPU:
products saved (`winograd`), rows gathered instead of maps sampled (`deformable`), work in pieces that stay in the cache
(`swin_rows`). On a CPU all of them lay maps out channels last, so that a pixel's channels are one row of a matrix.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_plain = False


@contextmanager
def plain_forms() -> Iterator[None]:
    """Within it every layer takes its plain form: what the others are compared with."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def inference(*tensors: Tensor) -> bool:
    """Whether no gradient is wanted through any of them, and the forms for inference are not refused."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return not wanted and not _plain


def cpu_float32(*tensors: Tensor) -> bool:
    """Whether all are float32 on a CPU, no other precision is asked for, nothing is compiled, and no form is refused."""
    return (
        all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not _plain
    )


def cpu_inference(*tensors: Tensor) -> bool:
    """Whether both `inference` and `cpu_float32` hold."""
    return cpu_float32(*tensors) and inference(*tensors)
