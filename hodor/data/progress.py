"""Progress lines for steps that move bytes or files: a plain line every few seconds, fit for a terminal and a log."""

import sys
import time


class Progress:
    """Counts towards a total and prints rate and time left to stderr.

    Args:
        label: what is being done, the line's first words.
        total: expected amount, None where unknown.
        unit: "B" for bytes (printed as kB, MB, GB) or the name of the things counted.
        done: amount that was there before the start; it is no part of the rate.
        every: seconds between lines. A step that ends sooner prints its last line alone.
    """

    def __init__(self, label: str, total: int | None, unit: str = "B", done: int = 0, every: float = 5.0):
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.count = self.first = done
        self.start = self.last = time.monotonic()

    def add(self, amount: int) -> None:
        self.count += amount
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            self._print()

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        # The line in one piece: several steps may print at once.
        print(f"{self.line()}\n", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-3)
        rate = (self.count - self.first) / seconds
        text = f"{self.label}: "
        if self.total:
            text += f"{100 * self.count / self.total:.0f} %, {self._amount(self.count)} of {self._amount(self.total)}"
        else:
            text += self._amount(self.count)
        text += f", {self._amount(rate)}/s"
        if self.total and 0 < self.count < self.total and rate > 0:
            return text + f", {_duration((self.total - self.count) / rate)} left"
        return text + f", {_duration(seconds)}"

    def _amount(self, amount: float) -> str:
        return format_bytes(amount) if self.unit == "B" else f"{amount:.0f} {self.unit}"


def format_bytes(amount: float) -> str:
    """1234567 -> "1.2 MB"."""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
