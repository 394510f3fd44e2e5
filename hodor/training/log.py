"""The training log: one JSON line every few steps. A progress bar or lines on stderr and TensorBoard show the same values."""

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hodor.data.progress import duration
from hodor.provenance import write_text_atomic


class TrainingLog:
    """Append lines to `path`; lines after the step `first`, from which a training resumes, are dropped.

    Args:
        path: file of the log.
        title: of the run, for the progress line.
        first: step from which the training starts.
        steps: number of steps of the stage.
        events: folder for the event files of TensorBoard (needs the package `tensorboard`); None: no such files.
    """

    def __init__(self, path: Path, *, title: str, first: int, steps: int, events: Path | None = None) -> None:
        self.path, self.title, self.steps = path, title, steps
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= first]
            write_text_atomic(path, "".join(line + "\n" for line in kept))
        self.step, self.time, self.rate = first, time.monotonic(), 0.0
        self.bar = None
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):  # benchmarks/gpu.py runs where it is not installed
                from tqdm import tqdm

                self.bar = tqdm(desc=title, total=steps, initial=first, unit="step")
        self.events = None
        if events:
            from torch.utils.tensorboard import SummaryWriter

            if first == 0:
                shutil.rmtree(events, ignore_errors=True)  # of a training with other settings
            self.events = SummaryWriter(events, purge_step=first + 1)

    def write(self, step: int, examples: int, values: dict[str, Any]) -> None:
        """Log `values` after `step` steps; `examples` is the number of clips since the last line."""
        now = time.monotonic()
        speed = (now - self.time) / (step - self.step)  # seconds per step
        self.rate = speed if self.rate == 0 else 0.7 * self.rate + 0.3 * speed
        per_second = examples / (now - self.time)
        advanced = step - self.step
        self.step, self.time = step, now
        line = {"step": step, "steps": self.steps, **values, "examples_per_second": round(per_second, 3)}
        with self.path.open("a") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        if self.events:
            for name, value in {**values, "examples_per_second": line["examples_per_second"]}.items():
                for index, number in np.ndenumerate(value):  # alphas: of each layer and head
                    self.events.add_scalar("/".join([name, *map(str, index)]), number, step)
            self.events.flush()
        shown = f"loss {values['loss']:.4f}, {per_second:.1f} examples/s"
        if self.bar is None:
            left = duration((self.steps - step) * self.rate)
            print(f"{self.title}: step {step} of {self.steps}, {shown}, {left} left", file=sys.stderr, flush=True)
            return
        self.bar.set_postfix_str(shown, refresh=False)
        self.bar.update(advanced)
        if step == self.steps:
            self.bar.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # half a line, written when the run was killed
        return float("inf")
