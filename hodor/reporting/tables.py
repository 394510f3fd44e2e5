"""The verb `tabulate`: make a table of runs, as CSV, Markdown and LaTeX.

Scores are in points (0..100): means over objects, then over seeds, with the sample standard deviation over several seeds and
the 95 % interval over sequences and seeds (`hodor.scoring.statistics`). Only costs.csv has numbers that vary from run to run.
"""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hodor.config.benchmarks import get_benchmark
from hodor.config.servers import PENDING, server_overall
from hodor.errors import HodorError
from hodor.provenance import json_text, write_text_atomic
from hodor.records import verify_run, verify_same_ground_truth
from hodor.reporting.formats import (
    ELSEWHERE,
    NEW,
    NOT_RUN,
    TRAINED_ON,
    comparison_benchmarks,
    latex_file,
    markdown_page,
)
from hodor.reporting.runs import Run, loss_curve, machine_line, provenance, read_run, run_folder, sample, seed_scores
from hodor.scoring.statistics import Bootstrap, estimate

TABLES = {"ablation": "ablation_table", "comparison": "comparison_table", "extended": "extended_table"}
ABLATION_BENCHMARKS = ("davis2017-val", "davis2016-val")
"""Benchmarks of table 1, where the scale has them: that of the poster, and the one on which its claims are judged as well."""
COLUMNS = (
    "row", "label", "training_data", "attention", "scale", "benchmark", "seeds", "n", "J&F", "J&F_std",
    "J&F_low", "J&F_high", "J", "F", "paper_J&F", "parameters", "manifest", "note",
)  # fmt: skip
COST_COLUMNS = (
    "row", "seed", "benchmark", "training_s", "training_peak_mib", "segmentation_fps", "segmentation_peak_mib",
    "machine", "note",
)  # fmt: skip
RELEASED_COLUMNS = (
    "id", "row", "label", "benchmark", "scale", "released_J&F", "released_J", "released_F", "paper_J&F", "status",
    "parameters", "checkpoint_sha256", "short_side", "manifest", "note", "source", "licence",
)  # fmt: skip

Runs = dict[tuple[str, int], Run]
"""(row, seed) -> run."""


def tabulate(stamp: dict, runs: Path, out: Path) -> list[Path]:
    """Write {ablation,comparison,extended}_table.{csv,md,tex} or costs.csv, and return their paths.

    With the extended table it writes released_weights.csv; with the costs, for `dvc metrics` and `dvc plots`, metrics.json
    (row -> benchmark -> mean score over seeds in points) and curves/<row>.csv (mean training loss at the logged steps).

    Args:
        stamp: stamp of the step.
        runs: folder of the scale's runs, such as runs/mini, with which paths of manifests begin.
        out: folder to write to.

    Raises:
        HodorError: a result is missing or out of date.
    """
    settings = stamp["settings"]
    table, found = settings["table"], collect(settings, Path(runs))
    texts: dict[str, str] = {}
    if table == "costs":
        texts["costs.csv"] = csv_text(COST_COLUMNS, _cost_lines(settings, found))
        rows = {row: [run for (of, _), run in found.items() if of == row] for row, _ in found}
        texts["metrics.json"] = json_text({row: _metrics(runs) for row, runs in rows.items()})
        texts |= {f"curves/{row}.csv": loss_curve(runs) for row, runs in rows.items()}
        (Path(out) / "curves").mkdir(parents=True, exist_ok=True)  # the workflow expects it, even if no row was trained
    else:
        lines, name = make_lines(settings, found), TABLES[table]
        origin = provenance(found.values(), settings["seeds"], settings["bootstrap"])
        texts[f"{name}.csv"] = csv_text(lines.columns, lines)
        texts[f"{name}.md"] = markdown_page(settings, table, lines, origin)
        texts[f"{name}.tex"] = latex_file(settings, table, lines, origin)
        if table == "extended":
            texts["released_weights.csv"] = csv_text(RELEASED_COLUMNS, _released_view(settings, lines, found))
    files = {Path(out) / name: text for name, text in texts.items() if text}
    for path, text in files.items():
        write_text_atomic(path, text)
    return list(files)


def collect(settings: dict, runs: Path) -> Runs:
    """Read and verify every run that the settings select; HodorError as in `tabulate`."""
    scored, command = settings["scored"], _command(settings)
    shown = [row for row, entry in settings["rows"].items() if entry["selected"]]
    for row in settings["init"]:
        for seed in settings["seeds_of"].get(row, settings["seeds"]):
            trained = f"{row}/seed{seed}/train" in settings["stamps"]
            _require(run_folder(runs, row, seed), scored[row] if row in shown else (), settings["scale"], trained)
    found: Runs = {
        (row, seed): read_run(run_folder(runs, row, seed), scored[row])
        for row in shown
        for seed in settings["seeds_of"][row]
    }
    verified: set[tuple[str, int]] = set()
    for row, seed in found:
        # A run, then the run that it started from, and so on.
        while row is not None and (row, seed) not in verified:
            run = found.get((row, seed)) or read_run(run_folder(runs, row, seed), ())
            parent = settings["init"][row]
            weights = run_folder(runs, parent, seed) / "model.safetensors" if parent else None
            verify_run(run.folder, list(run.predictions), settings["stamps"], command, weights)
            verified.add((row, seed))
            row = parent
    for benchmark in settings["benchmarks"]:
        verify_same_ground_truth([run.folder for run in found.values()], benchmark, command)
    answers = {(entry["row"], entry["seed"], entry["benchmark"]): entry for entry in settings["server_scores"]}
    return {key: with_server_scores(run, answers) for key, run in found.items()}


def with_server_scores(run: Run, answers: Mapping[tuple[str, int, str], dict]) -> Run:
    """Return the run with its scores from servers.

    Args:
        run: the run.
        answers: (row, seed, benchmark) -> entry of server_scores.yaml.

    Raises:
        HodorError: an entry is of another zip, or its benchmark needs no server.
    """
    predictions = dict(run.predictions)
    for id, prediction in run.predictions.items():
        answer = answers.get((run.row, run.seed, id))
        if answer is None:
            continue
        where = prediction.folder / "score.json"
        if prediction.submission is None:
            raise HodorError(
                f"config/server_scores.yaml: {run.row}, seed {run.seed}, {id}: the ground truth is public and was scored "
                f"({where}); remove the entry"
            )
        predictions[id] = replace(prediction, overall=server_overall(answer, prediction.submission, where))
    return replace(run, predictions=predictions)


def make_lines(settings: dict, found: Runs) -> pd.DataFrame:
    """Return the lines of a table's CSV as text."""
    table, lines = settings["table"], []
    for row, entry in settings["rows"].items():
        runs = [found[row, seed] for seed in settings["seeds_of"].get(row, ()) if (row, seed) in found]
        imported = " ".join(str(run.seed) for run in runs if run.elsewhere)
        notes = [entry["note"], f"{ELSEWHERE}: seed {imported}" if imported else ""]
        system = {
            "row": row,
            "label": entry["label"],
            "training_data": entry["trained_on"],
            "attention": entry["options"].get("attention", ""),
            "scale": settings["scale"],
            "seeds": " ".join(str(run.seed) for run in runs),
            "n": str(len(runs)),
            "parameters": " ".join(sorted({str(run.train["parameters"]) for run in runs if run.train})),
            "manifest": " ".join(run.manifest.as_posix() for run in runs),
            "note": f"{NOT_RUN}: {entry['absent']}" if entry["absent"] else "; ".join(filter(None, notes)),
        }
        unscored = set(settings["benchmarks"]) - set(settings["scored"].get(row, settings["benchmarks"]))
        if "masks" in entry:  # benchmarks without masks are not run
            unscored = set()
        if table == "comparison":
            shared = settings["published"], row, runs, Bootstrap(**settings["bootstrap"]), settings["benchmarks"]
            lines.append(system | comparison_cells(*shared, unscored, settings.get("pending")))
        else:
            shown = [id for id in settings["benchmarks"] if table != "ablation" or id in ABLATION_BENCHMARKS]
            lines += [system | {"benchmark": id} | _cells(settings, row, runs, id, unscored) for id in shown]
    if table == "comparison":
        return pd.DataFrame(lines, columns=comparison_columns(settings["benchmarks"]), dtype=str)
    if table == "ablation":
        lines.sort(key=lambda line: ABLATION_BENCHMARKS.index(line["benchmark"]))
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=str)


def comparison_columns(ids: Sequence[str]) -> list[str]:
    """Return the columns of the CSV of table 2. `ids`: the benchmarks of the scale."""
    found = ["row", "label", "training_data", "attention", "scale", "seeds", "n"]
    for benchmark in comparison_benchmarks(ids):
        metric = benchmark.metric
        names = (metric, f"{metric}_std", f"{metric}_low", f"{metric}_high", f"paper_{metric}", "note")
        found += [f"{benchmark.id}_{name}" for name in names]
    return [*found, "parameters", "manifest", "note"]


def comparison_cells(
    published: Sequence[Mapping],
    row: str,
    runs: Sequence[Run],
    bootstrap: Bootstrap,
    benchmarks: Sequence[str] = (),
    trained_on: Collection[str] = (),
    pending: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the columns of the benchmarks of table 2 for one row.

    Args:
        published: lines of config/published.csv.
        row: id of the row.
        runs: its runs, one for each seed; empty for a row that was not run.
        bootstrap: settings of the intervals.
        benchmarks: benchmarks of the scale.
        trained_on: ids of benchmarks of the scale that are part of its training data.
        pending: benchmark with a server -> text of a cell until the server's score is entered.
    """
    cells: dict[str, str] = {}
    for id, metric in ((benchmark.id, benchmark.metric) for benchmark in comparison_benchmarks(benchmarks)):
        column = "G" if metric == "G" else "J&F-Mean"
        for prediction in (run.predictions[id] for run in runs if id in run.predictions):
            if not prediction.pending and column not in prediction.overall:
                path = prediction.folder / "global.csv"
                raise HodorError(f"{path}: no column {column}; delete the file and score again")
        score, std = _mean(runs, id, column, trained_on, (pending or {}).get(id, PENDING))
        low, high = interval_cells(runs, id, bootstrap)
        paper = published_value(published, row, id, metric)
        key = ("comparison", row, id, metric)
        of_paper = [line["note"] for line in published if _published_key(line) == key]
        notes = [NEW if score[0].isdigit() and paper is None else "", *of_paper]
        values = (score, std, low, high, _point(paper))
        names = (metric, f"{metric}_std", f"{metric}_low", f"{metric}_high", f"paper_{metric}")
        cells |= {f"{id}_{name}": value for name, value in zip(names, values, strict=True)}
        cells[f"{id}_note"] = "; ".join(filter(None, notes))
    return cells


def interval_cells(runs: Sequence[Run], benchmark: str, bootstrap: Bootstrap) -> tuple[str, str]:
    """Return the ends of the 95 % interval of a row's score in points; empty texts if there is none."""
    found = sample(runs, benchmark)
    if found is None:
        return "", ""
    result = estimate(found, bootstrap)
    return f"{result.low:.4f}", f"{result.high:.4f}"


def published_value(published: Iterable[Mapping], row: str, benchmark: str, metric: str = "J&F") -> float | None:
    """Return the published value of a row on a benchmark, in points (0..100), or None."""
    found = set()
    for entry in published:
        if _published_key(entry)[1:] == (row, benchmark, metric):
            try:
                value = float(entry["value"])
            except (TypeError, ValueError):
                value = -1.0
            if not 0 <= value <= 100:
                where = f"config/published.csv: {row}, {benchmark}, {metric}"
                raise HodorError(f"{where}: '{entry['value']}' is not in 0..100; correct it")
            found.add(value)
    if len(found) > 1:
        raise HodorError(
            f"config/published.csv: {row}, {benchmark}, {metric}: its tables give {sorted(found)}; correct one"
        )
    return found.pop() if found else None


def csv_text(columns: Iterable[str], lines: pd.DataFrame | Iterable[dict]) -> str:
    """Return CSV with these columns; None becomes an empty field."""
    return pd.DataFrame(lines, columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")


def _cells(settings: dict, row: str, runs: list[Run], benchmark: str, trained_on: Collection[str]) -> dict[str, str]:
    """Return the scores of a row on one benchmark."""
    pending = settings.get("pending", {}).get(benchmark, PENDING)
    score, std = _mean(runs, benchmark, "J&F-Mean", trained_on, pending)
    low, high = interval_cells(runs, benchmark, Bootstrap(**settings["bootstrap"]))
    cells = {"J&F": score, "J&F_std": std, "J&F_low": low, "J&F_high": high}
    for name in ("J", "F"):
        value, _ = _mean(runs, benchmark, f"{name}-Mean")
        cells[name] = value if value[0].isdigit() else ""
    paper = published_value(settings["published"], row, benchmark, get_benchmark(benchmark).metric)
    return cells | {"paper_J&F": _point(paper)}


def _mean(
    runs: Sequence[Run], benchmark: str, column: str, trained_on: Collection[str] = (), pending: str = PENDING
) -> tuple[str, str]:
    """Return mean and sample standard deviation over seeds; if there is no mean, the reason instead."""
    scored = [run.predictions[benchmark] for run in runs if benchmark in run.predictions]
    values = [100 * prediction.overall[column] for prediction in scored if column in prediction.overall]
    # A mean of some of the seeds would be taken for that of all.
    if scored and len(values) == len(scored):
        return f"{statistics.fmean(values):.4f}", f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    if scored:
        return pending, ""
    return (TRAINED_ON if runs and benchmark in trained_on else NOT_RUN), ""


def _point(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _published_key(line: Mapping) -> tuple[str, str, str, str]:
    return line.get("table", ""), line["row"], line["benchmark"], line["metric"]


def _released_view(settings: dict, lines: pd.DataFrame, found: Runs) -> Iterable[dict]:
    """Yield the rows of released weights of the extended table, even absent ones, with their source."""
    for line in lines.to_dict("records"):
        row, benchmark = line["row"], line["benchmark"]
        entry, run, scored = settings["rows"][row], found.get((row, 0)), line["J&F"][0].isdigit()
        if not entry["weights"] or line["J&F"] == TRAINED_ON:
            continue
        paper = published_value(settings["published"], entry["compare"], benchmark, get_benchmark(benchmark).metric)
        view = {key: line[key] for key in ("label", "benchmark", "scale", "parameters", "manifest")}
        view |= {key: entry[key] for key in ("note", "source", "licence")}
        view |= {f"released_{name}": line[name] if scored else "" for name in ("J&F", "J", "F")}
        view |= {"id": row, "row": entry["compare"], "paper_J&F": _point(paper)}
        view["status"] = "scored" if scored else line["J&F"] if run else f"{NOT_RUN}: {entry['absent']}"
        if run:
            segment = run.predictions[benchmark].segment.get("stamp_content") or {}
            view["short_side"] = segment.get("settings", {}).get("inference", {}).get("short_side", "")
            view["checkpoint_sha256"] = run.train["inputs"]["checkpoint"]
        yield view


def _require(folder: Path, benchmarks: Iterable[str], scale: str, trained: bool) -> None:
    names = ["model.safetensors", "train.json"] if trained else []
    for benchmark in benchmarks:
        names += [f"{benchmark}/{name}" for name in ("masks.json", "segment.json", "score.json")]
    for name in names:
        if not (folder / name).is_file():
            raise HodorError(
                f"{folder / name}: missing; make it with: snakemake --cores all --config scale={scale} -- {folder / name}"
            )


def _command(settings: dict) -> str:
    """Return the command that makes the table (or claims.json) with everything that it needs."""
    name = TABLES.get(settings["table"], settings["table"])
    kind = "json" if name == "claims" else "csv"
    return f"snakemake --cores all --config scale={settings['scale']} -- results/{name}.{kind}"


def _cost_lines(settings: dict, found: Runs) -> Iterable[dict]:
    for (row, seed), run in found.items():
        for benchmark, prediction in run.predictions.items():
            costs = [record.get(key) for record, key in ((run.train, "time_s"), (run.train, "peak_memory_mib"))]
            costs += [prediction.segment.get(key) for key in ("fps", "peak_memory_mib")]
            machine, note = machine_line(run.train.get("machine")), settings["rows"][row]["note"]
            yield dict(zip(COST_COLUMNS, (row, seed, benchmark, *costs, machine, note), strict=True))


def _metrics(runs: list[Run]) -> dict[str, float]:
    scores = {id: seed_scores(runs, id) for id in runs[0].predictions}
    return {
        id: round(statistics.fmean(values), 4) for id, values in scores.items() if values
    }  # others wait for a server
