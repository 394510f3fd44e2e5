"""What each row takes on this machine: a trial where it fits, a count where it does not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from hodor import paths
from hodor.config.loading import Config
from hodor.config.packs import packs
from hodor.config.stages import StageOptions
from hodor.doctor.cost import GB, GIB, GPUS, TERA, StepCost, step_cost
from hodor.doctor.findings import Finding
from hodor.doctor.trial import Tried, Wanted, attempt
from hodor.errors import HodorError
from hodor.models.base import build_method, without_starting_weights

# Buffers of the steps themselves, on top of what the backward pass keeps.
OVERHEAD = 1.3
# Part of the memory that a trial may fill.
FILL = 0.8
# Waiting for clips beyond this part of a step is worth a word.
WAITING = 0.1


@dataclass(frozen=True)
class Counted:
    """What is known of a row without running it. Bytes: of the weights; of one clip of a step."""

    weights: int
    step: StepCost

    def memory(self, batch: int) -> int:
        """Bytes of weights, gradients, optimiser and what a step of so many clips keeps."""
        return int(4 * self.weights + OVERHEAD * batch * self.step.kept_bytes)


def count(config: Config, row: str) -> Counted:
    """Counts the row's parameters and, where it is trained, one clip of its step."""
    method, options, stage = config.rows[row].method, config.options[row], config.stage(row)
    built = build_method(method, without_starting_weights(options))
    weights = 4 * sum(parameter.numel() for parameter in built.parameters())
    return Counted(weights, step_cost(method, options, stage) if stage else StepCost(0, 0))


def run_bytes(counted: Counted, trained: bool) -> int:
    """Disk of a run: weights, and two checkpoints of weights and optimiser, as `hodor cost` counts them."""
    return counted.weights * (7 if trained else 1)


def try_row(config: Config, row: str, counted: Counted, folder: Path, steps: int, seconds: float) -> Iterator[Finding]:
    """One line: the trial, and the projection to the whole training.

    Args:
        folder: working directory, whose prepared data are used where they are there.
        steps, seconds: the trial ends with the first of them.
    """
    stage, subject = config.stage(row), f"training {row}"
    if stage is None or stage.steps == 0:
        return
    device = "cuda" if config.scale.device == "cuda" and torch.cuda.is_available() else "cpu"
    elsewhere = device != config.scale.device
    # Where the row will not train, one clip says as much, sooner.
    batch = fitting_batch(counted, 1 if elsewhere else stage.batch, free_memory(device))
    counts = f"counted: {hours(counted.step.operations * stage.batch / (GPUS['h200'] * TERA), stage)} on an H200"
    counts += f", {counted.memory(stage.batch) / GIB:.1f} GiB, {run_bytes(counted, True) / GB:.1f} GB on the disk"
    if batch == 0:
        text = f"not tried: one clip needs {counted.memory(1) / GIB:.1f} GiB, more than is free here; {counts}"
        yield Finding("warning" if elsewhere else "wrong", subject, text, "a machine with more memory")
        return
    data = paths.data(config.scale.name)
    real = has_data(folder / data, stage)
    wanted = Wanted(
        title=f"{row} (trial)",
        method=config.rows[row].method,
        options=config.options[row],
        stage=stage.model_copy(update={"steps": steps, "batch": batch, "checkpoint_every": steps + 1}),
        data=folder / data if real else None,
        device=device,
        threads=config.scale.threads if not elsewhere else min(config.scale.threads, len(os.sched_getaffinity(0))),
        precision=config.scale.precision,
        seconds=seconds,
    )
    tried = attempt(wanted)
    if tried.error:
        level = "warning" if elsewhere else "wrong"
        mend = (
            "more --seconds, or a faster machine"
            if "no step" in tried.error
            else "lower `batch` of the stage, or mend the data"
        )
        yield Finding(level, subject, f"no trial: {tried.error}; {counts}", mend)
        return
    yield _told(stage, wanted, tried, subject, real, elsewhere, counts, run_bytes(counted, True))


def _told(
    stage: StageOptions, wanted: Wanted, tried: Tried, subject: str, real: bool, elsewhere: bool, counts: str, disk: int
) -> Finding:
    kind = "of real data" if real else "without content (data set absent)"
    whole = tried.seconds * stage.batch / wanted.stage.batch
    text = (
        f"{tried.steps} steps of {wanted.stage.batch} clips {kind} on the {wanted.device}: {tried.seconds:.3g} s a step"
    )
    text += f", {100 * tried.waiting:.0f} % of it waiting for clips" if real else ""
    text += f"; {stage.steps} steps of {stage.batch}: {hours(whole, stage)}"
    text += f", {tried.memory / GIB:.1f} GiB of memory, {disk / GB:.1f} GB on the disk"
    if elsewhere:
        mend = "no GPU here: these are not the scale's hours; run it again on the machine that is to train"
        return Finding("warning", subject, f"{text} ({counts})", mend)
    if wanted.stage.batch < stage.batch:
        return Finding(
            "wrong", subject, f"{text}; the whole batch does not fit", "lower `batch` of the stage, or more memory"
        )
    if real and tried.waiting > WAITING:
        more = "" if stage.packed else " or `packed: {}`"
        return Finding("warning", subject, text, f"more `workers`{more} in the stage")
    return Finding("ok", subject, text)


def hours(seconds: float, stage: StageOptions) -> str:
    """`12.5 h`, `40 s` for all steps of a stage."""
    total = seconds * stage.steps
    return f"{total / 3600:.1f} h" if total >= 360 else f"{total:.0f} s"


def has_data(data: Path, stage: StageOptions) -> bool:
    """Whether all that a stage reads is there."""
    if stage.packed is not None:
        return all((data / "packed" / f"{id.name}.json").is_file() for id in packs(stage))
    return all(
        (data / f"{source.dataset}.json").is_file() and (data / source.dataset).is_dir() for source in stage.sources
    )


def fitting_batch(counted: Counted, batch: int, free: int) -> int:
    """The largest batch up to the wanted one that fits into the memory given (bytes); 0 where not one clip does."""
    return next((size for size in range(batch, 0, -1) if counted.memory(size) <= FILL * free), 0)


def free_memory(device: str) -> int:
    """Bytes that a training may use: of the GPU, or of this machine within the limit of its container."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError, StopIteration):
        pass  # no such files, or no limit ("max")
    return free


def require_positive(**values: float) -> None:
    """HodorError for a number below 0 on the command line."""
    for name, value in values.items():
        if value < 0:
            raise HodorError(f"--{name} {value}: must not be below 0")
