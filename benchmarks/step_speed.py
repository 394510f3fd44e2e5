"""Compare the training step with a straightforward one: float32, eager, waiting for every number.

    python benchmarks/step_speed.py --rows ablation

At scale paper, on a GPU (a CPU has the patience for `--scale mini`). Per row, both variants alternate in one process
on the same clips: `eager` computes in full float32, copies each clip when it needs it, reads the loss after every
step, and has torch's default optimiser; `tuned` is what `hodor train` does, with `--precision` and, where asked for,
`--compile`. Then a data set of full-size pictures is generated, and the tuned variant trains on it, to see what
part of its time it waits for data.

Model FLOPs utilisation is what `hodor cost` counts, by seconds, by the peak that the GPU's maker gives for the variant's
number format (n/a for others). `hodor cost` itself reads what `benchmarks/gpu.py` measures with these functions.
"""

import argparse
import re
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from harness import Watch, alternate, held_and_peak_mib, script_parser, spread, table, write_result

from hodor.config import loading as config
from hodor.config.datasets import GeneratedOptions
from hodor.config.stages import StageOptions
from hodor.data.clip import Clip
from hodor.data.dataset import PlannedClips, clips_from
from hodor.data.extract import extract_all
from hodor.data.synthetic import generate
from hodor.device import prepare_device
from hodor.doctor.cost import VIDEO_SIZE, clip_of, step_cost
from hodor.models.base import build_method, without_starting_weights
from hodor.provenance import commit
from hodor.training.distributed import World
from hodor.training.gradients import Gradients
from hodor.training.optim import build_optimiser, set_learning_rate
from hodor.training.trainer import CLIPS

# 10^12 operations a second, dense, as the makers' data sheets give them: bfloat16, TF32, float32.
PEAKS = {
    r"H[12]00 PCIe": (756, 378, 51),
    r"H[12]00": (989, 495, 67),
    r"A100": (312, 156, 19.5),
    r"RTX 3090": (71, 35.6, 35.6),
    r"RTX 4090": (165, 82.6, 82.6),
}
FORMATS = ("bfloat16", "tf32", "float32")


class Kind(NamedTuple):
    """What a variant computes in, and whether it does what `hodor train` does."""

    precision: str = "float32"
    tuned: bool = True
    compile: bool = False


EAGER = Kind(tuned=False)


class Variant:
    """One variant of the training step, with a network of its own; `step` trains on one clip in the memory of the CPU."""

    def __init__(
        self, method: str, settings: dict[str, Any], stage: StageOptions, device: torch.device, kind: Kind
    ) -> None:
        torch.manual_seed(0)
        built = build_method(method, without_starting_weights(settings)).to(device).train()
        for module in built.compilable() if kind.compile else ():
            module.compile()
        self.method, self.stage, self.device, self.kind = built, stage, device, kind
        self.gradients = Gradients(built, World(), micro_batch=None, seed=0, device=device, precision=kind.precision)
        self.optimiser = build_optimiser(built, stage, device if kind.tuned else torch.device("cpu"))
        self.taken, self.losses = 0, []

    def steps(self, clips: list[Clip]) -> None:
        """A step on each clip."""
        prepare_device(self.device.type, torch.get_num_threads(), self.kind.precision)
        for clip in clips:
            self.step(clip.to(self.device))

    def step(self, clip: Clip) -> None:
        set_learning_rate(self.optimiser, 1e-5)
        values = self.gradients.compute(clip, self.taken)
        if self.stage.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.method.parameters(), self.stage.gradient_clip)
        self.optimiser.step()
        self.taken += 1
        self.losses.append(values["loss"] if self.kind.tuned else values["loss"].item())


def with_objects(clip: Clip) -> Clip:
    """Fill a clip with noise and one rectangle per object, so that every loss has something to count."""
    clip.frames.copy_(torch.randint(0, 256, clip.frames.shape, dtype=torch.uint8))
    height, width = clip.labels.shape[-2:]
    part = width // clip.objects
    for t, annotated in enumerate(clip.annotated):
        for i in range(clip.objects if annotated else 0):
            clip.labels[:, t, height // 4 : 3 * height // 4, i * part + part // 4 : i * part + 3 * part // 4] = i + 1
    return clip


def parser() -> argparse.ArgumentParser:
    found = script_parser(__doc__, device=None, rounds=5, threads=torch.get_num_threads())
    found.add_argument("--rows", default="hodor-soft-coco", help="as `rows` of config/config.yaml")
    found.add_argument("--scale", default="paper", help="whose networks, clips and batches are taken")
    found.add_argument("--precision", choices=FORMATS, help="of the tuned variant: bfloat16 on a GPU, else float32")
    found.add_argument("--compile", action="store_true", help="the tuned variant with torch.compile")
    found.add_argument("--batch", type=int, help="clips of a step, other than the stage's")
    found.add_argument("--steps", type=int, default=8, help="of a variant in a round")
    found.add_argument("--pictures", type=int, default=256, help="of the generated data set; 0: no data is read")
    found.add_argument("--workers", type=int, help="that load data, other than the stage's")
    return found


def main() -> None:
    options = parser().parse_args()
    options.precision = options.precision or ("bfloat16" if options.device == "cuda" else "float32")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    found = config.load(
        Path(__file__).resolve().parent.parent / "config", {"scale": options.scale, "rows": options.rows}
    )
    kinds = {"eager": EAGER, "tuned": Kind(options.precision, compile=options.compile)}
    lines, done = [], {}
    for row in found.needed():
        if (stage := found.stage(row)) is None:
            continue
        stage = stage.model_copy(update={"batch": options.batch or stage.batch})
        key = repr((found.rows[row].method, found.options[row], {**stage.model_dump(), "sources": 0}))
        done[key] = done.get(key) or measure(found.rows[row].method, found.options[row], stage, kinds, options)
        lines += [{"scale": options.scale, "row": row, **line} for line in done[key]]
        print(
            f"{row}: {lines[-1]['steps_per_second']} steps/s, {lines[-1]['ratio']} times the eager variant", flush=True
        )
    write(lines, options)


def measure(
    method: str, settings: dict[str, Any], stage: StageOptions, kinds: dict[str, Kind], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Lines of the variants in `kinds`, which alternate; ratios are to the first."""
    device = prepare_device(options.device, options.threads)
    tera = step_cost(method, settings, stage).operations * stage.batch / 1e12
    clips = [with_objects(clip_of(stage, batch=stage.batch, device="cpu")) for _ in range(options.steps)]
    variants = {name: Variant(method, settings, stage, device, kind) for name, kind in kinds.items()}
    memory: dict[str, float] = {}

    def measured(name: str) -> None:
        _, memory[name] = held_and_peak_mib(partial(variants[name].steps, clips))

    calls = {name: partial(measured, name) for name in variants}
    times = alternate(calls, options.rounds, warm_up=min(2, options.rounds))
    lines = []
    for name, variant in variants.items():
        seconds = times[name].median / options.steps
        peak = peak_speed(variant.kind.precision, device)
        waiting = data_share(variant, options) if options.pictures and variant.kind.tuned else None
        lines.append(
            {
                "variant": name,
                "precision": variant.kind.precision,
                "compiled": int(variant.kind.compile),
                "batch": stage.batch,
                "seconds_per_step": f"{seconds:.6g}",
                "steps_per_second": f"{1 / seconds:.4g}",
                "examples_per_second": f"{stage.batch / seconds:.4g}",
                "tflop_per_step": f"{tera:.6g}",
                "utilisation": f"{tera / seconds / peak:.3f}" if peak else "n/a",
                "waiting": f"{waiting:.3f}" if waiting is not None else "n/a",
                "peak_mib": f"{memory[name]:.0f}",
                "ratio": spread(times[name].faster_than(times[next(iter(variants))])),
                "first_loss": f"{float(variant.losses[0]):.5f}",
                "commit": commit(),
            }
        )
    return lines


def peak_speed(precision: str, device: torch.device) -> float | None:
    """10^12 operations a second that the GPU can reach in a number format, None where that is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    found = next((speeds for pattern, speeds in PEAKS.items() if re.search(pattern, name)), None)
    return found[FORMATS.index(precision)] if found else None


def data_share(variant: Variant, options: argparse.Namespace) -> float:
    """Which part of its time a variant waits for clips that are made of pictures as large as the published ones."""
    video = variant.stage.kind.endswith("video")
    dataset = "davis" if video else "coco"
    source = {"dataset": dataset, "split": "train" if video else "train2017"}
    steps = options.steps * (options.rounds + 1)
    changes = {"sources": [source], "steps": steps}
    changes |= {} if options.workers is None else {"workers": options.workers}
    stage = StageOptions(**variant.stage.model_dump() | changes)
    generated = GeneratedOptions(
        coco_train=options.pictures,
        coco_val=1,
        davis_train=max(1, options.pictures // 24),
        davis_val=1,
        davis_test_dev=1,
        coco_sizes=[(480, 640), (640, 480)] if options.scale == "paper" else [(120, 160)],
        davis_size=VIDEO_SIZE if options.scale == "paper" else (120, 208),
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        archives = generate(dataset, generated, data / "archives")
        extract_all(archives, data / dataset)
        return statistics.median(shares(variant, stage, data, options.steps))


def shares(variant: Variant, stage: StageOptions, data: Path, steps: int) -> list[float]:
    """Part of the time spent waiting, for each group of `steps` steps after the first group."""
    plan = PlannedClips(CLIPS[stage.kind](stage, data), seed=0, multiple=stage.padding_multiple)
    clips = clips_from(plan, 0, workers=stage.workers, pinned=variant.device.type == "cuda")
    found, watch = [], Watch()
    for i in range(1, len(plan) + 1):
        with watch.timed("step"):
            with watch.timed("waiting"):  # what is still being computed is no waiting
                clip = next(clips)
            variant.step(clip.to(variant.device))
        if i % steps == 0:
            found.append(watch.seconds["waiting"] / watch.seconds["step"])
            watch = Watch()
    clips.close()
    return found[1:] or found


def write(lines: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Write the table."""
    hidden = ("scale", "seconds_per_step", "commit")
    text = [
        f"# A training step at scale {options.scale}",
        "",
        f"`eager`: float32, every number read at once. `tuned`: what `hodor train` does. {options.rounds} rounds of "
        f"{options.steps} steps a variant, in turn; `ratio`: how many times as fast as `eager`, median and range over rounds. "
        "`utilisation`: counted operations by seconds by the maker's peak. `waiting`: part of the time spent waiting for "
        "data.",
        "",
        *table([{name: value for name, value in line.items() if name not in hidden} for line in lines]),
    ]
    write_result("step-speed", text, options.out)


if __name__ == "__main__":
    main()
