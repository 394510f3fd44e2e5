"""Train one row with one seed; an interrupted run resumes from its last checkpoint.

On a CPU the final weights are bit for bit the same whether or not the run was interrupted: clips and random numbers
follow from the step, and a checkpoint contains weights, optimiser and step. With data-parallel workers and micro-batches
the training is the same up to rounding (docs/distributed.md).
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hodor.config.execution import Execution
from hodor.config.stages import StageOptions
from hodor.data.clip import Clip
from hodor.data.clips_image import Clips, ImageClips
from hodor.data.clips_static import AffineClips, StcnClips
from hodor.data.clips_video import DenseVideoClips, SparseVideoClips
from hodor.data.dataset import PlannedClips, clips_from
from hodor.device import prepare_device
from hodor.errors import HodorError, Stopped
from hodor.models.base import Method, build_method, load_weights, read_weights, save_run
from hodor.provenance import sha256_file, sha256_json
from hodor.training.checkpoint import Checkpoints
from hodor.training.distributed import StopRequest, World
from hodor.training.gradients import Gradients
from hodor.training.log import TrainingLog
from hodor.training.optim import build_optimiser, learning_rate, set_learning_rate, use_deterministic_algorithms

CLIPS: dict[str, Callable[[StageOptions, Path], Clips]] = {
    "images": ImageClips,
    "sparse-video": SparseVideoClips,
    "dense-video": DenseVideoClips,
    "static-affine": AffineClips,
    "static-stcn": StcnClips,
}


def train(
    stamp: dict[str, Any], data: Path, out: Path, init: Path | None = None, execution: Execution | None = None
) -> None:
    """Train a row and write its run folder; one of several workers under `torchrun`.

    Args:
        stamp: the step's settings (`read_stamp`): method, options, stage (None: untrained), seed, device, threads,
            precision.
        data: folder of the scale's prepared data sets.
        out: run folder (`save_run`). Checkpoints and log are in `out/checkpoints` until the training is complete.
        init: weights to start from (the row's COCO checkpoint), or None.
        execution: how the training is executed, which does not change what it computes.

    Raises:
        HodorError: bad data or settings, a missing device, a loss that is not finite, a full disk, too little memory.
        Stopped: a signal asked to stop, and a checkpoint was written.
    """
    settings, row, world = stamp["settings"], stamp["row"], World.of_environment()
    execution, seed = execution or Execution(), int(settings["seed"])
    device = world.device(prepare_device(settings["device"], settings["threads"], settings["precision"]))
    use_deterministic_algorithms(execution.deterministic)
    if execution.tensorboard and find_spec("tensorboard") is None:
        raise HodorError(
            "--tensorboard: the package tensorboard is not installed; pip install 'hodor-repro[tensorboard]'"
        )
    inputs = {f"{name}.json": sha256_file(data / f"{name}.json") for name in settings["datasets"]}
    if init is not None:
        inputs["init"] = sha256_file(init)
    elif settings["init"] is not None:
        raise HodorError(f"{row}: starts from the weights of {settings['init']['row']}; pass them with --init")
    torch.manual_seed(seed)
    method = build_method(settings["method"], settings["options"])
    if init is not None:
        load_weights(method, read_weights(init)[0], init)
    elif weight_set := settings["options"].get("weights"):
        method.load_starting_weights(data / weight_set)
    method.to(device).train()
    trainer = Trainer(
        method,
        StageOptions(**settings["stage"]) if settings["stage"] else None,
        data,
        out,
        title=f"{row} seed {seed}",
        identity=sha256_json([stamp["sha256"], inputs]),
        seed=seed,
        device=device,
        precision=settings["precision"],
        execution=execution,
        world=world,
    )
    # A signal that arrives while the results are written changes nothing: the run is complete.
    with world.joined(device), trainer.stop.listening():
        seconds = trainer.run()
        if world.leads:
            log = trainer.log.read_text() if trainer.log.exists() else ""
            steps = trainer.options.steps if trainer.options else 0
            executed = execution.model_dump(exclude={"tensorboard"}) | {
                "processes": world.size,
                "micro_batch": trainer.micro_batch,
            }
            record = {"inputs": inputs, "steps": steps, "execution": executed}
            save_run(out, method, stamp, options=settings["options"], seconds=seconds, log=log, **record)
            shutil.rmtree(trainer.checkpoints.folder, ignore_errors=True)


class Trainer:
    """The training loop of one stage; arguments as in `train`.

    Attributes:
        micro_batch: clips that a worker computes at a time, None for all; on a GPU lowered to what fits.
        log: file of the training log.
    """

    def __init__(
        self,
        method: Method,
        options: StageOptions | None,
        data: Path,
        out: Path,
        *,
        title: str,
        identity: str,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        execution: Execution | None = None,
        world: World | None = None,
    ) -> None:
        self.method, self.options, self.data = method, options, data
        self.title, self.seed, self.device, self.precision = title, seed, device, precision
        self.execution, self.world, self.stop = execution or Execution(), world or World(), StopRequest()
        self.micro_batch = self.execution.micro_batch
        self.checkpoints = Checkpoints(out / "checkpoints", identity)
        self.log = out / "checkpoints" / "train.jsonl"

    def run(self) -> float:
        """Train to the end of the stage; return the seconds that it took, those before an interruption included."""
        if self.options is None or self.options.steps == 0:
            return 0.0
        batch, workers = self.options.batch, self.world.size
        if batch % workers:
            error = f"{self.title}: {workers} processes cannot share a batch of {batch} clips"
            self.world.fail(HodorError(f"{error}; set `processes` to a divisor of {batch}"))
        try:
            return self._run(self.options)
        except (RuntimeError, MemoryError) as error:
            if fault := _memory_fault(error):
                raise HodorError(f"{self.title}: {fault}; the same command resumes from the last checkpoint") from error
            raise

    def _run(self, options: StageOptions) -> float:
        method, world, device = self.method, self.world, self.device
        if self.execution.compile:
            for module in method.compilable():
                module.compile()
        optimiser = build_optimiser(method, options, device)
        step, before = self._resume(optimiser)
        gradients = Gradients(
            method, world, micro_batch=self.micro_batch, seed=self.seed, device=device, precision=self.precision
        )
        if device.type == "cuda":
            # The last two steps: losses may depend on whether a step is even, and on the progress of the training.
            gradients.fit(self._largest().to(device), (options.steps - 2, options.steps - 1))
            self.micro_batch = gradients.micro_batch
        started = time.monotonic() - before
        log = None
        if world.leads:
            events = self.log.parents[1] / "tensorboard" if self.execution.tensorboard else None
            log = TrainingLog(self.log, title=self.title, first=step, steps=options.steps, events=events)
        window: list[dict[str, Tensor]] = []
        for clip in self._clips(step):
            rate = learning_rate(options, step)
            set_learning_rate(optimiser, rate)
            window.append(gradients.compute(clip.to(device), step))
            signal = world.maximum(self.stop.number)
            if options.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(method.parameters(), options.gradient_clip)
            optimiser.step()
            step += 1
            due = (signal or step % options.checkpoint_every == 0) and step < options.steps
            # Reading a loss waits for the GPU: several steps are read together, always before a checkpoint.
            if step % options.log_every == 0 or step == options.steps or due:
                means = self._means(window, step)
                if log is not None:
                    values = {**means, "learning_rate": rate, **method.log_values()}
                    log.write(step, len(window) * options.batch, values)
                window = []
            if due and world.leads:
                state = {"weights": method.state_dict(), "optimiser": optimiser.state_dict()}
                self.checkpoints.save(step, {**state, "seconds": time.monotonic() - started})
            if signal and step < options.steps:
                world.maximum(0)  # waits for the first worker's checkpoint: the first worker that leaves ends all
                reason = f"stopped by {Signals(signal).name} after step {step}, checkpoint written"
                world.fail(Stopped(f"{self.title}: {reason}; the same command resumes", 128 + signal))
        return time.monotonic() - started

    def _planned(self) -> PlannedClips:
        assert self.options is not None, "without a stage there are no clips"
        return PlannedClips(
            CLIPS[self.options.kind](self.options, self.data),
            seed=self.seed,
            multiple=self.options.padding_multiple,
            rank=self.world.rank,
            world=self.world.size,
        )

    def _clips(self, step: int) -> Iterator[Clip]:
        planned, pinned = self._planned(), self.device.type == "cuda"
        return clips_from(planned, step, workers=planned.source.options.workers, pinned=pinned)

    def _largest(self) -> Clip:
        """Return this worker's part of the largest batch: the most objects, then the largest frames among 200 batches."""
        clips = self._planned()
        items, objects = clips.plan.items, clips.plan.objects
        steps = np.flatnonzero(objects == objects.max())

        def pixels(step: int) -> int:
            draws = [np.random.default_rng([self.seed, step, place]) for place in range(len(items[step]))]
            sizes = [
                clips.source.size(int(i), int(objects[step]), draw) for i, draw in zip(items[step], draws, strict=True)
            ]
            return max(height for height, _ in sizes) * max(width for _, width in sizes)

        return clips[int(max(steps[:: -(-len(steps) // 200)], key=pixels))]

    def _means(self, window: list[dict[str, Tensor]], step: int) -> dict[str, float]:
        """Return the mean of each logged value over the last steps.

        Raises:
            HodorError: a loss is not finite; the message names its step and the last good checkpoint.
        """
        names = list(window[0])
        sums = self.world.sum(torch.stack([torch.stack([v[name].float() for name in names]) for v in window]))
        losses = sums[:, names.index("loss")].tolist()
        for number, loss in enumerate(losses, step - len(losses) + 1):
            if not math.isfinite(loss):
                good = self.checkpoints.newest()
                error = (
                    f"{self.title}: the loss of step {number} is {loss}; "
                    + (f"the last good checkpoint is {good}" if good else "there is no checkpoint yet")
                    + ". Lower the stage's `learning_rate` or set `gradient_clip`"
                )
                self.world.fail(HodorError(error))
        return dict(zip(names, sums.mean(0).tolist(), strict=True))

    def _resume(self, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
        """Load the newest checkpoint; return its step and the seconds spent before it, (0, 0) without one."""
        state = self.world.share(self.checkpoints.load() if self.world.leads else None)
        if state is None:
            if self.world.leads:
                shutil.rmtree(self.checkpoints.folder, ignore_errors=True)  # the log of other settings
            return 0, 0.0
        self.method.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        if self.world.leads:
            print(f"{self.title}: continues after step {state['step']}", flush=True)
        return state["step"], state["seconds"]


def _memory_fault(error: Exception) -> str | None:
    """Return cause and fix if an error of torch means that memory ran out."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "out of GPU memory; set a smaller `micro_batch` (--micro-batch)"
    if "DataLoader worker" in text:
        cause = "a process that loads data was killed, usually because the machine's memory ran out"
        return f"{cause}; run fewer jobs at once or lower the stage's `workers`"
    if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
        return "out of memory; run fewer jobs at once or set a smaller `micro_batch` (--micro-batch)"
    return None
