"""The training log: one JSON line every few steps, and a progress line on stderr."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from hodor.data.progress import duration
from hodor.provenance import write_text_atomic


class TrainingLog:
    """Append lines to `path`; lines after the step `first`, from which a training resumes, are dropped.

    Args:
        path: file of the log.
        title: of the run, for the progress line.
        first: step from which the training starts.
        steps: number of steps of the stage.
    """

    def __init__(self, path: Path, *, title: str, first: int, steps: int) -> None:
        self.path, self.title, self.steps = path, title, steps
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= first]
            write_text_atomic(path, "".join(line + "\n" for line in kept))
        self.step, self.time, self.rate = first, time.monotonic(), 0.0

    def write(self, step: int, examples: int, values: dict[str, Any]) -> None:
        """Log `values` after `step` steps; `examples` is the number of clips since the last line."""
        now = time.monotonic()
        speed = (now - self.time) / (step - self.step)  # seconds per step
        self.rate = speed if self.rate == 0 else 0.7 * self.rate + 0.3 * speed
        per_second = examples / (now - self.time)
        self.step, self.time = step, now
        line = {"step": step, "steps": self.steps, **values, "examples_per_second": round(per_second, 3)}
        with self.path.open("a") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        progress = f"step {step} of {self.steps}, loss {values['loss']:.4f}, {per_second:.1f} examples/s"
        left = duration((self.steps - step) * self.rate)
        print(f"{self.title}: {progress}, {left} left", file=sys.stderr, flush=True)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # half a line, written when the run was killed
        return float("inf")
