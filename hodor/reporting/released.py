"""The view of the extended table on the authors' released weights, and its numbers beside ours in other tables."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from hodor.config.benchmarks import get_benchmark
from hodor.config.servers import PENDING
from hodor.errors import HodorError
from hodor.reporting.published import published_value
from hodor.reporting.runs import Run

NAME = "released_weights.csv"
ABSENT = "not run"
SCORED = "scored"
COLUMNS = (
    "id", "row", "label", "benchmark", "scale", "released_J&F", "released_J", "released_F", "paper_J&F", "status",
    "parameters", "checkpoint_sha256", "short_side", "manifest", "note", "source", "licence",
)  # fmt: skip


def csv_text(columns: Iterable[str], lines: Iterable[dict]) -> str:
    """CSV with these columns; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def released_csv(settings: Mapping, found: Mapping[tuple[str, int], Run]) -> str:
    """The rows of released weights of the extended table: a line for each row and benchmark, absent ones included.

    Scores are in points (0..100), one run each: weights have no seeds.

    Args:
        settings: of the stamp of the extended table.
        found: (row, seed) -> run, those that are present.
    """
    rows = [row for row, entry in settings["rows"].items() if entry["weights"]]
    lines = [_line(settings, row, id, found.get((row, 0))) for row in rows for id in settings["benchmarks"]]
    return csv_text(COLUMNS, [line for line in lines if line])


def how_to_get(file: str, source: str) -> str:
    """What a table shows for a checkpoint that is absent."""
    return f"{ABSENT}: get it by: hodor fetch weights, or place {file} in data/weights/ (from {source})"


def _line(settings: Mapping, id: str, benchmark: str, run: Run | None) -> dict[str, str]:
    entry = settings["rows"][id]
    if run is not None and benchmark not in run.predictions:  # a hold-out, which they may have been trained on
        return {}
    paper = published_value(settings["published"], entry["compare"], benchmark, get_benchmark(benchmark).metric)
    line = {
        "id": id,
        "row": entry["compare"],
        "label": entry["label"],
        "benchmark": benchmark,
        "scale": settings["scale"],
        "paper_J&F": "" if paper is None else f"{paper:.1f}",
        "status": SCORED if run else how_to_get(entry["weights"], entry["source"]),
        "note": entry["note"],
        "source": entry["source"],
        "licence": entry["licence"],
    }
    if run is None:
        return line
    prediction = run.predictions[benchmark]
    inference = (prediction.segment.get("stamp_content") or {}).get("settings", {}).get("inference", {})
    overall = prediction.overall
    return (
        line
        | {
            f"released_{name}": f"{100 * overall[f'{name}-Mean']:.4f}"
            for name in ("J&F", "J", "F")
            if f"{name}-Mean" in overall
        }
        | {
            "status": PENDING if prediction.pending else SCORED,
            "parameters": str(run.train["parameters"]),
            "checkpoint_sha256": run.train["inputs"]["checkpoint"],
            "short_side": str(inference.get("short_side", "")),
            "manifest": (run.folder / "manifest.json").as_posix(),
        }
    )


def read_released(results: Path) -> list[dict[str, str]]:
    """The lines of released_weights.csv in a folder of results; an empty list where there is no such file.

    Raises:
        HodorError: a file with other columns.
    """
    path = Path(results) / NAME
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise HodorError(f"{path}: not the columns of this table; delete the file and run the workflow again")
            return list(reader)
    except FileNotFoundError:
        return []


def released_cells(lines: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """(row, benchmark) -> the number in points, or words where there is none: what to do for it."""
    return {
        (line["row"], line["benchmark"]): line["released_J&F"] if line["status"] == SCORED else line["status"]
        for line in lines
    }


def released_notes(lines: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Row -> what must be said wherever the number of its released weights stands, for those that have one."""
    return {line["row"]: line["note"] for line in lines if line["status"] == SCORED and line["note"]}
