"""Shared by the speed benchmarks: alternating calls, ratios within a round, times of parts, memory, and the file of a result.

Machines are noisy, so a ratio is taken between two times of one round, and the spread over the rounds stands beside it.
"""

import argparse
import gc
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from hodor.data.images import VOID
from hodor.data.video import Video
from hodor.provenance import commit, machine, peak_memory_mib, read_json, sha256_json, versions, write_text_atomic
from hodor.training.trainer import train

RESULTS = Path(__file__).resolve().parent / "results"
_PROVENANCE = ("hodor", "python", "torch", "numpy", "opencv-python")


_FLAGS: dict[str, dict[str, Any]] = {
    "device": {"choices": ("cpu", "cuda")},
    "rounds": {"type": int},
    "threads": {"type": int, "help": "of torch on the CPU"},
}


def script_parser(doc: str, **defaults: str | int | None) -> argparse.ArgumentParser:
    """The parser of a script: its docstring, `--out`, and those of `_FLAGS` that `defaults` names.

    Without a default, the device is the GPU if there is one.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        if name == "device" and default is None:
            default = "cuda" if torch.cuda.is_available() else "cpu"
        parser.add_argument(f"--{name}", default=default, **_FLAGS[name])
    parser.add_argument("--out", "--results", type=Path, default=RESULTS, help="folder of the result file")
    return parser


@dataclass(frozen=True)
class Times:
    """Seconds of one way, one entry for each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def faster_than(self, other: "Times") -> list[float]:
        """In each round: how many times as long the other way took."""
        return [theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True)]


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1) -> dict[str, Times]:
    """Calls every way once a round, in turn and each first equally often; times every call but the warming ones."""
    names, seconds = list(ways), {name: [] for name in ways}
    gc.collect()
    gc.disable()  # a collection would fall on one way by chance
    try:
        for number in range(-warm_up, rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                _wait()
                began = time.perf_counter()
                ways[name]()
                _wait()
                if number >= 0:
                    seconds[name].append(time.perf_counter() - began)
    finally:
        gc.enable()
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Watch:
    """Adds up the seconds and the calls of parts by name; the device is waited for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Context whose time is counted."""
        _wait()
        began = time.perf_counter()
        yield
        _wait()
        self.seconds[name] += time.perf_counter() - began
        self.calls[name] += 1

    def around(self, owner: object, attribute: str, name: str) -> AbstractContextManager:
        """Context in which every call of an attribute is timed."""
        return patch.object(owner, attribute, self.timed(name)(getattr(owner, attribute)))


def spread(ratios: list[float]) -> str:
    """Median and range over the rounds, as in `2.31 (2.25 to 2.40)`."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def extra_memory_mib(prepare: Callable[..., Callable[[], object]], *arguments) -> float:
    """Memory that a call needs at its peak beyond what is held before it, what it returns included, in MiB.

    `prepare(*arguments)` makes the inputs and returns the call (both picklable by name). It runs in a fresh process, for
    an allocator that has grown once hides what a second call needs. On a GPU torch's own counter is read, on a CPU the
    resident memory (Linux).
    """
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_extra_memory, (torch.get_num_threads(), prepare, *arguments))


def _extra_memory(threads: int, prepare: Callable[..., Callable[[], object]], *arguments) -> float:
    torch.set_num_threads(threads)
    call = prepare(*arguments)
    # Threads, code and small buffers that come with the first product are nobody's memory.
    (torch.ones(64, 64) @ torch.ones(64, 64)).sum()
    gc.collect()
    before, peak = held_and_peak_mib(call)
    return peak - before


def held_and_peak_mib(call: Callable[[], object]) -> tuple[float, float]:
    """Memory that is held before a call, and at its peak, in MiB: by torch's counter on a GPU, else what is resident."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()  # the peak becomes what is held now
    else:
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_mib()
    kept = call()
    peak = _peak_mib()
    del kept
    return before, peak


def _peak_mib() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else peak_memory_mib()


def scored_labels(video: Video, frame: str) -> np.ndarray:
    """Ground truth of a frame, uint8 (H, W) object ids, in which void is background."""
    labels = video.labels(frame)
    labels[labels == VOID] = 0
    return labels


def train_once(stamp: dict[str, Any], data: Path, out: Path) -> None:
    """Train a row as its stamp says, or continue its training, unless the run folder has it already."""
    stamp = stamp | {"sha256": sha256_json(stamp)}
    record = out / "train.json"
    if not record.is_file() or read_json(record)["stamp"] != stamp["sha256"]:
        train(stamp, data, out)


def machine_slug() -> str:
    """The machine in a file name: the GPU where one is in use, else processor and cores."""
    here = machine()
    gpu = here["gpu"] if torch.cuda.is_initialized() else None
    words = re.sub(r"[^a-z0-9]+", "-", (gpu or here["processor"]).lower()).strip("-")
    return words if gpu else f"{words}-{here['cores']}core"


def provenance(packages: Sequence[str] = ()) -> list[str]:
    """Lines for the end of a result: machine, versions (of further packages too), commit."""
    here, found = machine(), versions() | {name: metadata.version(name) for name in packages}
    memory = f"{(here['memory_mib'] or 0) / 1024:.0f} GiB"
    gpu = [here["gpu"]] if here["gpu"] else []
    parts = [here["processor"], f"{here['cores']} cores", memory, here["system"], *gpu]
    return [
        f"- machine: {', '.join(parts)}; torch with {torch.get_num_threads()} threads",
        f"- versions: {', '.join(f'{name} {found[name]}' for name in (*_PROVENANCE, *packages) if name in found)}",
        f"- commit: {commit()}",
    ]


def table(lines: list[dict[str, object]]) -> list[str]:
    """Markdown of a table: a column for each key of any line, floats with four digits, nothing for an absent value."""
    columns = list(dict.fromkeys(name for line in lines for name in line))
    rows = [columns, ["---"] * len(columns)]
    rows += [
        [f"{v:.4g}" if isinstance(v := line.get(name, ""), float) else str(v) for name in columns] for line in lines
    ]
    return [f"| {' | '.join(row)} |" for row in rows]


def write_result(what: str, lines: list[str], folder: Path = RESULTS, packages: Sequence[str] = ()) -> Path:
    """Writes `<what>_<machine>.md` with the provenance below the lines, of `packages` too; prints it too."""
    path = folder / f"{what}_{machine_slug()}.md"
    text = "\n".join([*lines, "", *provenance(packages)]) + "\n"
    write_text_atomic(path, text)
    print(f"\n{text}\nwritten to {path}")
    return path
