"""Measure how fast training clips are made: for each kind of stage, on one core and by the loader on all, at scale paper.

    python benchmarks/clip_speed.py                       # on generated pictures, about 2 minutes
    python benchmarks/clip_speed.py --mirror FOLDER       # on real ones: FOLDER/{coco,davis}/<archive>
    python benchmarks/clip_speed.py --tiny --rounds 1     # to try it

The stages are those of scale paper, on the data set that is at hand for them. Clips are read from its files and batched, as
in training. On one core the variants alternate: as `hodor.data` makes them (warps composed, one resampling a frame), and the
straightforward method (`stepwise_clips`: one warp after the other, each a resampling of a float32 picture), from the same
random numbers. The clips of both must agree but for what resampling loses.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from harness import alternate, script_parser, spread, write_result
from stepwise_clips import stepwise

from hodor.config import loading as config
from hodor.config.datasets import ARCHIVES, GeneratedOptions
from hodor.config.stages import StageOptions
from hodor.data.clip import Clip
from hodor.data.dataset import PlannedClips, clips_from
from hodor.data.extract import extract_all
from hodor.data.synthetic import generate
from hodor.training.trainer import CLIPS

ROOT = Path(__file__).resolve().parent.parent
# Stage of scale paper -> its data set, or the one that it is tried on.
STAGES = {
    "images": "coco",
    "cyclic": "davis",
    "dense": "davis",
    "static-stm": "coco",
    "static-kmn": "coco",
    "static-stcn": "coco",
}
# Sizes of the pictures that stand in for COCO's and DAVIS's, and small ones for a trial.
_GENERATED = {
    "coco_train": 24,
    "coco_val": 1,
    "coco_sizes": [(480, 640), (640, 480), (427, 640)],
    "davis_train": 3,
    "davis_val": 1,
    "davis_test_dev": 1,
    "davis_size": (480, 854),
    "davis_frames": 10,
}
_TINY = {"coco_train": 8, "coco_sizes": [(72, 96), (96, 72)], "davis_train": 2, "davis_size": (64, 112)}
_TINY_STAGE = {"pixels": 4096, "short_side": 48, "long_side": 96, "crop": 64, "min_area": 40, "min_side": 3}
# Least part of the pixels of a kind that must have the same label in both, and largest mean difference of grey levels.
SAME_LABELS = 0.97
SAME_COLOURS = 8.0
# Batches that a worker of the loader has ready before it waits, and one more.
READY = 5
TARGET_CORES = 16
HEADER = [
    "| stage | clip | clips/s, one core | images/s, one core | straightforward, clips/s | times as fast | same labels "
    "| loader, clips/s | x16 cores |",
    "|---|---|---|---|---|---|---|---|---|",
]


def main() -> None:
    parser = script_parser(__doc__, rounds=5)
    parser.add_argument("--mirror", type=Path, help="folder with <data set>/<archive>; without: generated pictures")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--batches", type=int, default=3, help="that a variant makes in a round")
    parser.add_argument("--seconds", type=float, default=3.0, help="that the loader is watched for")
    parser.add_argument("--tiny", action="store_true", help="small pictures and clips")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_data_sets(options.stages, options.mirror, data, tiny=options.tiny)
        for name in options.stages:
            stage = stage_at_hand(name, tiny=options.tiny)
            rows.append(measure(name, stage, data, options, cores))
            # Written after each stage: what was measured is not lost.
            path = write_result("clip_speed", report(rows, options, cores), options.out)
    print(path)


def stage_at_hand(name: str, *, tiny: bool = False) -> StageOptions:
    """A published stage on the data set that is at hand for it; `tiny`: of small pictures."""
    stage = config.load(ROOT / "config", {"scale": "paper"}).scale.stages[name]
    own = [source for source in stage.sources if source.dataset == STAGES[name]]
    sources = [source.model_copy(update={"share": 1.0, "limit": None}) for source in own]
    if not sources:  # STCN's images are not at hand
        sources = [{"dataset": "coco", "split": "train2017"}]
    given = stage.model_dump() | {"sources": sources, "steps": 20_000}
    if tiny:
        given |= {key: value for key, value in _TINY_STAGE.items() if given[key] is not None} | {"batch": 2}
    return StageOptions(**given)


def write_data_sets(names: list[str], mirror: Path | None, data: Path, *, tiny: bool = False) -> None:
    """The data sets of the stages `names`, as folders of files below `data`.

    Args:
        mirror: folder with <data set>/<archive>; data are generated where it is None.
    """
    options = GeneratedOptions(**_GENERATED | (_TINY if tiny else {}))
    for dataset in sorted({STAGES[name] for name in names}):
        if mirror is not None:
            archives = [mirror / dataset / name for name in ARCHIVES[dataset]]
        else:
            archives = generate(dataset, options, data / "archives" / dataset)
        extract_all(archives, data / dataset)


def measure(name: str, stage: StageOptions, data: Path, options: argparse.Namespace, cores: int) -> str:
    """The row of one stage; SystemExit where the two variants make different clips."""
    source = CLIPS[stage.kind](stage, data)
    clips = PlannedClips(source, seed=0, multiple=stage.padding_multiple)
    middle = len(clips) // 2  # of the training: parts of pictures are hidden by then, where the stage does that
    steps = range(middle, middle + options.batches)

    def composed() -> list[Clip]:
        return [clips[step] for step in steps]

    def straightforward() -> list[Clip]:
        with stepwise():
            return composed()

    same = agreement(name, composed(), straightforward())
    variants: dict[str, Callable[[], object]] = {"composed": composed, "straightforward": straightforward}
    times = alternate(variants, options.rounds)
    number, frames = len(steps) * stage.batch, stage.frames
    ours, theirs = (number / times[variant].median for variant in variants)
    loaded = loader_rate(clips, middle, cores, options.seconds)
    ratio = spread(times["composed"].faster_than(times["straightforward"]))
    height, width = composed()[0].labels.shape[-2:]
    return (
        f"| {name} | {frames} x {width} x {height} | {ours:.1f} | {ours * frames:.1f} | {theirs:.1f} | {ratio} "
        f"| {100 * same:.2f} % | {loaded:.1f} | {loaded * TARGET_CORES / cores:.0f} |"
    )


def agreement(name: str, ours: list[Clip], theirs: list[Clip]) -> float:
    """The part of pixels that have the same label in both; SystemExit where labels or colours differ too much."""
    labels, colours = [], []
    for mine, other in zip(ours, theirs, strict=True):
        for one, two in zip(clips_of(mine), clips_of(other), strict=True):
            both = one[2] & two[2]
            labels.append(np.mean((one[1] == two[1])[both]))
            shown = np.broadcast_to(both[:, None], one[0].shape)
            colours.append(np.mean(np.abs(one[0].astype(int) - two[0])[shown]))
    # An object at a limit may pass it in one alone, and the clip is then drawn again: such a clip is another one.
    if statistics.median(labels) < SAME_LABELS or statistics.median(colours) > SAME_COLOURS:
        raise SystemExit(f"{name}: the two variants make different clips (labels {labels}, grey levels {colours})")
    return statistics.median(labels)


def clips_of(batch: Clip) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames, labels and valid pixels of each clip."""
    return list(zip(batch.frames.numpy(), batch.labels.numpy(), batch.valid.numpy(), strict=True))


def loader_rate(clips: PlannedClips, start: int, cores: int, seconds: float) -> float:
    """Clips a second of the loader with a worker for each core, once what was ready in advance is used up."""
    loaded = clips_from(clips, start, workers=cores)
    for _ in range(READY * cores):
        next(loaded)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        count += len(next(loaded).frames)
    passed = time.perf_counter() - began
    loaded.close()
    return count / passed


def report(rows: list[str], options: argparse.Namespace, cores: int) -> list[str]:
    """The lines of the result."""
    pictures = "archives of a mirror" if options.mirror else "generated pictures"
    sizes = "small sizes, a trial" if options.tiny else "sizes and batches of scale paper"
    return [
        "# Clips made a second",
        "",
        f"Pictures: {pictures}, {sizes}. {options.rounds} rounds of {options.batches} batches; medians, and "
        "for the ratio to the straightforward method (one warp after the other, float32) median and range.",
        f"Loader: {cores} workers on {cores} cores, collation and hand-over included. The last column is no "
        f"measurement: it is the loader's rate times {TARGET_CORES}/{cores}.",
        "",
        *HEADER,
        *rows,
    ]


if __name__ == "__main__":
    main()
