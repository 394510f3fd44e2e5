"""Training data as folders of JPEG against packed shards: pictures and clips a second, on one core and on all.

    python benchmarks/loader_speed.py --mirror FOLDER

FOLDER holds coco/{train2017.zip,val2017.zip,annotations_trainval2017.zip} and davis/DAVIS-2017-*-480p.zip, as any mirror.
Both ways alternate round by round in one process, after one round of each that counts for nothing, so that the machine's
load meets both; a ratio is that of one round, and its spread over the rounds stands beside it. All files are in the
system's cache by then: what is measured is decoding and copying, not the disk.
"""

import argparse
import datetime
import os
import re
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

from hodor import config
from hodor.data.batches import PlannedClips, clips_from
from hodor.data.extract import extract_all
from hodor.data.pack import pack
from hodor.data.pack_plan import packs
from hodor.data.packs import training_images, training_videos
from hodor.data.sources import ARCHIVES
from hodor.provenance import commit, machine, versions, write_text_atomic
from hodor.training.options import Packing, StageOptions
from hodor.training.run import CLIPS

# Stage of scale paper -> the data set whose archives are at hand (its own, or the one that it is tried on).
STAGES = {"images": ["coco"], "cyclic": ["davis"], "static-stm": ["coco"], "static-stcn": ["coco"]}
# Batches that the loader's workers have made before the first is taken, and one more.
READY = 5
COLUMNS = ("what", "unit", "cores", "plain", "packed", "ratio", "ratio_least", "ratio_most", "rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mirror", type=Path, required=True, help="folder with <data set>/<archive>")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    paper = config.load(Path(__file__).resolve().parent.parent / "config", {"scale": "paper"}).scale
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for dataset in {name for names in STAGES.values() for name in names}:
            archives = [options.mirror / dataset / name for name in ARCHIVES[dataset]]
            extract_all(archives, data / dataset)
        for name in STAGES:
            lines += measure(name, at_hand(paper.stages[name], STAGES[name]), data, options)
    write(lines, options.out)


def at_hand(stage: StageOptions, datasets: list[str]) -> StageOptions:
    """The published stage on the data sets at hand."""
    own = [source for source in stage.sources if source.dataset in datasets]
    sources = [source.model_copy(update={"share": 1.0, "limit": None}) for source in own]
    if not sources:  # STCN's images are not at hand
        sources = [{"dataset": "coco", "split": "train2017"}]
    return StageOptions(**stage.model_dump() | {"sources": sources, "steps": 2000, "packed": None})


def measure(name: str, stage: StageOptions, data: Path, options: argparse.Namespace) -> list[dict]:
    """Lines of one stage: pictures on one core, clips on one core, clips on all cores."""
    packed = stage.model_copy(update={"packed": Packing()})
    for id in packs(packed):
        out = data / "packed" / id.name
        if not out.exists():
            pack({"settings": id._asdict(), "sha256": ""}, data, out, out.with_name(f"{id.name}.json"))
    ways = (stage, packed)
    cores = len(os.sched_getaffinity(0))
    kinds: list[tuple[str, str, int, Callable[[StageOptions], Iterator[int]]]] = [
        (f"{name}: pictures and masks read", "pictures/s", 1, lambda way: pictures(way, data)),
        (f"{name}: clips made", "clips/s", 1, lambda way: clips(way, data, workers=0)),
        (f"{name}: clips loaded", "clips/s", cores, lambda way: clips(way, data, workers=cores)),
    ]
    out = []
    for what, unit, number, make in kinds:
        starts = [partial(make, way) for way in ways]
        out.append(alternate(what, unit, number, starts, options))
    return out


def pictures(stage: StageOptions, data: Path) -> Iterator[int]:
    """Reads pictures with their masks, again and again; gives 1 after each."""
    if stage.kind.endswith("video"):
        videos = [video for source in stage.sources for video in training_videos(data, source, stage)]
        for video, frame in cycle([(of, name) for of in videos for name in of.labelled]):
            video.frame(frame)
            video.labels(frame)
            yield 1
    for image in cycle([image for source in stage.sources for image in training_images(data, source, stage)]):
        size = image.read().shape[:2]
        for item in image.objects:
            item.mask(*size)
        yield 1


def clips(stage: StageOptions, data: Path, workers: int) -> Iterator[int]:
    """Makes batches as a training does; gives their number of clips."""
    source = CLIPS[stage.kind](stage, data)
    made = PlannedClips(source.plan(0), source.make, source.size, seed=0, multiple=stage.padding_multiple)
    for clip in clips_from(made, 0, workers=workers):
        yield len(clip.frames)


def alternate(
    what: str, unit: str, cores: int, starts: list[Callable[[], Iterator[int]]], options: argparse.Namespace
) -> dict:
    """Rates of both ways, round by round; each round starts anew, and what is ready in advance does not count."""
    rates: list[list[float]] = [[], []]
    for number in range(options.rounds + 1):
        # Each way is first in half of the rounds.
        for way in (0, 1) if number % 2 else (1, 0):
            items = starts[way]()
            for _ in range(READY * cores if cores > 1 else 1):
                next(items)
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < options.seconds:
                count += next(items)
            if number:
                rates[way].append(count / (time.perf_counter() - start))
            items.close()
    ratios = [packed / plain for plain, packed in zip(*rates, strict=True)]
    line = dict(zip(COLUMNS, (what, unit, cores), strict=False))
    line |= {"plain": f"{statistics.median(rates[0]):.1f}", "packed": f"{statistics.median(rates[1]):.1f}"}
    line |= {"ratio": f"{statistics.median(ratios):.2f}", "ratio_least": f"{min(ratios):.2f}"}
    line |= {"ratio_most": f"{max(ratios):.2f}", "rounds": str(options.rounds)}
    print(line, file=sys.stderr, flush=True)
    return line


def write(lines: list[dict], out: Path) -> None:
    """Writes the table, named after the machine, with what it was measured on in its first lines."""
    here, found = machine(), versions()
    kind = re.sub(r"[^a-z0-9]+", "-", " ".join(here["processor"].lower().split()[:2])).strip("-")
    path = out / f"loader_speed_{kind}-{here['cores']}core.csv"
    about = [
        f"# {datetime.date.today()}, {here['processor']}, {here['cores']} cores, commit {commit()}",
        "# " + ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "numpy", "opencv-python")),
        f"# load average at the end: {os.getloadavg()[0]:.1f}; medians of rounds, ratio packed to plain of one round",
    ]
    out.mkdir(parents=True, exist_ok=True)
    rows = [",".join(COLUMNS), *(",".join(str(line[column]) for column in COLUMNS) for line in lines)]
    write_text_atomic(path, "\n".join([*about, *rows]) + "\n")
    print(path)


if __name__ == "__main__":
    main()
