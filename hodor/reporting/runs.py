"""Run folders: read them, sample their scores and summarise their origin.

<row>/seed<k>/{model.safetensors, train.json, train.jsonl}
<row>/seed<k>/<benchmark>/{masks.json, segment.json, score.json, per_frame.csv, per_object.csv, global.csv}
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hodor.config.benchmarks import get_benchmark
from hodor.errors import HodorError
from hodor.provenance import read_json
from hodor.scoring.statistics import Sample

# Columns that hold text; all others hold numbers.
_TEXT = ("sequence", "object", "frame", "category")
# The packages that compute the numbers; manifests list more.
_NAMED = ("hodor", "python", "torch", "numpy", "opencv-python", "pycocotools", "scikit-image")


@dataclass(frozen=True)
class Prediction:
    """One run on one benchmark.

    Attributes:
        masks, segment, score: contents of the JSON files.
        overall: global.csv, column -> value in 0..1. Where a server has the ground truth, its answer, empty until then.
        objects: per_object.csv, a line for each "<sequence>_<id>"; J-Mean and F-Mean in 0..1, and `category` (seen or
            unseen) where the benchmark distinguishes them. Empty where a server has the ground truth.
    """

    folder: Path
    benchmark: str
    masks: dict
    segment: dict
    score: dict
    overall: dict[str, float]
    objects: pd.DataFrame

    @property
    def submission(self) -> str | None:
        """sha256 of the zip for the benchmark's server; None where the ground truth is public."""
        return (self.score.get("submission") or {}).get("sha256")

    @property
    def pending(self) -> bool:
        """Whether the server's score is still to come."""
        return not self.overall

    def frames(self) -> pd.DataFrame:
        """per_frame.csv: sequence, object, frame, J and F in 0..1."""
        return _read_csv(self.folder / "per_frame.csv", "sequence", "object", "frame", "J", "F")

    def object_scores(self) -> pd.Series:
        """ "<sequence>_<object>" -> J&F in points."""
        return 50 * (self.objects["J-Mean"] + self.objects["F-Mean"])

    def sequence_scores(self) -> pd.Series:
        """Sequence -> J&F in points, the mean over its objects."""
        return self.object_scores().groupby(lambda name: name.rpartition("_")[0], sort=False).mean()


@dataclass(frozen=True)
class Run:
    """One trained system. train: train.json; log: the logged steps of train.jsonl, ascending, each once."""

    folder: Path
    row: str
    seed: int
    train: dict
    log: tuple[dict, ...]
    predictions: dict[str, Prediction]

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"


def run_folder(runs: Path, row: str, seed: int) -> Path:
    """Folder of one trained system within the folder of a scale's runs."""
    return Path(runs) / row / f"seed{seed}"


def read_run(folder: Path, benchmarks: Sequence[str] | None = None) -> Run:
    """Read a run folder, <row>/seed<k>; HodorError names a file that is missing or broken.

    Args:
        benchmarks: Those that must have been scored; if absent, all that were.
    """
    folder = Path(folder)
    whole = folder.resolve()
    if not whole.name.startswith("seed") or not whole.name.removeprefix("seed").isdigit():
        raise HodorError(f"{folder}: not a run folder; run folders are named <row>/seed<k>")
    train = read_json(folder / "train.json")
    if benchmarks is None:
        benchmarks = sorted(path.parent.name for path in folder.glob("*/score.json"))
    predictions = {benchmark: _read_prediction(folder / benchmark) for benchmark in benchmarks}
    log = tuple(read_log(folder / "train.jsonl"))
    return Run(folder, whole.parent.name, int(whole.name.removeprefix("seed")), train, log, predictions)


def read_log(path: Path) -> list[dict]:
    """The steps that a training logged, ascending; an empty list where nothing was trained (no file).

    A run that was killed and resumed logs some steps twice, of which the last one counts, and may leave a truncated
    line, which is skipped, as are lines without a step (events).
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    steps = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and "loss" in record:
            steps[record["step"]] = record
    return [steps[step] for step in sorted(steps)]


def initial_alpha(heads: int) -> list[float]:
    """Return what `hodor.attention.initial_alpha` returns, whose module imports torch, for seconds."""
    return [value for value in (32.0, 16.0, 8.0, 4.0) for _ in range(heads // 4)]


def sample(runs: Sequence[Run], benchmark: str) -> Sample | None:
    """Scores of a row's runs on a benchmark in points, the mean of J and F of each object, for the statistics.

    Objects of YouTube-VOS have a category, over which the score (G) is averaged; those of DAVIS are one group (J&F). None
    where nothing was scored, or a server scored it and gave no more than its mean.
    """
    predictions = {run.seed: run.predictions[benchmark] for run in runs if benchmark in run.predictions}
    if not predictions or any(prediction.objects.empty for prediction in predictions.values()):
        return None
    scores = {
        seed: {_object(name): value for name, value in prediction.object_scores().items()}
        for seed, prediction in predictions.items()
    }
    objects = next(iter(predictions.values())).objects
    groups = objects["category"] if "category" in objects else pd.Series("", objects.index)
    return Sample(scores, {_object(name): group for name, group in groups.items()})


def seed_scores(runs: Sequence[Run], benchmark: str) -> list[float]:
    """A row's J&F or G in points for each seed, as in global.csv; empty where a seed has none (yet)."""
    column = "G" if get_benchmark(benchmark).metric == "G" else "J&F-Mean"
    found = [run.predictions[benchmark].overall for run in runs if benchmark in run.predictions]
    values = [100 * overall[column] for overall in found if math.isfinite(overall.get(column, math.nan))]
    return values if len(values) == len(runs) else []


def provenance(runs: Iterable[Run], seeds: Iterable[int], bootstrap: Mapping[str, int] | None = None) -> dict[str, str]:
    """Origin of the numbers of these runs: seeds, commit, machine, versions and metric of all their steps; no times.

    Several values are all shown: a table whose rows come from two commits names both. A commit ends with `-dirty` where
    the code differed from it. `bootstrap`: of the intervals, {"resamples", "seed"}, if there are any.
    """
    runs = list(runs)
    predictions = [prediction for run in runs for prediction in run.predictions.values()]
    steps = [run.train for run in runs] + [step for p in predictions for step in (p.segment, p.score)]
    used = {name: _unique(step.get("versions", {}).get(name) for step in steps) for name in _NAMED}
    versions = [f"{name} {version}" for name, found in used.items() for version in found]
    found = {
        "seeds": ", ".join(map(str, seeds)),
        "commit": "; ".join(_unique(step.get("commit") for step in steps)) or "unknown",
        "machine": "; ".join(_unique(machine_line(step.get("machine")) for step in steps)) or "unknown",
        "versions": ", ".join(versions) or "unknown",
        "metric": "; ".join(_unique(p.score.get("metric") for p in predictions)) or "nothing was scored",
    }
    if bootstrap:
        found["intervals"] = (
            f"95 %, percentile bootstrap over sequences and seeds, {bootstrap['resamples']:,} resamples, "
            f"generator seed {bootstrap['seed']}"
        )
    return found


def machine_line(machine: dict | None) -> str | None:
    """A machine (see `hodor.provenance.machine`) in one line."""
    if not machine:
        return None
    parts = [machine.get("processor") or "unknown processor", f"{machine.get('cores', '?')} cores"]
    if machine.get("memory_mib"):
        parts.append(f"{machine['memory_mib'] / 1024:.0f} GiB")
    return ", ".join([*parts, machine.get("gpu") or "no GPU"])


def _read_prediction(folder: Path) -> Prediction:
    score = read_json(folder / "score.json")
    overall = _read_csv(folder / "global.csv", "J&F-Mean", "J-Mean", "F-Mean")
    if len(overall) != 1 and not ("submission" in score and overall.empty):
        raise HodorError(f"{folder / 'global.csv'}: {len(overall)} lines of numbers where one is expected; score again")
    return Prediction(
        folder=folder,
        benchmark=folder.name,
        masks=read_json(folder / "masks.json"),
        segment=read_json(folder / "segment.json"),
        score=score,
        overall={} if overall.empty else overall.iloc[0].to_dict(),
        objects=_read_csv(folder / "per_object.csv", "object", "J-Mean", "F-Mean").set_index("object"),
    )


def _read_csv(path: Path, *columns: str) -> pd.DataFrame:
    try:
        # As text first: names such as 00003 are no numbers, and Python's float is exact.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; the step score writes it: run that again") from None
    except (OSError, ValueError) as error:
        raise HodorError(f"{path}: cannot be read ({error}); delete the file and score again") from None
    if missing := [column for column in columns if column not in frame]:
        raise HodorError(f"{path}: no column {', '.join(missing)}; delete the file and score again")
    try:
        return frame.astype(dict.fromkeys(frame.columns.difference(_TEXT), float))
    except (TypeError, ValueError):
        raise HodorError(f"{path}: a cell is not a number; delete the file and score again") from None


def _object(name: str) -> tuple[str, str]:
    sequence, _, object_id = name.rpartition("_")
    return sequence, object_id


def _unique(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
