"""The verb `tabulate`: runs in, a table with what stands behind each number out."""

import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hodor.config.benchmarks import get_benchmark
from hodor.config.servers import PENDING, server_overall
from hodor.errors import HodorError
from hodor.provenance import write_text_atomic
from hodor.records import verify_run, verify_same_ground_truth
from hodor.reporting import comparison
from hodor.reporting.latex import table_file
from hodor.reporting.markdown import table_page
from hodor.reporting.published import published_value
from hodor.reporting.readable import NOT_RUN, TRAINED_ON
from hodor.reporting.released import csv_text, how_to_get, released_csv
from hodor.reporting.runs import Run, read_run, run_folder
from hodor.reporting.samples import bootstrap_line, interval_cells
from hodor.reporting.words import machine_line, provenance_lines
from hodor.scoring.statistics import Bootstrap

TABLES = {"ablation": "ablation_table", "comparison": "comparison_table", "extended": "extended_table"}
ABLATION_BENCHMARK = "davis2017-val"
COLUMNS = (
    "row", "label", "training_data", "attention", "scale", "benchmark", "seeds", "n", "J&F", "J&F_std",
    "J&F_low", "J&F_high", "J", "F",
    "paper_J&F", "parameters", "manifest", "note",
)  # fmt: skip
COST_COLUMNS = (
    "row", "seed", "benchmark", "training_s", "training_peak_mib", "segmentation_fps", "segmentation_peak_mib",
    "machine", "note",
)  # fmt: skip

Runs = dict[tuple[str, int], Run]
"""(row, seed) -> run."""


def tabulate(stamp: dict, runs: Path, out: Path) -> None:
    """Writes a table to `out`, and manifest.json into the folder of every run in it.

    The table is {ablation,comparison,extended}_table.{csv,md,tex} or costs.csv. Scores are in points (0..100): means over
    objects, then over seeds, with the sample standard deviation over seeds where there are several and the 95 % interval
    over sequences and seeds (`hodor.scoring.statistics`). Only costs.csv holds numbers that vary from run to run.

    Args:
        stamp: its settings are {"table": a key of TABLES or `costs`, "rows": {id of each row of the table: "note",
            "selected" (False: "not run") and, but for the costs, "label", "options" and "trained_on" (its training
            data in words)}, "scored": {id: the benchmarks that it is scored on}, "server_scores": entries of
            config/server_scores.yaml for these rows, "init": {id of each run and of what it started from: the row that this started from},
            "seeds", "benchmarks", "scale", "stamps": see `hodor.records.verify_run`} and, but for the costs,
            "title", "caption", "bootstrap" ("resamples", "seed") and "published": the lines of config/published.csv for
            these rows.
        runs: the scale's folder of runs, for example runs/mini; the tables name manifests below it as given.
        out: folder for the table.

    Raises:
        HodorError: a result is missing, or was not made from what is current.
    """
    settings, out = stamp["settings"], Path(out)
    found = collect(settings, Path(runs))
    table, rows = settings["table"], settings["rows"]
    if table == "costs":
        write_text_atomic(out / "costs.csv", csv_text(COST_COLUMNS, _cost_lines(settings, found)))
        return
    if table == "comparison":
        columns, lines = comparison.COLUMNS, [_comparison_line(settings, row, found) for row in rows]
    else:
        columns = COLUMNS
        # Table 1 is about DAVIS-2017 val, whatever else its rows are scored on.
        shown = [name for name in settings["benchmarks"] if table != "ablation" or name == ABLATION_BENCHMARK]
        lines = [_line(settings, row, benchmark, found) for row in rows for benchmark in shown]
    if table == "extended":
        write_text_atomic(out / "released_weights.csv", released_csv(settings, found))
    provenance = provenance_lines(list(found.values()), settings["seeds"]) + [bootstrap_line(settings["bootstrap"])]
    write_text_atomic(out / f"{TABLES[table]}.csv", csv_text(columns, lines))
    write_text_atomic(out / f"{TABLES[table]}.md", table_page(settings, table, lines, provenance))
    write_text_atomic(out / f"{TABLES[table]}.tex", table_file(settings, table, lines, provenance))


def collect(settings: dict, runs: Path) -> Runs:
    """Reads and verifies every run that the settings say was run.

    Raises:
        HodorError: as `tabulate`.
    """
    scored = settings["scored"]
    shown = [row for row, entry in settings["rows"].items() if entry["selected"]]
    for row in settings["init"]:
        for seed in settings["seeds_of"].get(row, settings["seeds"]):
            _require(run_folder(runs, row, seed), scored[row] if row in shown else (), settings["scale"])
    found: Runs = {
        (row, seed): read_run(run_folder(runs, row, seed), scored[row])
        for row in shown
        for seed in settings["seeds_of"][row]
    }
    for row, seed in found:
        _verify_lineage(settings, runs, row, seed, found)
    for benchmark in settings["benchmarks"]:
        verify_same_ground_truth([run.folder for run in found.values()], benchmark, _command(settings))
    answers = {(entry["row"], entry["seed"], entry["benchmark"]): entry for entry in settings["server_scores"]}
    return {key: with_server_scores(run, answers) for key, run in found.items()}


def with_server_scores(run: Run, answers: dict[tuple[str, int, str], dict]) -> Run:
    """The run with what servers said of its masks.

    Args:
        answers: (row, seed, benchmark) -> entry of config/server_scores.yaml.

    Raises:
        HodorError: an entry is of another zip, or its benchmark needs no server here.
    """
    predictions = dict(run.predictions)
    for id, prediction in run.predictions.items():
        answer = answers.get((run.row, run.seed, id))
        if answer is None:
            continue
        where = prediction.folder / "score.json"
        if prediction.submission is None:
            raise HodorError(
                f"config/server_scores.yaml: {run.row}, seed {run.seed}, {id}: the truth is here and was scored ({where}); "
                "remove the entry"
            )
        predictions[id] = replace(prediction, overall=server_overall(answer, prediction.submission, where))
    return replace(run, predictions=predictions)


def _verify_lineage(settings: dict, runs: Path, row: str, seed: int, found: Runs) -> None:
    """Verifies a run and, where they are no rows of the table themselves, the runs that it started from."""
    folder = run_folder(runs, row, seed)
    run = found.get((row, seed)) or read_run(folder, ())
    parent = settings["init"][row]
    weights = run_folder(runs, parent, seed) / "model.safetensors" if parent else None
    verify_run(folder, list(run.predictions), settings["stamps"], _command(settings), weights)
    if parent and (parent, seed) not in found:
        _verify_lineage(settings, runs, parent, seed, found)


def _require(folder: Path, benchmarks: Iterable[str], scale: str) -> None:
    names = ["model.safetensors", "train.json"]
    for benchmark in benchmarks:
        names += [f"{benchmark}/{name}" for name in ("masks.json", "segment.json", "score.json")]
    for name in names:
        if not (folder / name).is_file():
            raise HodorError(
                f"{folder / name}: missing, though the table is made of it; make it with: snakemake --cores all "
                f"--config scale={scale} -- {folder / name}"
            )


def _command(settings: dict) -> str:
    """What makes the table (or claims.json), and before it whatever is missing for it."""
    name = TABLES.get(settings["table"], settings["table"])
    kind = "json" if name == "claims" else "csv"
    return f"snakemake --cores all --config scale={settings['scale']} -- results/{name}.{kind}"


def _line(settings: dict, row: str, benchmark: str, found: Runs) -> dict[str, str]:
    """A row on a benchmark as text, as in the CSV."""
    runs = _runs(settings, row, found)
    predictions = [run.predictions[benchmark] for run in runs if benchmark in run.predictions]
    scores = {
        name: [100 * p.overall[f"{name}-Mean"] for p in predictions if f"{name}-Mean" in p.overall]
        for name in ("J&F", "J", "F")
    }
    # Of some seeds alone a mean would pass for that of all.
    means = {
        name: f"{statistics.fmean(values):.4f}" if values and len(values) == len(predictions) else ""
        for name, values in scores.items()
    }
    missing = PENDING if predictions else TRAINED_ON if runs else NOT_RUN
    paper = published_value(settings["published"], row, benchmark, get_benchmark(benchmark).metric)
    low, high = interval_cells(runs, benchmark, Bootstrap(**settings["bootstrap"]))
    return _row_cells(settings, row, runs) | {
        "benchmark": benchmark,
        **means,
        "J&F": means["J&F"] or missing,
        "J&F_std": f"{statistics.stdev(scores['J&F']):.4f}" if means["J&F"] and len(predictions) > 1 else "",
        "J&F_low": low,
        "J&F_high": high,
        "paper_J&F": "" if paper is None else f"{paper:.1f}",
    }


def _comparison_line(settings: dict, row: str, found: Runs) -> dict[str, str]:
    """A row on all benchmarks of the comparison as text, as in the CSV."""
    runs = _runs(settings, row, found)
    trained_on = set(settings["benchmarks"]) - set(settings["scored"].get(row, settings["benchmarks"]))
    bootstrap = Bootstrap(**settings["bootstrap"])
    cells = comparison.benchmark_cells(settings["published"], row, runs, bootstrap, trained_on)
    return _row_cells(settings, row, runs) | cells


def _runs(settings: dict, row: str, found: Runs) -> list[Run]:
    if not settings["rows"][row]["selected"]:
        return []
    return [found[row, seed] for seed in settings["seeds_of"][row]]


def _row_cells(settings: dict, row: str, runs: list[Run]) -> dict[str, str]:
    """What a table says of a row apart from its scores."""
    entry = settings["rows"][row]
    return {
        "row": row,
        "label": entry["label"],
        "training_data": entry["trained_on"],
        "attention": entry["options"].get("attention", ""),
        "scale": settings["scale"],
        "seeds": " ".join(str(run.seed) for run in runs),
        "n": str(len(runs)),
        "parameters": " ".join(sorted({str(run.train["parameters"]) for run in runs})),
        "manifest": " ".join((run.folder / "manifest.json").as_posix() for run in runs),
        "note": entry["note"] if entry["present"] else how_to_get(entry["weights"], entry["source"]),
    }


def _cost_lines(settings: dict, found: Runs) -> Iterable[dict]:
    for (row, seed), run in found.items():
        for benchmark, prediction in run.predictions.items():
            yield {
                "row": row,
                "seed": seed,
                "benchmark": benchmark,
                "training_s": run.train.get("time_s"),
                "training_peak_mib": run.train.get("peak_memory_mib"),
                "segmentation_fps": prediction.segment.get("fps"),
                "segmentation_peak_mib": prediction.segment.get("peak_memory_mib"),
                "machine": machine_line(run.train.get("machine")),
                "note": settings["rows"][row]["note"],
            }
