"""Data-parallel workers without a launcher."""

import os
import socket
from collections.abc import Callable
from multiprocessing import get_context

LIMIT_S = 180


def together(function: Callable[..., None], *arguments, size: int = 2) -> None:
    """Call `function(*arguments)`, picklable by name, in `size` processes that are connected as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("spawn")
    processes = [context.Process(target=_run, args=(r, size, port, function, arguments)) for r in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT_S)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * size, codes


def _run(rank: int, size: int, port: int, function: Callable[..., None], arguments: tuple) -> None:
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    names |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    os.environ.update({name: str(value) for name, value in names.items()})
    import torch

    torch.set_num_threads(1)
    function(*arguments)
