"""Being told to stop: a preempted machine sends SIGTERM (Slurm: also SIGUSR1) some time before it kills.

The signal is only noted; the loop looks after every step, saves its state and ends. A second signal changes nothing, so
that nothing is cut off while it is written.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """`number`: the signal that asked to stop, 0 as long as none did."""

    number: int = 0

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Within it, the signals are noted instead of ending the process (main thread; elsewhere nothing changes)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
