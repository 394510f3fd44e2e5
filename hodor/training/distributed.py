"""Data-parallel workers as `torchrun` starts them: ranks, exchanged values, start and end."""

import ctypes
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from hodor.config.execution import place
from hodor.errors import HodorError

# The process groups of this process, kept for its lifetime. If DistributedDataParallel had the last reference to one, it would
# free it with the GIL held, and wait forever if gloo's thread needed the GIL at that moment.
_GROUPS: list[dist.ProcessGroup] = []


@dataclass(frozen=True)
class World:
    """This worker (`rank`, from 0) among `size`, and its rank on its machine (`local_rank`). Alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def of_environment() -> "World":
        """Return the worker that `torchrun` started this process as."""
        return World(*place())

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this worker logs, saves and writes results."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this worker's GPU, or `device` on a CPU; HodorError if there are fewer GPUs than workers."""
        if self.alone or device.type != "cuda":
            return device
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            raise HodorError(f"{self.local_rank + 1} or more workers on {count} GPUs; lower `processes` to {count}")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Connect the workers through gloo, and for tensors on GPUs through NCCL.

        If the connection to another worker is lost, this one ends silently: that one has reported why.
        """
        if self.alone:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        _GROUPS.append(dist.group.WORLD)  # type: ignore[arg-type]
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not re.search(r"gloo|NCCL|[Cc]onnection", str(error)):
                raise
            raise SystemExit(1) from None
        finally:
            dist.destroy_process_group()

    def maximum(self, number: int) -> int:
        """Return the maximum of a number over all workers, without waiting for a GPU."""
        if self.alone:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all workers."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def share(self, value: Any) -> Any:
        """Return the first worker's value; that of the others is ignored."""
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def fail(self, error: HodorError) -> NoReturn:
        """End all workers for a reason that all of them have.

        Raises:
            HodorError: in the first worker; the others exit silently with the same status.
        """
        if self.leads:
            raise error
        raise SystemExit(getattr(error, "status", 1))


class StopRequest:
    """Record a signal that asks to stop in `number`, which the training loop reads at every step.

    A second signal changes nothing, so that no write is interrupted.
    """

    number: int = 0

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Install the handlers (in the main thread only) and restore the former ones at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # Before a machine is preempted, a process receives SIGTERM (with Slurm also SIGUSR1).
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number


def end_with_launcher() -> None:
    """End this worker with its launcher, even by `kill -9`: the launcher's locks on the GPUs end then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `hodor` with the arguments in `processes` connected workers on this machine, as `torchrun --standalone` does.

    Unlike torchrun, it adds no traceback to the one-line error of a worker.

    Returns:
        The exit status of the first worker that failed; 128 + its number for a signal, which is passed on to all.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the workers report their faults
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns if a step leaves no parameter unused
    settings = ["--standalone", "--nproc-per-node", str(processes)]
    settings += ["--shutdown-timeout", "120"]  # seconds that workers have after SIGTERM to finish their step and save
    settings += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    try:
        run(parse_args([*settings, "-m", "hodor", *arguments]))
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        # After the first failure torchrun ends the others with SIGTERM.
        killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM}
        for rank, number in killed.items():
            memory = ", usually because the machine's memory ran out: free memory or lower `processes`"
            cause = signal.Signals(number).name + (memory if number == signal.SIGKILL else "")
            print(f"worker {rank} of {processes} was ended by {cause}; the same command resumes", file=sys.stderr)
        if killed:
            return 128 + min(killed.values())
        return max([code for code in codes.values() if code > 0], default=128 + signal.SIGTERM)
    return 0
