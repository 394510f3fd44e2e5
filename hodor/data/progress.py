"""Progress lines for steps that move bytes or files: a plain line every few seconds, for a terminal and a log."""

import sys
import time


class Progress:
    """Counts towards a total and prints rate and remaining time to stderr.

    Args:
        label: what is done, the line's first words.
        total: expected amount, None where unknown.
        unit: "B" for bytes (printed as kB, MB, GB) or the name of what is counted.
        done: amount that existed before the start; the rate leaves it out.
        every: seconds between lines. A step that ends sooner prints its last line alone.
    """

    def __init__(self, label: str, total: int | None, unit: str = "B", done: int = 0, every: float = 5.0):
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.count = self.first = done
        self.start = self.last = time.monotonic()

    def add(self, amount: int) -> None:
        self.count += amount
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.show()

    def show(self) -> None:
        # The line in one piece: several steps may print at once.
        print(f"{self.line()}\n", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.show()

    def line(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-3)
        rate = (self.count - self.first) / seconds
        done = self._amount(self.count)
        if self.total:
            done = f"{100 * self.count / self.total:.0f} %, {done} of {self._amount(self.total)}"
        left = bool(self.total) and 0 < self.count < self.total and rate > 0
        time_text = f"{duration((self.total - self.count) / rate)} left" if left else duration(seconds)
        return f"{self.label}: {done}, {self._amount(rate)}/s, {time_text}"

    def _amount(self, amount: float) -> str:
        return format_bytes(amount) if self.unit == "B" else f"{amount:.0f} {self.unit}"


def format_bytes(amount: float) -> str:
    """1234567 -> "1.2 MB"."""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def duration(seconds: float) -> str:
    """Format a duration: `4.5 s`, `12 min`, `3.1 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
