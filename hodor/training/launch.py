"""Starts the processes of one training on one machine, as `torchrun --standalone` does, and ends as they end.

torchrun itself would put its own traceback under the one line in which a training says what is wrong, and would always
exit with status 1. For several machines it is the way to go: docs/distributed.md.
"""

import logging
import sys
from collections.abc import Sequence
from signal import SIGTERM, Signals

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

# What a run that is told to stop has to finish its step and to save, in seconds.
GRACE = 120


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `hodor` with the arguments in so many processes that find each other; the exit status of the first that failed.

    A signal that ends a program is handed on to all of them; the status then is 128 and its number.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes tell what is wrong
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    settings = ["--standalone", "--nproc-per-node", str(processes)]
    settings += ["--signals-to-handle", signals, "--shutdown-timeout", str(GRACE)]
    try:
        run(parse_args([*settings, "-m", "hodor", *arguments]))
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        # Where one fails, the others get SIGTERM.
        killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != SIGTERM}
        for rank, number in killed.items():
            name = Signals(number).name
            print(f"process {rank} of {processes} was ended by {name}: the same command goes on", file=sys.stderr)
        if killed:
            return 128 + min(killed.values())
        return max([code for code in codes.values() if code > 0], default=128 + SIGTERM)
    return 0
