"""Train one row with one seed; a killed run continues where its last checkpoint was.

On a CPU the weights at the end are bit for bit the same whether or not the run was broken off in between: batches and
random numbers follow from the step, and a checkpoint holds weights, optimiser and step. Several processes, or parts of
a batch, give the same training but for rounding (docs/distributed.md).
"""

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import Tensor

from hodor.config.execution import Execution
from hodor.config.stages import StageOptions
from hodor.data.clip import Clip
from hodor.data.clips_image import ImageClips
from hodor.data.clips_static import AffineClips, StcnClips
from hodor.data.clips_video import DenseVideoClips, SparseVideoClips
from hodor.data.dataset import PlannedClips, clips_from
from hodor.device import prepare_device
from hodor.errors import HodorError, Stopped
from hodor.models.base import Method, build_method, load_weights, read_weights, save_model
from hodor.provenance import (
    commit,
    machine,
    peak_memory_mib,
    sha256_file,
    sha256_json,
    versions,
    write_json_atomic,
    write_text_atomic,
)
from hodor.training.checkpoints import Checkpoints
from hodor.training.determinism import demand_determinism
from hodor.training.distributed import World
from hodor.training.log import TrainingLog
from hodor.training.micro_batches import Gradients
from hodor.training.optimisers import build_optimiser, set_learning_rate
from hodor.training.schedules import learning_rate
from hodor.training.signals import StopRequest
from hodor.training.transfer import on_device

CLIPS = {
    "images": ImageClips,
    "sparse-video": SparseVideoClips,
    "dense-video": DenseVideoClips,
    "static-affine": AffineClips,
    "static-stcn": StcnClips,
}


def train(
    stamp: dict[str, Any], data: Path, out: Path, init: Path | None = None, execution: Execution | None = None
) -> None:
    """Train a row and write its weights, log and provenance; one of the processes where `torchrun` started several.

    Args:
        stamp: the step's settings (`read_stamp`): method, options, stage (None: untrained), seed, device, threads,
            precision.
        data: folder of the prepared data sets of the scale, packs in its folder `packed`.
        out: run folder; gets model.safetensors, train.jsonl and train.json. Until then the state of the run lies in
            `out/checkpoints`.
        init: weights to start from (the row's COCO checkpoint), or None.
        execution: how it is executed; no part of what the run is.

    Raises:
        HodorError: bad data or settings, a device that is not there, a loss that is not finite, a full disk.
        Stopped: a signal asked to stop, and a checkpoint was written.
    """
    settings, row, world = stamp["settings"], stamp["row"], World.of_environment()
    execution = execution or Execution()
    seed = int(settings["seed"])
    device = world.device(prepare_device(settings["device"], settings["threads"], settings["precision"]))
    demand_determinism(execution.deterministic)
    names = [*settings["datasets"], *(f"packed/{name}" for name in settings.get("packs", ()))]
    inputs = {f"{name}.json": sha256_file(data / f"{name}.json") for name in names}
    if init is not None:
        inputs["init"] = sha256_file(init)
    elif settings["init"] is not None:
        raise HodorError(f"{row} starts from the weights of {settings['init']['row']}: give them with --init")
    torch.manual_seed(seed)
    method = build_method(settings["method"], settings["options"])
    if init is not None:
        load_weights(method, read_weights(init)[0], init)
    elif weight_set := settings["options"].get("weights"):
        method.load_starting_weights(data / weight_set)
    method.to(device).train()

    run = Run(
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
    # Also while the results are written: a run that is told to stop then is done.
    with world.joined(device), run.stop.listening():
        seconds = run.run()
        if not world.leads:
            return
        out.mkdir(parents=True, exist_ok=True)
        save_model(out / "model.safetensors", method, name=settings["method"], options=settings["options"])
        log = run.checkpoints.folder / "train.jsonl"
        write_text_atomic(out / "train.jsonl", log.read_text() if log.exists() else "")
        write_json_atomic(
            out / "train.json",
            {
                "stamp": stamp["sha256"],
                "stamp_content": {key: value for key, value in stamp.items() if key != "sha256"},
                "inputs": inputs,
                "model": sha256_file(out / "model.safetensors"),
                "parameters": sum(parameter.numel() for parameter in method.parameters()),
                "steps": run.options.steps if run.options else 0,
                "time_s": round(seconds, 2),
                "peak_memory_mib": round(peak_memory_mib(), 1),
                "execution": run.executed(),
                "machine": machine(),
                "versions": versions(),
                "commit": commit(),
            },
        )
        shutil.rmtree(run.checkpoints.folder, ignore_errors=True)


class Run:
    """The loop of one stage. `run()` returns the seconds it took, those before an interruption included."""

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
        self.title, self.seed, self.device = title, seed, device
        self.execution, self.world, self.stop = execution or Execution(), world or World(), StopRequest()
        self.checkpoints = Checkpoints(out / "checkpoints", identity)
        self.gradients = Gradients(
            method,
            self.world,
            micro_batch=self.execution.micro_batch,
            seed=seed,
            device=device,
            precision=precision,
            title=title,
        )

    def run(self) -> float:
        if self.options is None or self.options.steps == 0:
            return 0.0
        options, method, world = self.options, self.method, self.world
        if options.batch % world.size:
            error = f"{self.title}: {world.size} processes cannot share a batch of {options.batch} clips: take as many"
            world.fail(HodorError(f"{error} as divide it (`processes`)"))
        if self.execution.compile:
            for module in method.compilable():
                module.compile()
        optimiser = build_optimiser(method, options, self.device)
        step, before = self._resume(optimiser)
        started = time.monotonic()
        log = None
        if world.leads:
            place = self.checkpoints.folder / "train.jsonl"
            log = TrainingLog(place, title=self.title, first=step, steps=options.steps)
        window: list[dict[str, Tensor]] = []
        for clip in on_device(self._clips(step), self.device):
            rate = learning_rate(options, step)
            set_learning_rate(optimiser, rate)
            values, signal = self.gradients.compute(clip, step, self.stop)
            if options.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(method.parameters(), options.gradient_clip)
            optimiser.step()
            window.append(values)
            step += 1
            due = (signal or step % options.checkpoint_every == 0) and step < options.steps
            # Reading a loss waits for the GPU: several steps are read together, always before a checkpoint.
            if step % options.log_every == 0 or step == options.steps or due:
                means = self._means(window, step)
                if log is not None:
                    count = len(window) * options.batch
                    log.write(step, count, {**means, "learning_rate": rate, **method.log_values()})
                window = []
            if due:
                self._save(step, optimiser, before + time.monotonic() - started)
            if signal and step < options.steps:
                self._end(signal, step)
        return before + time.monotonic() - started

    def executed(self) -> dict[str, Any]:
        """How the run was executed in the end, for its record."""
        micro_batch = self.gradients.micro_batch  # smaller than asked for where the GPU's memory did not last
        return self.execution.model_dump() | {"processes": self.world.size, "micro_batch": micro_batch}

    def _clips(self, step: int) -> Iterator[Clip]:
        source = CLIPS[self.options.kind](self.options, self.data)
        clips = PlannedClips(
            source.plan(self.seed),
            source.make,
            source.size,
            seed=self.seed,
            multiple=self.options.padding_multiple,
            rank=self.world.rank,
            world=self.world.size,
        )
        return clips_from(clips, step, workers=self.options.workers, pinned=self.device.type == "cuda")

    def _means(self, window: list[dict[str, Tensor]], step: int) -> dict[str, float]:
        """Mean of each logged value over the last steps.

        Raises:
            HodorError: a loss that is not finite, with its step and the checkpoint to look at.
        """
        names = list(window[0])
        sums = self.world.sum(torch.stack([torch.stack([v[name].float() for name in names]) for v in window]))
        losses = sums[:, names.index("loss")].tolist()
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                good = self.checkpoints.newest()
                error = HodorError(
                    f"{self.title}: the loss of step {step - len(losses) + i + 1} is {loss}; "
                    + (f"the last good checkpoint is {good}" if good else "there is no checkpoint yet")
                    + ". Lower the stage's `learning_rate` or set `gradient_clip`"
                )
                self.world.fail(error)
        return dict(zip(names, sums.mean(0).tolist(), strict=True))

    def _save(self, step: int, optimiser: torch.optim.Optimizer, seconds: float) -> None:
        if self.world.leads:
            weights, state = self.method.state_dict(), optimiser.state_dict()
            self.checkpoints.save(step, {"weights": weights, "optimiser": state, "seconds": seconds})

    def _resume(self, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
        """Continue from the newest checkpoint: its step and the seconds spent so far; (0, 0) without one."""
        state = self.world.share(self.checkpoints.load() if self.world.leads else None)
        if state is None:
            if self.world.leads:
                shutil.rmtree(self.checkpoints.folder, ignore_errors=True)  # a log of other settings
            return 0, 0.0
        self.method.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        if self.world.leads:
            print(f"{self.title}: continues after step {state['step']}", flush=True)
        return state["step"], state["seconds"]

    def _end(self, signal: int, step: int) -> None:
        """Ends a run that was asked to stop, once its checkpoint lies there.

        Raises:
            Stopped: always, in the leading process; the others exit silently with the same status.
        """
        self.world.agree([0])  # none is gone, which would end all, before the leading one has written
        name = Signals(signal).name
        message = (
            f"{self.title}: stopped by {name} after step {step}, its checkpoint is written: the same command goes on"
        )
        self.world.fail(Stopped(message, 128 + signal))
