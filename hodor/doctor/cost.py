"""The verb `cost`: estimate the cost of training and segmenting each row.

One training step runs on torch's meta device, so that its operations and the memory that it keeps for the backward pass are
counted for any size on any machine. With `--frames` a frame is segmented for real. Hours are operations divided by an assumed
speed.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hodor import paths
from hodor.config.loading import Config, load
from hodor.config.schema import Scale
from hodor.config.stages import InferenceOptions, StageOptions
from hodor.data.clip import Clip
from hodor.data.clips_image import clip_size
from hodor.errors import HodorError
from hodor.models.base import build_method, without_starting_weights
from hodor.provenance import read_json

# Assumed speeds of training in 10^12 operations a second: the part of the peak that such networks reach with TF32.
GPUS = {"rtx3090": 12.0, "h200": 60.0}
# Typical sizes: COCO for image stages, 720p videos for video stages; objects of a clip and of a video.
IMAGE_SIZE, VIDEO_SIZE, DAVIS_SIZE = (480, 640), (720, 1280), (480, 854)
OBJECTS = 2
CARDS = (24, 40, 80)
"""Memory of usual GPUs in GB, for which the largest micro-batch is shown."""
SPARE = 1.5
"""Peak memory of a training over the counted one: measured with HODOR's clips, one at a time, on a CPU."""
FITS = f"clips in {'/'.join(map(str, CARDS))} GB"
GIB, GB, TERA = 2**30, 1e9, 1e12


class StepCost(NamedTuple):
    """Cost of one clip in a training step: operations (2 for a multiply-add), and bytes kept for the backward pass."""

    operations: int
    kept_bytes: int


class Measured(NamedTuple):
    """A measured training step of a row: its time, operations and peak GPU memory, and the file that records it."""

    seconds: float
    batch: int
    tera: float
    gib: float
    place: str

    def of(self, stage: StageOptions, tera: float) -> bool:
        """Return whether it is the step of a stage and a network: it had this batch and the operations counted now."""
        return self.batch == stage.batch and abs(self.tera / tera - 1) <= 0.01


def cost(folder: Path, overrides: dict[str, Any], gpu: str, speed: float | None = None, *, frames: bool = False) -> str:
    """Return a text table with a line for each selected row.

    Args:
        folder: configuration folder.
        overrides: keys of config.yaml (`scale`, `rows`).
        gpu: key of `GPUS`, or any name with `speed`.
        speed: 10^12 operations a second instead of the assumed ones.
        frames: whether to segment one frame with each network too, which takes seconds.
    """
    from tabulate import tabulate  # not where benchmarks/gpu.py runs, which counts with this module

    if gpu not in GPUS and speed is None:
        raise HodorError(f"--gpu {gpu}: known are {', '.join(GPUS)}; give the speed of another with --speed")
    if speed is not None and not speed > 0:
        raise HodorError(f"--speed {speed:g}: must be above 0")
    config = load(folder, overrides)
    speed = speed or GPUS[gpu]
    measured = read_measured(folder.resolve().parent / "benchmarks" / "results", config.scale, gpu)
    lines, counted = [], {}
    rows = [row for row in config.needed() if not config.rows[row].masks]
    if not rows:
        raise HodorError("nothing to count: none of the rows that are present has a network")
    for row in rows:
        print(f"counting {row}", file=sys.stderr, flush=True)
        lines.append(_line(config, row, speed, measured, counted if frames else None))
    places = sorted({entry.place for entry in measured.values()})
    notes = [
        f"{sum(float(line['hours']) for line in lines):.0f} GPU hours for one seed of all rows above.",
        "TFLOP/step: forward and backward of a whole batch. GPU GiB: weights, gradients, optimiser and what the "
        "backward pass keeps of a whole batch, without the step's temporary buffers. "
        f"{FITS}: the largest part of the batch (execution.micro_batch) for which {SPARE:g} times this count fit such a GPU.",
        "measured, measured GiB: hours and peak GPU memory of the step that benchmarks/gpu.py measured on this GPU: "
        f"{', '.join(places) or 'none'}. Without one, the peak of a training in runs/ (CPU: of its process).",
        "run GB: weights and two checkpoints."
        + (" GFLOP/frame: one frame of 480x854 with two objects, as on DAVIS." if frames else ""),
        *_data_notes(config),
    ]
    title = f"Scale {config.scale.name}: counted, not measured; hours assume {speed:g} TFLOP/s ({gpu})."
    align = ["left", *["right"] * (len(lines[0]) - 1)]
    table = tabulate(lines, headers="keys", tablefmt="plain", disable_numparse=True, colalign=align)
    return "\n".join([title, "", table, "", *notes])


def read_measured(folder: Path, scale: Scale, gpu: str) -> dict[str, Measured]:
    """Return row -> its step measured in the scale's precision, from the files of GPUs whose names contain `gpu`.

    `benchmarks/gpu.py` writes these files, `gpu_<machine>.json`.
    """
    found: dict[str, Measured] = {}
    plain = re.sub(r"[^a-z0-9]", "", gpu.lower())
    for path in sorted(folder.glob("gpu_*.json")):
        if plain not in path.stem.removeprefix("gpu_").replace("-", ""):
            continue
        try:
            for line in read_json(path)["parts"].get("steps", {}).get("results", {}).values():
                if "error" not in line and (line["scale"], line["variant"]) == (scale.name, scale.precision):
                    numbers = float(line["seconds_per_step"]), int(line["batch"]), float(line["tflop_per_step"])
                    found[line["row"]] = Measured(*numbers, float(line["peak_mib"]) / 1024, path.name)
        except (HodorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise HodorError(f"{path}: cannot be read ({error}); measure again or delete it") from error
    return found


def clip_of(stage: StageOptions, *, batch: int = 1, device: str = "meta") -> Clip:
    """Return a clip of the size that the stage makes of a typical image or video; its content is undefined."""
    height, width = clip_size(VIDEO_SIZE if stage.kind.endswith("video") else IMAGE_SIZE, stage)
    height, width = (side + -side % stage.padding_multiple for side in (height, width))
    shape, objects = (batch, stage.frames, height, width), min(OBJECTS, stage.max_objects)
    sparse = stage.kind == "sparse-video"
    return Clip(
        torch.zeros(batch, stage.frames, 3, height, width, dtype=torch.uint8, device=device),
        torch.zeros(shape, dtype=torch.uint8, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
        objects,
        tuple(t == 0 or not sparse for t in range(stage.frames)),
    )


def step_cost(method: str, options: dict[str, Any], stage: StageOptions) -> StepCost:
    """Count forward and backward of one clip."""
    built = build_method(method, without_starting_weights(options)).to("meta").train()
    kept: dict[int, torch.UntypedStorage] = {}
    own = {p.untyped_storage()._cdata for p in (*built.parameters(), *built.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = built.loss(clip_of(stage), 1)["loss"]
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
        loss.backward()
    return StepCost(counter.get_total_flops(), kept_bytes)


def frame_operations(method: str, options: dict[str, Any], inference: InferenceOptions) -> int:
    """Count the operations of the second frame of a video of DAVIS's size with two objects."""
    # Without gradients, because torch's counter follows them from module to module, which inference mode forbids.
    built = build_method(method, without_starting_weights(options), inference).eval().requires_grad_(False)
    frame = np.zeros((*DAVIS_SIZE, 3), np.uint8)
    masks = {i: np.zeros(DAVIS_SIZE, bool) for i in (1, 2)}
    masks[1][100:300, 100:300] = masks[2][100:300, 400:600] = True
    state = built.start(frame, masks)
    # The fused kernels of a CPU are not in torch's table of operations.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        built.step(state, frame, features=built.features([frame])[0])
    return counter.get_total_flops()


def parameters(config: Config, row: str) -> int:
    """Count the parameters of a row's network."""
    method = build_method(config.rows[row].method, without_starting_weights(config.options[row]))
    return sum(parameter.numel() for parameter in method.parameters())


def run_bytes(weights: int, trained: bool) -> int:
    """Return the disk space of a run: `weights` in float32 and, if it is trained, two checkpoints with optimiser."""
    return 4 * weights * (7 if trained else 1)


def archive_bytes(config: Config, dataset: str) -> tuple[int, list[str]]:
    """Return the known size of a data set's archives, and the archives of unknown size."""
    listed = config.archives(dataset)
    unknown = [f"{dataset}/{entry['archive']}" for entry in listed if entry["size"] is None]
    return sum(entry["size"] or 0 for entry in listed), unknown


def _line(
    config: Config, row: str, speed: float, measured: dict[str, Measured], counted: dict[str, int] | None
) -> dict[str, str]:
    """Return the cells of a row; `counted` (None: no frames) caches counts for rows that differ in training only."""
    entry, stage, options, weights = config.rows[row], config.stage(row), config.options[row], parameters(config, row)
    line = {"row": row, "params M": f"{weights / 1e6:.2f}"}
    line |= dict.fromkeys(("steps", "TFLOP/step", "hours", "measured", "GPU GiB", FITS, "measured GiB"), "0")
    if stage is not None:
        one = step_cost(entry.method, options, stage)
        tera = one.operations * stage.batch / TERA
        line["steps"] = str(stage.steps)
        line["TFLOP/step"] = f"{tera:.3g}"
        line["hours"] = f"{tera * stage.steps / speed / 3600:.1f}"
        line["GPU GiB"] = f"{(16 * weights + one.kept_bytes * stage.batch) / GIB:.1f}"
        fit = [int((card * GB / SPARE - 16 * weights) // one.kept_bytes) for card in CARDS]
        line[FITS] = "/".join(str(min(clips, stage.batch)) for clips in fit)
        line["measured"], line["measured GiB"] = "not measured", _peak_here(config, row, stage) or "not measured"
        if (found := measured.get(row)) and found.of(stage, tera):
            line["measured"], line["measured GiB"] = f"{found.seconds * stage.steps / 3600:.1f}", f"{found.gib:.1f}"
    line["run GB"] = f"{run_bytes(weights, stage is not None) / GB:.2f}"
    if counted is not None:
        found = {}
        for benchmark in config.scale.benchmarks:  # their settings may differ
            inference = config.inference(row, benchmark)
            key = json.dumps([entry.method, options, inference.model_dump(mode="json")])
            if key not in counted:
                counted[key] = frame_operations(entry.method, options, inference)
            found[key] = f"{counted[key] / 1e9:.3g}"
        line["GFLOP/frame"] = " ".join(dict.fromkeys(found.values()))
    return line


def _peak_here(config: Config, row: str, stage: StageOptions) -> str:
    """Return the peak memory in GiB of a training of whole batches with these settings in the working directory, or ""."""
    for path in (paths.run(config.scale.name, row, seed) / "train.json" for seed in config.seeds_of(row)):
        record = read_json(path) if path.is_file() else {}
        settings, execution = (record.get("stamp_content") or {}).get("settings", {}), record.get("execution") or {}
        same = (settings.get("stage"), settings.get("options")) == (stage.model_dump(mode="json"), config.options[row])
        if same and execution.get("processes") == 1 and execution.get("micro_batch") in (None, stage.batch):
            if peak := record.get("gpu_peak_memory_mib"):
                return f"{peak / 1024:.1f}"
            if settings.get("device") == "cpu":
                return f"{record['peak_memory_mib'] / 1024:.1f} (CPU)"
    return ""


def _data_notes(config: Config) -> Iterator[str]:
    """Yield a note on the size of each data set that the rows need."""
    for dataset in config.needed_datasets() if config.scale.edition != "generated" else ():
        known, unknown = archive_bytes(config, dataset)
        parts = [f"archives of {known / GB:.1f} GB"] if known else []
        parts += [f"{len(unknown)} archive{'s' * (len(unknown) != 1)} of unknown size"] if unknown else []
        yield f"data {dataset}: {' and '.join(parts)}; extracted about as much again."
