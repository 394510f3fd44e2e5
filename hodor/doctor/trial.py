"""A few training steps of a row on the machine at hand, and what the whole training would take there.

The steps are those of `hodor.training.trainer.Trainer`, in a process of their own: one row's memory is not another's, and a row
that does not fit ends its own process alone.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hodor.config.stages import StageOptions
from hodor.data.clip import Clip
from hodor.device import prepare_device
from hodor.doctor.cost import clip_of
from hodor.errors import HodorError
from hodor.models.base import build_method, without_starting_weights
from hodor.provenance import peak_memory_mib
from hodor.training.trainer import Trainer

# Steps left out of the mean where there are enough: the first ones choose kernels and fill buffers.
WARM_UP = 3
# Seconds beyond the budget after which a process is stopped: it starts up, and a step is not cut in two.
START_UP = 60.0


@dataclass(frozen=True)
class Wanted:
    """A trial: the row's method with its options, the stage with `steps` and `batch` as tried, and where it runs."""

    title: str
    method: str
    options: dict[str, Any]
    stage: StageOptions
    data: Path | None  # None: clips without content, of the size of typical images or videos
    device: str
    threads: int
    precision: str
    seconds: float


@dataclass(frozen=True)
class Tried:
    """What came out. seconds: of a step; waiting: part of it that passed until the clip was there.

    memory: bytes, of the GPU where it ran on one, else of the process. error: why there is no step, or "".
    """

    steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    memory: int = 0
    error: str = ""


class _Trial(Trainer):
    """A run that notes when it asks for clips, and ends when its time is over."""

    def __init__(self, *arguments: Any, seconds: float, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.seconds = seconds
        self.steps: list[tuple[float, float]] = []  # seconds of the step, of these spent waiting

    def _clips(self, step: int) -> Iterator[Clip]:
        clips = iter(super()._clips(step) if self.data else self._synthetic())
        end = time.monotonic() + self.seconds
        while True:
            asked = time.monotonic()
            clip = next(clips, None)
            got = time.monotonic()
            if clip is None:
                return
            yield clip
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.monotonic()
            self.steps.append((now - asked, got - asked))
            if now > end:
                return

    def _largest(self) -> Clip:
        return super()._largest() if self.data else next(self._synthetic())

    def _synthetic(self) -> Iterator[Clip]:
        clip = with_objects(clip_of(self.options, batch=self.options.batch, device="cpu"))
        for _ in range(self.options.steps):
            yield clip


def with_objects(clip: Clip) -> Clip:
    """Fills a clip with noise and one rectangle an object, so that every loss has something to count."""
    clip.frames.copy_(torch.randint(0, 256, clip.frames.shape, dtype=torch.uint8))
    height, width = clip.labels.shape[-2:]
    part = width // clip.objects
    for t, annotated in enumerate(clip.annotated):
        for i in range(clip.objects if annotated else 0):
            clip.labels[:, t, height // 4 : 3 * height // 4, i * part + part // 4 : i * part + 3 * part // 4] = i + 1
    return clip


def attempt(wanted: Wanted) -> Tried:
    """Trains a few steps in a process of its own; never raises for what the row does."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(wanted, theirs), daemon=False)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_UP + 2 * wanted.seconds):
            return Tried(error=f"no step ended within {START_UP + 2 * wanted.seconds:.0f} s")
        return Tried(**ours.recv())
    except EOFError:
        process.join()
        return Tried(error=f"the process ended with status {process.exitcode} (killed for its memory?)")
    finally:
        process.kill()
        process.join()


def _child(wanted: Wanted, results: Connection) -> None:
    results.send(asdict(run_steps(wanted)))


def run_steps(wanted: Wanted) -> Tried:
    """Trains a few steps in this process."""
    try:
        device = prepare_device(wanted.device, wanted.threads, wanted.precision)
        torch.manual_seed(0)
        method = build_method(wanted.method, without_starting_weights(wanted.options)).to(device).train()
        with tempfile.TemporaryDirectory() as folder:
            run = _Trial(
                method,
                wanted.stage,
                wanted.data,
                Path(folder),
                title=wanted.title,
                identity="trial",
                seed=0,
                device=device,
                precision=wanted.precision,
                seconds=wanted.seconds,
            )
            run.run()
    except HodorError as error:
        return Tried(error=str(error))
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError among them
        return Tried(error=str(error).splitlines()[0] if str(error) else type(error).__name__)
    if not run.steps:
        return Tried(error="the source gave no clip")
    counted = run.steps[WARM_UP:] if len(run.steps) > 2 * WARM_UP else run.steps[len(run.steps) > 1 :]
    seconds = statistics.fmean(step for step, _ in counted)
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_reserved() if on_gpu else int(peak_memory_mib() * 2**20)
    return Tried(len(run.steps), seconds, statistics.fmean(wait for _, wait in counted) / seconds, memory)
