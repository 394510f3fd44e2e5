"""Progress lines of long steps, and their amounts of bytes and time."""

import sys
import time


class Progress:
    """Counter that prints rate and remaining time to stderr, a plain line every few seconds.

    Args:
        label: first words of the line.
        total: expected amount, None if unknown.
        unit: "B" for bytes (printed as kB, MB, GB) or the name of what is counted.
        done: amount that existed before the start, left out of the rate.
    """

    EVERY_S = 5.0  # a step that ends sooner prints only its last line

    def __init__(self, label: str, total: int | None, unit: str = "B", done: int = 0):
        self.label, self.total, self.unit = label, total, unit
        self.count = self.first = done
        self.start = self.last = time.monotonic()

    def add(self, amount: int) -> None:
        self.count += amount
        if time.monotonic() - self.last >= self.EVERY_S:
            self.last = time.monotonic()
            self.show()

    def show(self) -> None:
        """Print the line, also at the end."""
        # One call with the line end: several threads may print at once.
        print(f"{self.line()}\n", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-3)
        rate = (self.count - self.first) / seconds
        done = self._amount(self.count)
        if self.total:
            done = f"{100 * self.count / self.total:.0f} %, {done} of {self._amount(self.total)}"
        left = self.total - self.count if self.total else 0
        under_way = self.count > 0 and left > 0 and rate > 0
        time_text = f"{duration(left / rate)} left" if under_way else duration(seconds)
        return f"{self.label}: {done}, {self._amount(rate)}/s, {time_text}"

    def _amount(self, amount: float) -> str:
        return format_bytes(amount) if self.unit == "B" else f"{amount:.0f} {self.unit}"


def format_bytes(amount: float) -> str:
    """Format a number of bytes: `1.2 MB`."""
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
