"""Run folders: read them, sample their scores and summarise their provenance.

<row>/seed<k>/{model.safetensors, train.json, train.jsonl} (not of external masks)
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
from hodor.provenance import is_imported, read_json, read_training, scored_benchmarks
from hodor.scoring.statistics import Sample

# Columns of text; all others hold numbers.
TEXT = ("sequence", "object", "frame", "category")
# Packages that compute the numbers; manifests list more.
_NAMED = ("hodor", "python", "torch", "numpy", "opencv-python", "pycocotools", "scikit-image")


@dataclass(frozen=True)
class Prediction:
    """One run on one benchmark.

    Attributes:
        masks, segment, score: contents of the JSON files.
        overall: global.csv, column -> value in 0..1; for a benchmark on a server its answer, or empty.
        objects: per_object.csv, a line for each "<sequence>_<id>", with J-Mean and F-Mean in 0..1 and, on YouTube-VOS,
            `category` (seen or unseen). Empty for a benchmark on a server.
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
        """sha256 of the zip for the benchmark's server; None if the ground truth is public."""
        return (self.score.get("submission") or {}).get("sha256")

    @property
    def pending(self) -> bool:
        """Whether the server's score is not entered yet."""
        return not self.overall

    def frames(self) -> pd.DataFrame:
        """Read per_frame.csv: sequence, object, frame, J and F in 0..1."""
        return _read_csv(self.folder / "per_frame.csv", "sequence", "object", "frame", "J", "F")

    def object_scores(self) -> pd.Series:
        """Return "<sequence>_<object>" -> J&F in points."""
        return 50 * (self.objects["J-Mean"] + self.objects["F-Mean"])

    def sequence_scores(self) -> pd.Series:
        """Return sequence -> J&F in points, the mean over its objects."""
        return self.object_scores().groupby(lambda name: name.rpartition("_")[0], sort=False).mean()


@dataclass(frozen=True)
class Run:
    """A run of one row and seed.

    train: train.json. log: logged steps of train.jsonl, ascending, each once. Both are empty for external masks.
    elsewhere: whether it was trained in another folder and imported.
    """

    folder: Path
    row: str
    seed: int
    train: dict
    log: tuple[dict, ...]
    predictions: dict[str, Prediction]
    elsewhere: bool = False

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"


def run_folder(runs: Path, row: str, seed: int) -> Path:
    """Return the folder of a run below the folder of a scale's runs."""
    return Path(runs) / row / f"seed{seed}"


def read_run(folder: Path, benchmarks: Sequence[str] | None = None) -> Run:
    """Read a run folder, <row>/seed<k>; HodorError names a missing or broken file.

    Args:
        folder: the run folder.
        benchmarks: benchmarks that must have been scored. None: all that were.
    """
    folder = Path(folder)
    whole = folder.resolve()
    if not whole.name.startswith("seed") or not whole.name.removeprefix("seed").isdigit():
        raise HodorError(f"{folder}: not a run folder; give a folder <row>/seed<k>")
    benchmarks = scored_benchmarks(folder) if benchmarks is None else benchmarks
    predictions = {benchmark: _read_prediction(folder / benchmark) for benchmark in benchmarks}
    train = read_training(folder, [prediction.masks for prediction in predictions.values()])
    log = tuple(read_log(folder / "train.jsonl"))
    seed, elsewhere = int(whole.name.removeprefix("seed")), bool(train) and is_imported(folder)
    return Run(folder, whole.parent.name, seed, train, log, predictions, elsewhere)


def read_log(path: Path) -> list[dict]:
    """Return the logged steps of a training, ascending; an empty list if there is no file.

    A run that was killed and resumed logs some steps twice, of which the last one is used, and may leave a truncated line,
    which is skipped.
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


def loss_curve(runs: Iterable[Run]) -> str:
    """Return the mean training loss over runs at the logged steps, as CSV with columns step and loss; "" if untrained."""
    steps = pd.DataFrame([step for run in runs for step in run.log])
    return "" if steps.empty else steps.groupby("step")[["loss"]].mean().to_csv(lineterminator="\n")


def sample(runs: Sequence[Run], benchmark: str) -> Sample | None:
    """Return the scores of a row's runs on a benchmark for the statistics: the mean of J and F of each object in points.

    Objects of YouTube-VOS are grouped by category, over which G is averaged; those of DAVIS are one group. None if nothing
    was scored, or only a server's mean is known.
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
    """Return a row's J&F or G in points for each seed, from global.csv; an empty list if a seed has none."""
    column = "G" if get_benchmark(benchmark).metric == "G" else "J&F-Mean"
    found = [run.predictions[benchmark].overall for run in runs if benchmark in run.predictions]
    values = [100 * overall[column] for overall in found if math.isfinite(overall.get(column, math.nan))]
    return values if len(values) == len(runs) else []


def provenance(runs: Iterable[Run], seeds: Iterable[int], bootstrap: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return the provenance of the numbers of runs: seeds, commits, machines, versions and metrics of all their steps.

    Args:
        runs: the runs.
        seeds: seeds of the table.
        bootstrap: {"resamples", "seed"} of the intervals, if there are any.
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
    """Return a machine (see `hodor.provenance.machine`) on one line."""
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
        raise HodorError(f"{folder / 'global.csv'}: {len(overall)} lines of numbers instead of one; score again")
    return Prediction(
        folder=folder,
        benchmark=folder.name,
        masks=read_json(folder / "masks.json"),
        segment=read_json(folder / "segment.json"),
        score=score,
        overall={} if overall.empty else overall.iloc[0].to_dict(),
        objects=_read_csv(folder / "per_object.csv", "object", "J-Mean", "F-Mean").set_index("object"),
    )


def read_csv(path: Path, step: str) -> pd.DataFrame:
    """Read a CSV file of a step as text; HodorError if it is missing or broken."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; run the step {step} again, which writes it") from None
    except (OSError, ValueError) as error:
        raise HodorError(f"{path}: cannot be read ({error}); delete it and run the step {step} again") from None


def _read_csv(path: Path, *columns: str) -> pd.DataFrame:
    # As text first, because names such as 00003 are no numbers, and Python's float is exact.
    frame = read_csv(path, "score")
    if missing := [column for column in columns if column not in frame]:
        raise HodorError(f"{path}: no column {', '.join(missing)}; delete the file and score again")
    try:
        return frame.astype(dict.fromkeys(frame.columns.difference(TEXT), float))
    except (TypeError, ValueError):
        raise HodorError(f"{path}: a cell is not a number; delete the file and score again") from None


def _object(name: str) -> tuple[str, str]:
    sequence, _, object_id = name.rpartition("_")
    return sequence, object_id


def _unique(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
