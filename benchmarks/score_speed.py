"""Compare the speed of our J and F with that of the official DAVIS functions, and of vos-benchmark.

    python benchmarks/score_speed.py                              # the size of DAVIS-2017 val, about 5 minutes
    python benchmarks/score_speed.py --sequences 4 --repeats 1    # to try it

Makes masks of the size of DAVIS-2017 val (30 sequences, 61 objects, 1,999 frames, 854 x 480), scores them by all in turn,
demands equal numbers, and writes the times with their provenance to benchmarks/results/. All read the same PNG files;
imports are not counted. Ours runs in two threads. The toolkit is called as its `DAVISEvaluation` does: the masks of
a sequence as float64 arrays, an array (objects, frames, height, width) of one-hot masks for the ground truth and one for
the prediction, then J and F of each object over all frames. Its functions are those that the package esdft-segmetric
holds unchanged, with OpenCV's threads as they are. vos-benchmark (0.1.0, MIT) runs in two processes; it is no dependency
of this project and is left out with a line where it is not installed. Processor time is that of all threads and processes;
its ratio to vos-benchmark's must stay above 3.5.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hodor.config.benchmarks import BENCHMARKS
from hodor.data.images import write_labels
from hodor.provenance import peak_memory_mib
from hodor.scoring import jf
from hodor.scoring.protocols import open_benchmark
from hodor.scoring.score import write_scores
from hodor.scoring.sequences import check_prediction, score_sequences

HEIGHT, WIDTH = 480, 854
# Objects of the sequences of DAVIS-2017 val, in the order of its list; 61 in all.
OBJECTS = (2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 5, 2, 3, 2, 3, 5, 1, 3, 2, 2, 3, 1, 3, 2, 3, 3)
FRAMES = 1999
THREADS = 2
VOS_BENCHMARK = "vos-benchmark"


@dataclass(frozen=True)
class Timing:
    """Seconds, processor seconds and largest resident memory of one process (MiB); J and F of each sequence.

    J and F are (objects, frames), of vos-benchmark (objects,): means in points.
    """

    seconds: float
    processor: float
    memory_mib: float
    scores: dict[str, tuple[np.ndarray, np.ndarray]]


def plan(sequences: int, frames: int | None) -> list[tuple[str, int, int]]:
    """(name, frames, objects) of each sequence; lengths of 33 to 100 that add up to FRAMES for all 30."""
    lengths = [round(value) for value in np.linspace(33, 100.23, len(OBJECTS))]
    # Long and short ones mixed, with many and with few objects.
    lengths = [lengths[i * 7 % len(OBJECTS)] for i in range(len(OBJECTS))]
    return [(f"sequence{i:02d}", frames or lengths[i], OBJECTS[i]) for i in range(sequences)]


def make_sequence(root: Path, number: int, name: str, frames: int, objects: int) -> None:
    """Write ground truth, prediction and empty pictures: ragged blobs that move, grow and cover each other."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(number)
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    waves = np.arange(2, 9)
    shapes = [
        {
            "radius": rng.uniform(40, 190) / objects**0.3,
            "centre": rng.uniform((0.2 * WIDTH, 0.2 * HEIGHT), (0.8 * WIDTH, 0.8 * HEIGHT)),
            "speed": rng.uniform(-3, 3, 2),
            "height": rng.uniform(0.6, 1.6),
            "waves": rng.normal(0, 0.25, len(waves)) / waves,
            "phases": rng.uniform(0, 2 * np.pi, len(waves)),
            "turn": rng.uniform(-0.08, 0.08, len(waves)),
        }
        for _ in range(objects)
    ]
    pictures = root / "davis" / "DAVIS" / "JPEGImages" / "480p" / name
    pictures.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(pictures / "00000.jpg")
    picture = (pictures / "00000.jpg").read_bytes()
    for frame in range(frames):
        truth, prediction = np.zeros((2, HEIGHT, WIDTH), np.uint8)
        for id, shape in enumerate(shapes, start=1):
            phases = waves[:, None] * angles + (shape["phases"] + frame * shape["turn"])[:, None]
            outline = 1 + shape["waves"] @ np.cos(phases) + rng.normal(0, 0.01, angles.size)
            centre = shape["centre"] + frame * shape["speed"]
            _fill(truth, id, centre, shape, angles, outline)
            if rng.random() < 0.97:  # now and then an object is lost
                wrong = np.convolve(rng.normal(0, 0.06, angles.size), np.ones(9) / 9, "same")
                _fill(prediction, id, centre + rng.normal(0, 1.5, 2), shape, angles, outline + wrong)
        (pictures / f"{frame:05d}.jpg").write_bytes(picture)
        write_labels(root / "davis" / "DAVIS" / "Annotations" / "480p" / name / f"{frame:05d}.png", truth)
        write_labels(root / "masks" / name / f"{frame:05d}.png", prediction)


def _fill(labels: np.ndarray, id: int, centre, shape: dict, angles: np.ndarray, outline: np.ndarray) -> None:
    points = np.stack((np.cos(angles), shape["height"] * np.sin(angles)), axis=1)
    points = centre + shape["radius"] * outline[:, None] * points
    cv2.fillPoly(labels, [np.round(points).astype(np.int32)], id)


def make_set(root: Path, sequences: list[tuple[str, int, int]]) -> None:
    """A tree in the layout of DAVIS-2017 with these sequences as val, and masks beside it."""
    with ProcessPoolExecutor(THREADS, mp_context=get_context("spawn")) as pool:
        for made in [pool.submit(make_sequence, root, number, *entry) for number, entry in enumerate(sequences)]:
            made.result()
    lists = root / "davis" / "DAVIS" / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{name}\n" for name, _, _ in sequences))


def time_ours(root: Path) -> Timing:
    """Time what `hodor score` does, in two threads, without the official toolkit."""
    began, processor = time.perf_counter(), time.process_time()
    _, tasks = open_benchmark(BENCHMARKS["davis2017-val"], root / "davis")
    check_prediction(tasks, root / "masks")
    scores = score_sequences(tasks, root / "masks", THREADS)
    write_scores(scores, root / "out")
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    objects = {task.video.name: [found for found in scores if found.sequence == task.video.name] for task in tasks}
    numbers = {
        name: (np.stack([o.j for o in found]), np.stack([o.f for o in found])) for name, found in objects.items()
    }
    return Timing(seconds, processor, peak_memory_mib(), numbers)


def apart(measure: Callable[[Path], Timing], root: Path) -> Timing:
    """A measurement in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, root).result()


def time_vos_benchmark(root: Path) -> Timing:
    """Time vos-benchmark in two processes."""
    from vos_benchmark.benchmark import benchmark

    # As in a process of its own on Linux; the method of this one, spawn, would count the workers' imports.
    multiprocessing.set_start_method("fork", force=True)
    truth, masks = root / "davis" / "DAVIS" / "Annotations" / "480p", root / "masks"
    began, processor = time.perf_counter(), time.process_time()
    *_, (objects,) = benchmark([str(truth)], [str(masks)], num_processes=THREADS, verbose=False)
    seconds = time.perf_counter() - began
    for worker in multiprocessing.active_children():  # their time counts once they have ended
        worker.join()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = time.process_time() - processor + workers.ru_utime + workers.ru_stime
    (masks / "results.csv").unlink()
    means = {name: tuple(np.array([of[k] for k in sorted(of)]) for of in found) for name, found in objects.items()}
    return Timing(seconds, processor, workers.ru_maxrss / 1024, means)


def time_official(root: Path) -> Timing:
    """What `DAVISEvaluation(...).evaluate` does for the semi-supervised task."""
    import skimage.morphology  # noqa: F401  f_measure imports it when it is called
    from segmetric.metrics import db_eval_boundary, db_eval_iou
    from segmetric.utils import db_statistics

    annotations = root / "davis" / "DAVIS" / "Annotations" / "480p"
    np.seterr(invalid="ignore")
    scores = {}
    began, processor = time.perf_counter(), time.process_time()
    for name in (root / "davis" / "DAVIS" / "ImageSets" / "2017" / "val.txt").read_text().split():
        truth, frames = _read(annotations / name, None)
        truth[truth == 255] = 0
        truth = _one_hot(truth, int(truth[0].max()))[:, 1:-1]
        masks, _ = _read(root / "masks" / name, frames[1:-1])
        masks = _one_hot(masks, int(masks.max()))
        if len(masks) < len(truth):
            masks = np.concatenate([masks, np.zeros((len(truth) - len(masks), *masks.shape[1:]))])
        j, f = np.zeros(truth.shape[:2]), np.zeros(truth.shape[:2])
        for k in range(len(truth)):
            j[k] = db_eval_iou(truth[k], masks[k])
            f[k] = db_eval_boundary(truth[k], masks[k])
        for values in (*j, *f):
            db_statistics(values)
        scores[name] = j, f
    return Timing(time.perf_counter() - began, time.process_time() - processor, peak_memory_mib(), scores)


def _read(folder: Path, frames: list[str] | None) -> tuple[np.ndarray, list[str]]:
    frames = frames or sorted(path.name for path in folder.glob("*.png"))
    masks = np.zeros((len(frames), *np.array(Image.open(folder / frames[0])).shape))
    for i, frame in enumerate(frames):
        masks[i] = np.array(Image.open(folder / frame))
    return masks, frames


def _one_hot(masks: np.ndarray, objects: int) -> np.ndarray:
    ids = np.ones((objects, *masks.shape)) * np.arange(1, objects + 1)[:, None, None, None]
    return (ids == masks[None]) > 0


def check_equal(ours: Timing, official: Timing) -> int:
    """Number of pairs of scores compared, each to the last bit; ends the program where two differ."""
    if list(ours.scores) != list(official.scores):
        sys.exit("score_speed: the two scored other sequences")
    for name in ours.scores:
        for metric, mine, theirs in zip("JF", ours.scores[name], official.scores[name], strict=True):
            if not np.array_equal(mine, theirs):
                sys.exit(f"score_speed: {metric} of {name} differs by up to {abs(mine - theirs).max()}")
    return sum(j.size + f.size for j, f in ours.scores.values())


def check_means(ours: Timing, other: Timing) -> None:
    """End the program if the mean J or F of an object differs from vos-benchmark's by more than rounding."""
    for name, found in ours.scores.items():
        for metric, mine, theirs in zip("JF", found, other.scores[name], strict=True):
            if not np.allclose(100 * mine.mean(axis=1), theirs, rtol=0, atol=1e-9):
                sys.exit(f"score_speed: {metric} of {name} is {100 * mine.mean(axis=1)}, by vos-benchmark {theirs}")


def report(
    sequences: list[tuple[str, int, int]], rounds: list[tuple[Timing, Timing, Timing, Timing | None]], compared: int
) -> list[str]:
    """The lines of the result."""
    ratios = [official.seconds / statistics.mean((a.seconds, b.seconds)) for a, official, b, _ in rounds]
    ours, theirs = [run for a, _, b, _ in rounds for run in (a, b)], [official for _, official, _, _ in rounds]
    others = [(other, a.processor + b.processor) for a, _, b, other in rounds if other]
    objects, frames = (sum(entry[i] for entry in sequences) for i in (2, 1))
    return [
        f"# Scoring speed: {len(sequences)} sequences, {objects} objects, {frames:,} frames of {WIDTH} x {HEIGHT}",
        "",
        "Made by `python benchmarks/score_speed.py`, whose docstring describes the measurement. Rounds of ours, official, ours, "
        "vos-benchmark.",
        "",
        "| | seconds, each run | processor seconds, each run | largest memory of a process |",
        "|---|---|---|---|",
        _line(f"hodor.scoring, {THREADS} threads", ours),
        _line("official functions, called as by the official toolkit", theirs),
        *([_line(f"{VOS_BENCHMARK}, {THREADS} processes", [other for other, _ in others])] if others else []),
        "",
        f"- ratio: {statistics.mean(ratios):.1f} (rounds: {', '.join(f'{ratio:.1f}' for ratio in ratios)})",
        f"- processor time, {VOS_BENCHMARK} to ours: "
        + (", ".join(f"{2 * other.processor / both:.1f}" for other, both in others) or "not measured, not installed"),
        f"- equal to the last bit: {compared:,} numbers (J and F of every object in every scored frame)",
    ]


def _line(what: str, runs: list[Timing]) -> str:
    seconds, processor = (", ".join(f"{getattr(run, of):.1f}" for run in runs) for of in ("seconds", "processor"))
    return f"| {what} | {seconds} | {processor} | {max(run.memory_mib for run in runs):,.0f} MiB |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=len(OBJECTS), choices=range(1, len(OBJECTS) + 1), metavar="N")
    parser.add_argument("--frames", type=int, help="of each sequence; as many as in DAVIS-2017 val if absent")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of all")
    parser.add_argument("--out", type=Path, help="folder of the result file, instead of benchmarks/results")
    options = parser.parse_args()
    if options.repeats < 1 or (options.frames is not None and options.frames < 3):
        parser.error("at least one repeat, and three frames in a sequence")
    sequences = plan(options.sequences, options.frames)
    with tempfile.TemporaryDirectory(prefix="score-speed-") as folder:
        root = Path(folder)
        make_set(root, sequences)
        jf.frame_scores(*np.zeros((2, HEIGHT, WIDTH), np.uint8), 1)  # whatever is loaded at the first call
        rounds, compared = [], 0
        for number in range(options.repeats):
            ours, official, again = time_ours(root), apart(time_official, root), time_ours(root)
            compared = check_equal(ours, official)
            check_equal(again, official)
            if other := apart(time_vos_benchmark, root) if find_spec("vos_benchmark") else None:
                check_means(ours, other)
            else:
                print(f"{VOS_BENCHMARK} is not installed and left out", flush=True)
            rounds.append((ours, official, again, other))
            print(
                f"round {number + 1}: {ours.seconds:.2f} s, {official.seconds:.2f} s, {again.seconds:.2f} s", flush=True
            )
    from harness import RESULTS, write_result  # it imports torch, which would count as memory of ours

    whole = options.sequences == len(OBJECTS) and options.frames is None
    packages = ["scikit-image", "esdft-segmetric", *([VOS_BENCHMARK] if other else [])]
    what, lines = f"{'val-size' if whole else 'part'}_score-speed", report(sequences, rounds, compared)
    write_result(what, lines, options.out or RESULTS, packages)


if __name__ == "__main__":
    main()
