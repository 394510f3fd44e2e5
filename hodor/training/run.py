"""Train one row with one seed; a killed run continues where its last checkpoint was.

On a CPU the weights at the end are bit for bit the same whether or not the run was broken off in between: batches
depend on the step number alone, and a checkpoint holds weights, optimiser, step and random state.
"""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hodor.data.batches import PlannedClips, clips_from
from hodor.data.dense_video_clips import DenseVideoClips
from hodor.data.image_clips import ImageClips
from hodor.data.static_affine import AffineClips
from hodor.data.static_stcn import StcnClips
from hodor.data.video_clips import SparseVideoClips
from hodor.device import mixed, prepare_device
from hodor.errors import HodorError
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
from hodor.training.log import TrainingLog
from hodor.training.options import StageOptions
from hodor.training.schedules import learning_rate

CLIPS = {
    "images": ImageClips,
    "sparse-video": SparseVideoClips,
    "dense-video": DenseVideoClips,
    "static-affine": AffineClips,
    "static-stcn": StcnClips,
}


def train(stamp: dict[str, Any], data: Path, out: Path, init: Path | None = None) -> None:
    """Train a row and write its weights, log and provenance.

    Args:
        stamp: the step's settings (`read_stamp`): method, options, stage (None: untrained), seed, device, threads,
            precision.
        data: folder of the prepared data sets of the scale, packs in its folder `packed`.
        out: run folder; gets model.safetensors, train.jsonl and train.json. Until then the state of the run lies in
            `out/checkpoints`.
        init: weights to start from (the row's COCO checkpoint), or None.

    Raises:
        HodorError: bad data or settings, a device that is not there, a loss that is not finite, a full disk.
    """
    settings, row = stamp["settings"], stamp["row"]
    seed = int(settings["seed"])
    device = prepare_device(settings["device"], settings["threads"], settings["precision"])
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
    )
    seconds = run.run()

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
    ) -> None:
        self.method, self.options, self.data = method, options, data
        self.title, self.seed, self.device, self.precision = title, seed, device, precision
        self.checkpoints = Checkpoints(out / "checkpoints", identity)

    def run(self) -> float:
        if self.options is None or self.options.steps == 0:
            return 0.0
        options, method = self.options, self.method
        optimiser = self._optimiser()
        step, before = self._resume(optimiser)
        started = time.monotonic()
        log = TrainingLog(self.checkpoints.folder / "train.jsonl", title=self.title, first=step, steps=options.steps)
        window: list[dict[str, Tensor]] = []
        for clip in self._clips(step):
            rate = learning_rate(options, step)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            with mixed(self.device, self.precision):
                values = method.loss(clip.to(self.device), step)
            optimiser.zero_grad(set_to_none=True)
            values["loss"].backward()
            if options.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(method.parameters(), options.gradient_clip)
            optimiser.step()
            window.append({name: value.detach() for name, value in values.items()})
            step += 1
            due = step % options.checkpoint_every == 0 and step < options.steps
            # Reading a loss waits for the GPU: several steps are read together, always before a checkpoint.
            if step % options.log_every == 0 or step == options.steps or due:
                means = self._means(window, step)
                log.write(step, len(window) * options.batch, {**means, "learning_rate": rate, **method.log_values()})
                window = []
            if due:
                self._save(step, optimiser, before + time.monotonic() - started)
        return before + time.monotonic() - started

    def _clips(self, step: int):
        source = CLIPS[self.options.kind](self.options, self.data)
        clips = PlannedClips(
            source.plan(self.seed), source.make, source.size, seed=self.seed, multiple=self.options.padding_multiple
        )
        return clips_from(clips, step, workers=self.options.workers)

    def _optimiser(self) -> torch.optim.Optimizer:
        """Adam or AdamW; the groups' learning rates are multiples of the schedule's."""
        backbone = {id(parameter) for parameter in self.method.backbone_parameters()}
        undecayed = {id(parameter) for parameter in self.method.undecayed_parameters()}
        groups: dict[tuple[bool, bool], dict[str, Any]] = {}
        for parameter in self.method.parameters():
            if parameter.requires_grad:
                kind = (id(parameter) in backbone, id(parameter) in undecayed)
                factor = self.options.backbone_factor if kind[0] else 1.0
                decay = 0.0 if kind[1] else self.options.weight_decay
                group = groups.setdefault(kind, {"params": [], "factor": factor, "weight_decay": decay})
                group["params"].append(parameter)
        optimiser = torch.optim.AdamW if self.options.optimiser == "adamw" else torch.optim.Adam
        return optimiser(list(groups.values()), lr=0.0)

    def _means(self, window: list[dict[str, Tensor]], step: int) -> dict[str, float]:
        """Mean of each logged value over the last steps.

        Raises:
            HodorError: a loss that is not finite, with its step and the checkpoint to look at.
        """
        losses = torch.stack([values["loss"] for values in window]).tolist()
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                good = self.checkpoints.newest()
                raise HodorError(
                    f"{self.title}: the loss of step {step - len(losses) + i + 1} is {loss}; "
                    + (f"the last good checkpoint is {good}" if good else "there is no checkpoint yet")
                    + ". Lower the stage's `learning_rate` or set `gradient_clip`"
                )
        return {name: torch.stack([values[name] for values in window]).mean().item() for name in window[0]}

    def _save(self, step: int, optimiser: torch.optim.Optimizer, seconds: float) -> None:
        state: dict[str, Any] = {
            "weights": self.method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "seconds": seconds,
        }
        if self.device.type == "cuda":
            state["random_gpu"] = torch.cuda.get_rng_state()
        self.checkpoints.save(step, state)

    def _resume(self, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
        """Continue from the newest checkpoint: its step and the seconds spent so far; (0, 0) without one."""
        state = self.checkpoints.load()
        if state is None:
            shutil.rmtree(self.checkpoints.folder, ignore_errors=True)  # a log of other settings
            return 0, 0.0
        self.method.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"])
        print(f"{self.title}: continues after step {state['step']}", flush=True)
        return state["step"], state["seconds"]
