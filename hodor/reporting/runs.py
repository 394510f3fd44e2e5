"""Reads what the steps left in a run folder, and assembles its manifest.json.

<row>/seed<k>/{model.safetensors, train.json, train.jsonl}
<row>/seed<k>/<benchmark>/{masks.json, segment.json, score.json, per_frame.csv, per_object.csv, global.csv}
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hodor.errors import HodorError
from hodor.provenance import json_text, read_json, write_text_atomic


@dataclass(frozen=True)
class FrameScore:
    """J and F (0..1) of one object in one frame."""

    sequence: str
    object: int
    frame: str
    j: float
    f: float


@dataclass(frozen=True)
class Prediction:
    """One system on one benchmark.

    masks, segment, score: contents of the JSON files. overall: global.csv, column -> value in 0..1. objects:
    per_object.csv, "<sequence>_<id>" -> column -> value in 0..1. Where a server has the truth, `objects` is empty and
    `overall` holds what the server said, which may be nothing yet.
    """

    folder: Path
    benchmark: str
    masks: dict
    segment: dict
    score: dict
    overall: dict[str, float]
    objects: dict[str, dict[str, float]]
    categories: dict[str, str] = field(default_factory=dict)
    """`<sequence>_<id>` -> seen or unseen, where the benchmark tells them apart."""

    @property
    def submission(self) -> str | None:
        """sha256 of the zip for the benchmark's server; None where the truth is public."""
        return (self.score.get("submission") or {}).get("sha256")

    @property
    def pending(self) -> bool:
        """Whether the server's score is still to come."""
        return not self.overall

    def frames(self) -> list[FrameScore]:
        """per_frame.csv, read anew at each call."""
        rows = _read_csv(self.folder / "per_frame.csv", ("sequence", "object", "frame", "J", "F"))
        return [
            FrameScore(row["sequence"], int(row["object"]), row["frame"], float(row["J"]), float(row["F"]))
            for row in rows
        ]


@dataclass(frozen=True)
class Run:
    """One trained system. train: train.json; log: the logged steps of train.jsonl, ascending, each once."""

    folder: Path
    row: str
    seed: int
    train: dict
    log: tuple[dict, ...]
    predictions: dict[str, Prediction]


def run_folder(runs: Path, row: str, seed: int) -> Path:
    """Folder of one trained system within the folder of a scale's runs."""
    return Path(runs) / row / f"seed{seed}"


def read_run(folder: Path, benchmarks: Sequence[str] | None = None) -> Run:
    """Reads a run folder.

    Args:
        folder: <row>/seed<k>.
        benchmarks: those that must have been scored; all that are there if absent.

    Raises:
        HodorError: a file that is missing or not what it should be.
    """
    folder = Path(folder)
    row, seed = _identity(folder)
    train = read_json(folder / "train.json")
    if benchmarks is None:
        benchmarks = sorted(path.parent.name for path in folder.glob("*/score.json"))
    predictions = {benchmark: _read_prediction(folder / benchmark) for benchmark in benchmarks}
    return Run(folder, row, seed, train, tuple(read_log(folder / "train.jsonl")), predictions)


def read_log(path: Path) -> list[dict]:
    """The steps that a training logged, ascending; an empty list where nothing was trained (no file).

    A run that was killed and resumed logs some steps twice (the last one counts) and may leave a line that
    was cut off in the middle, which is passed over; so are lines without a step (events).
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


def merge_manifest(run: Run | Path) -> dict:
    """Assembles and writes <run folder>/manifest.json: what was run, with what, on what, where, at what cost.

    Keys: row, scale, seed, model (sha256), parameters, commit, versions, machine (those of the training),
    config (the stamps: the resolved settings of each step), data (name -> sha256 of a data manifest or of the
    weights started from), steps (name -> time_s, peak_memory_mib, commit, versions, machine).

    Args:
        run: a run, or its folder.

    Returns:
        What it wrote.

    Raises:
        HodorError: as `read_run`.
    """
    run = run if isinstance(run, Run) else read_run(run)
    train = run.train
    records = {"train": train}
    data = dict(train.get("inputs", {}))
    for benchmark, prediction in run.predictions.items():
        records[f"{benchmark}/segment"] = prediction.segment
        records[f"{benchmark}/score"] = prediction.score
        data[f"truth of {benchmark}"] = prediction.score.get("truth")
    manifest = {
        "row": run.row,
        "scale": (train.get("stamp_content") or {}).get("scale"),
        "seed": run.seed,
        "model": train.get("model"),
        "parameters": train.get("parameters"),
        "commit": train.get("commit"),
        "versions": train.get("versions"),
        "machine": train.get("machine"),
        "config": {name: record.get("stamp_content") for name, record in records.items()},
        "data": data,
        "steps": {
            name: {key: record.get(key) for key in ("time_s", "peak_memory_mib", "commit", "versions", "machine")}
            for name, record in records.items()
        },
    }
    path, text = run.folder / "manifest.json", json_text(manifest)
    # Every table that shows the run gathers it, and must not make the manifest newer than the other tables.
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text_atomic(path, text)
    return manifest


def _identity(folder: Path) -> tuple[str, int]:
    whole = folder.resolve()
    if not whole.name.startswith("seed") or not whole.name.removeprefix("seed").isdigit():
        raise HodorError(f"{folder}: not a run folder; those are named <row>/seed<k>")
    return whole.parent.name, int(whole.name.removeprefix("seed"))


def _read_prediction(folder: Path) -> Prediction:
    score = read_json(folder / "score.json")
    overall = list(_read_csv(folder / "global.csv", ("J&F-Mean", "J-Mean", "F-Mean")))
    if len(overall) != 1 and not ("submission" in score and not overall):
        raise HodorError(f"{folder / 'global.csv'}: {len(overall)} lines of numbers where one is expected; score again")
    objects = list(_read_csv(folder / "per_object.csv", ("object", "J-Mean", "F-Mean")))
    categories = {row["object"]: row.pop("category") for row in objects if "category" in row}
    return Prediction(
        folder=folder,
        benchmark=folder.name,
        masks=read_json(folder / "masks.json"),
        segment=read_json(folder / "segment.json"),
        score=score,
        overall=_numbers(folder / "global.csv", overall[0]) if overall else {},
        objects={row.pop("object"): _numbers(folder / "per_object.csv", row) for row in objects},
        categories=categories,
    )


def _numbers(path: Path, row: dict[str, str]) -> dict[str, float]:
    try:
        return {key: float(value) for key, value in row.items()}
    except (TypeError, ValueError):
        raise HodorError(f"{path}: a cell is not a number; delete the file and score again") from None


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise HodorError(f"{path}: no column {', '.join(missing)}; delete the file and score again")
            yield from reader
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; the step score writes it: run that again") from None
