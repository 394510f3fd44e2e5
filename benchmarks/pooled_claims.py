"""Verdicts on claims from runs of several machines, each of which leaves only the scores of its objects.

    python benchmarks/pooled_claims.py --collect           # runs/subset -> results/subset_objects_<machine>.csv
    python benchmarks/pooled_claims.py                     # results/subset_objects_*.csv -> subset_pooled-claims_*.md
    python benchmarks/pooled_claims.py --compare ROW OTHER # the differences of two more rows as well

The seeds of table 1 take hours each, more than some machines are lent for. `hodor import` joins complete runs; where their
weights and masks are lost with the machine, a few kilobytes of scores can be kept and pooled. The rule of a verdict, its
intervals and the claims are those of config/claims.yaml (docs/claims.md); the learned alphas are in the weights alone, so
claims about them are not judged here.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from harness import machine_slug, script_parser, table, write_result

from hodor.config.claims import Claims
from hodor.config.loading import load
from hodor.errors import HodorError
from hodor.provenance import write_text_atomic
from hodor.reporting.claims import effect_text, judge_rows
from hodor.reporting.runs import read_run
from hodor.scoring.statistics import Bootstrap, Sample, compare, estimate

ROOT = Path(__file__).resolve().parent.parent
RUN = ["row", "seed", "benchmark"]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--scale", default="subset")
    parser.add_argument("--collect", action="store_true", help="keep the scores of the runs of this machine")
    parser.add_argument("--runs", type=Path, help="runs/<scale> of a folder with its data/; default: of this one")
    parser.add_argument(
        "--compare", nargs=2, action="append", default=[], metavar="ROW", help="rows of no claim; may be repeated"
    )
    options = parser.parse_args()
    if options.collect:
        path = options.out / f"{options.scale}_objects_{machine_slug()}.csv"
        collected = collect(options.runs or ROOT / "runs" / options.scale, options.scale)
        if path.is_file():  # of earlier runs; the same run scored again counts once
            collected = pd.concat([pd.read_csv(path), collected]).drop_duplicates([*RUN, "object"], keep="last")
        write_text_atomic(path, collected.to_csv(index=False, lineterminator="\n"))
        print(f"written to {path}: {len(collected.groupby(RUN))} runs on a benchmark")
        return
    objects = pooled(sorted(options.out.glob(f"{options.scale}_objects_*.csv")))
    config = load(ROOT / "config", {"scale": options.scale})
    claims = config.claims
    bootstrap = Bootstrap(**claims.bootstrap.model_dump())
    samples = {run: sample(found) for run, found in objects.groupby(["row", "benchmark"], sort=False)}
    scores = []
    for (row, benchmark), found in samples.items():
        seeds = sorted(objects[(objects["row"] == row) & (objects["benchmark"] == benchmark)]["seed"].unique())
        scores.append({"row": row, "benchmark": benchmark} | score_cells(found, seeds, bootstrap))
    verdicts = []
    for claim in claims.entries():
        pair = [(row, claim["benchmark"]) for row in claim["rows"]]
        if claim["kind"] == "alphas-move" or not set(pair) <= samples.keys():
            continue
        cells = verdict_cells(claim["kind"], samples[pair[0]], samples[pair[1]], claims)
        trained = objects[objects["row"].isin(claim["rows"])]["substitutes"].unique()
        cells["why"] = "; ".join([cells["why"], *(f"trained on {text}" for text in trained if text)])
        named = {"claim": claim["claim"], "rows": " vs ".join(claim["rows"]), "benchmark": claim["benchmark"]}
        verdicts.append(named | cells)
    further = [line for pair in options.compare for line in differences(objects, pair, bootstrap)]
    machines = objects.groupby(["machine", "commit"])["seed"].unique()
    text = [
        f"# Claims judged on pooled seeds: scale {options.scale}",
        "",
        claims.evidence[config.scale.edition],
        "J&F in points, mean over objects, then over seeds, with 95 % intervals over sequences and seeds (docs/claims.md).",
        "Machines differ in the rounding of their sums, so a seed's numbers cannot be repeated to the last digit on another.",
        "",
        *table(scores),
        "",
        *table(verdicts),
        "",
        *(["Differences that no claim is about:", "", *table(further), ""] if further else []),
        *(
            f"- runs: seeds {', '.join(map(str, sorted(seeds)))} on {machine}, commit {commit}"
            for (machine, commit), seeds in machines.items()
        ),
    ]
    write_result(f"{options.scale}_pooled-claims", text, options.out)


def score_cells(found: Sample, seeds: Iterable[int], bootstrap: Bootstrap) -> dict[str, object]:
    """Return the score of a row with its interval, and that of each seed in ascending order."""
    of = estimate(found, bootstrap)
    each = ", ".join(f"{seed}: {score:.1f}" for seed, score in zip(seeds, found.scores(), strict=True))
    return {"J&F": of.mean, "interval": f"[{of.low:.1f}, {of.high:.1f}]", "of each seed": each}


def verdict_cells(kind: str, first: Sample, second: Sample, claims: Claims) -> dict[str, str | int]:
    """Return the verdict on two rows by the rule of the claims, its evidence and its reason."""
    found = compare(first, second, Bootstrap(**claims.bootstrap.model_dump()))
    verdict = judge_rows(kind, found, claims.rule.model_dump())
    effect, interval = effect_text(verdict.as_json())
    numbers: dict[str, str | int] = {"effect": effect, "interval": interval, "seeds": verdict.seeds}
    return {"verdict": verdict.verdict} | numbers | {"sequences": verdict.sequences, "why": verdict.reason}


def differences(objects: pd.DataFrame, pair: list[str], bootstrap: Bootstrap) -> Iterator[dict[str, str]]:
    """Yield the difference of two rows on each benchmark, over the seeds of both; HodorError if they share none."""
    found = objects[objects["row"].isin(pair)]
    both = found.groupby(["benchmark", "seed"])["row"].transform("nunique") == 2
    if not both.any():
        raise HodorError(f"--compare {' '.join(pair)}: no seed of both rows was collected")
    for benchmark, shared in found[both].groupby("benchmark", sort=False):
        compared = compare(*(sample(shared[shared["row"] == row]) for row in pair), bootstrap)
        yield {
            "rows": " vs ".join(pair),
            "benchmark": str(benchmark),
            "difference": f"{compared.effect:+.1f}",
            "interval": f"[{compared.low:+.1f}, {compared.high:+.1f}]",
            "seeds": ", ".join(map(str, sorted(shared["seed"].unique()))),
        }


def collect(runs: Path, scale: str) -> pd.DataFrame:
    """Return the scores of all objects of scored runs.

    Columns: row, seed, benchmark, object, J-Mean and F-Mean (0 to 1), what the row was trained on instead of the published
    data, commit, machine.
    """
    config = load(ROOT / "config", {"scale": scale}, runs.resolve().parent.parent)  # the data there decide
    found = []
    for folder in sorted({path.parent.parent for path in runs.glob("*/seed*/*/score.json")}):
        run = read_run(folder)
        for benchmark, prediction in run.predictions.items():
            scores = prediction.objects.reset_index()[["object", "J-Mean", "F-Mean"]].round(6)
            named = {"row": run.row, "seed": run.seed, "benchmark": benchmark} | scores.to_dict("list")
            named["substitutes"] = " and ".join(config.substitutes(run.row))
            found.append(pd.DataFrame(named | {"commit": run.train["commit"], "machine": machine_slug()}))
    if not found:
        raise HodorError(f"{runs}: no scored runs; run `make evidence` first")
    return pd.concat(found)


def pooled(files: list[Path]) -> pd.DataFrame:
    """Return the lines of several files; HodorError if a run is in two of them, or if there are none."""
    if not files:
        raise HodorError("no file of objects; make one with --collect")
    objects = pd.concat([pd.read_csv(file, keep_default_na=False) for file in files])
    twice = objects[objects.duplicated([*RUN, "object"])]
    if not twice.empty:
        row, seed, benchmark = twice.iloc[0][RUN]
        raise HodorError(f"{row}, seed {seed}, {benchmark}: in several files; remove it from all but one")
    return objects


def sample(objects: pd.DataFrame) -> Sample:
    """Return the scores of a row on a benchmark for the statistics, in points."""
    scores = 50 * (objects["J-Mean"] + objects["F-Mean"])
    keys = [tuple(name.rpartition("_")[::2]) for name in objects["object"]]  # "<sequence>_<id>"
    return Sample({seed: dict(of.items()) for seed, of in scores.set_axis(keys).groupby(objects["seed"].to_numpy())})


if __name__ == "__main__":
    try:
        main()
    except HodorError as error:
        raise SystemExit(str(error)) from None
