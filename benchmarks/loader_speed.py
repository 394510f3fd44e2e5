"""Training data as folders of JPEG against packed shards: pictures and clips a second, on one core and on all.

    python benchmarks/loader_speed.py --mirror FOLDER         # about 2 minutes
    python benchmarks/loader_speed.py --tiny --rounds 1       # to try it, on small generated pictures

FOLDER holds coco/{train2017.zip,val2017.zip,annotations_trainval2017.zip} and davis/DAVIS-2017-*-480p.zip, as any mirror;
without it, pictures are generated. Both ways alternate round by round in one process; a ratio is that of one round, and
its spread over the rounds stands beside it. All files are in the system's cache: what is measured is decoding and
copying, not the disk. Packs hold the pictures at their own size.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import cv2
import torch
from clip_data import described, stage_at_hand, write_data_sets, write_packs
from harness import RESULTS, spread, write_result

from hodor.config.stages import Packing, StageOptions
from hodor.data.dataset import PlannedClips, clips_from
from hodor.data.packs import training_data
from hodor.training.trainer import CLIPS

STAGES = ("images", "cyclic", "static-stm", "static-stcn")
# Batches that the loader's workers have made before the first is taken, and one more.
READY = 5
HEADER = ["| what | unit | cores | plain | packed | times as fast |", "|---|---|---|---|---|---|"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mirror", type=Path, help="folder with <data set>/<archive>; without: generated pictures")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--seconds", type=float, default=0.6, help="of each way in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="small pictures and clips")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_data_sets(options.stages, options.mirror, data, tiny=options.tiny)
        for name in options.stages:
            stage = stage_at_hand(name, tiny=options.tiny).model_copy(update={"packed": None})
            for line in measure(name, stage, data, options):
                lines.append(line)
                print(line, file=sys.stderr, flush=True)
            # Written after each stage: what was measured is not lost.
            write_result("loader_speed", report(lines, options), options.out)


def measure(name: str, stage: StageOptions, data: Path, options: argparse.Namespace) -> Iterator[str]:
    """Lines of one stage: pictures on one core, clips on one core, clips on all cores."""
    packed = stage.model_copy(update={"packed": Packing()})
    write_packs(packed, data)
    cores = len(os.sched_getaffinity(0))
    kinds: list[tuple[str, str, int, Callable[[StageOptions], Iterator[int]]]] = [
        (f"{name}: pictures and masks read", "pictures/s", 1, lambda way: pictures(way, data)),
        (f"{name}: clips made", "clips/s", 1, lambda way: clips(way, data, workers=0)),
        (f"{name}: clips loaded", "clips/s", cores, lambda way: clips(way, data, workers=cores)),
    ]
    for what, unit, number, make in kinds:
        plain, fast = rates([partial(make, way) for way in (stage, packed)], number, options)
        ratios = [ours / theirs for theirs, ours in zip(plain, fast, strict=True)]
        medians = f"{statistics.median(plain):.1f} | {statistics.median(fast):.1f}"
        yield f"| {what} | {unit} | {number} | {medians} | {spread(ratios)} |"


def pictures(stage: StageOptions, data: Path) -> Iterator[int]:
    """Reads pictures with their masks, again and again; gives 1 after each."""
    if stage.kind.endswith("video"):
        videos = [video for source in stage.sources for video in training_data(data, source, stage)]
        for video, frame in cycle([(of, name) for of in videos for name in of.labelled]):
            video.frame(frame)
            video.labels(frame)
            yield 1
    for image in cycle([image for source in stage.sources for image in training_data(data, source, stage)]):
        size = image.read().shape[:2]
        for item in image.objects:
            item.mask(*size)
        yield 1


def clips(stage: StageOptions, data: Path, workers: int) -> Iterator[int]:
    """Makes batches as a training does; gives their number of clips."""
    source = CLIPS[stage.kind](stage, data)
    made = PlannedClips(source, seed=0, multiple=stage.padding_multiple)
    for clip in clips_from(made, 0, workers=workers):
        yield len(clip.frames)


def rates(starts: list[Callable[[], Iterator[int]]], cores: int, options: argparse.Namespace) -> list[list[float]]:
    """Items a second of both ways in each round. What is ready in advance does not count.

    The harness's `alternate` times calls. Here a rate over a window is wanted, for the workers of a loader make clips
    while nothing is called; so a loader starts anew in each round (and has fewer of them), for two would share the cores.
    """
    found: list[list[float]] = [[], []]
    started = None if cores > 1 else [start() for start in starts]
    for number in range(options.rounds if cores == 1 else max(1, options.rounds - 2)):
        # Each way is first in half of the rounds.
        for way in (0, 1) if number % 2 else (1, 0):
            items = started[way] if started else starts[way]()
            if cores > 1 or number == 0:
                for _ in range(READY * cores if cores > 1 else 1):
                    next(items)
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < options.seconds:
                count += next(items)
            found[way].append(count / (time.perf_counter() - began))
            if cores > 1:
                items.close()
    return found


def report(lines: list[str], options: argparse.Namespace) -> list[str]:
    """The lines of the result."""
    return [
        "# Plain files and packs",
        "",
        f"Pictures: {described(options.mirror, tiny=options.tiny)}. {options.rounds} rounds of {options.seconds} s each (two fewer with all cores); "
        "medians, and for the ratio of packed to plain median and range.",
        "",
        *HEADER,
        *lines,
    ]


if __name__ == "__main__":
    main()
