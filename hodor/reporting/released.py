"""The table of the authors' released weights, and its numbers for other tables: beside ours, never mixed with them.

results/<scale>/released_weights.csv has a line for each checkpoint of config/released.yaml and each benchmark. Where a
checkpoint is not there the line says how to get it.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from hodor.config.benchmarks import get_benchmark
from hodor.config.servers import PENDING
from hodor.errors import HodorError
from hodor.provenance import write_text_atomic
from hodor.reporting.chain import verify_run, verify_same_truth
from hodor.reporting.published import published_value
from hodor.reporting.runs import Run, merge_manifest, read_run, run_folder
from hodor.reporting.tables import csv_text, with_server_scores

NAME = "released_weights.csv"
ABSENT = "absent"
SCORED = "scored"
COLUMNS = (
    "id", "row", "label", "benchmark", "scale", "released_J&F", "released_J", "released_F", "paper_J&F", "status",
    "parameters", "checkpoint_sha256", "short_side", "manifest", "note", "source", "licence",
)  # fmt: skip


def tabulate(stamp: dict, runs: Path, out: Path) -> None:
    """Writes released_weights.csv to `out`, and manifest.json into the run folder of every checkpoint that is there.

    Scores are in points (0..100), means over objects (YouTube-VOS: G and the means of J and F over seen and unseen
    categories), one run each: weights have no seeds.

    Args:
        stamp: its settings are {"entries": {id: title, file, row, source, licence, note, present}, "benchmarks",
            "server_scores": entries of config/server_scores.yaml for these runs, "scale", "stamps": see `hodor.reporting.chain.verify_run`, "published": lines of config/published.csv}.
        runs: the scale's folder of runs.
        out: folder for the table.

    Raises:
        HodorError: a result of a checkpoint that is there is missing, or was not made from what is current.
    """
    settings, runs = stamp["settings"], Path(runs)
    benchmarks = settings["benchmarks"]
    command = f"snakemake --cores all --config scale={settings['scale']} -- results/{NAME}"
    answers = {(entry["row"], entry["seed"], entry["benchmark"]): entry for entry in settings["server_scores"]}
    found: dict[str, Run] = {}
    for id, entry in settings["entries"].items():
        if entry["present"]:
            run = read_run(run_folder(runs, f"released-{id}", 0), benchmarks)
            verify_run(run, settings["stamps"], command)
            merge_manifest(run)
            found[id] = with_server_scores(run, answers)
    for benchmark in benchmarks:
        verify_same_truth(list(found.values()), benchmark, command)
    lines = [_line(settings, id, benchmark, found.get(id)) for id in settings["entries"] for benchmark in benchmarks]
    write_text_atomic(Path(out) / NAME, csv_text(COLUMNS, lines))


def how_to_get(file: str, source: str) -> str:
    """What a table says of a checkpoint that is not there."""
    return f"{ABSENT}: put {file} into data/weights/ (from {source}), or: hodor fetch weights"


def _line(settings: Mapping, id: str, benchmark: str, run: Run | None) -> dict[str, str]:
    entry = settings["entries"][id]
    paper = published_value(settings["published"], entry["row"], benchmark, get_benchmark(benchmark).metric)
    line = {
        "id": id,
        "row": entry["row"],
        "label": entry["title"],
        "benchmark": benchmark,
        "scale": settings["scale"],
        "paper_J&F": "" if paper is None else f"{paper:.1f}",
        "status": SCORED if run else how_to_get(entry["file"], entry["source"]),
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
