"""The verb `claims`: runs in, a verdict on each claim of the poster out."""

from collections.abc import Sequence
from pathlib import Path

from hodor.errors import HodorError
from hodor.provenance import write_json_atomic, write_text_atomic
from hodor.reporting import verdicts
from hodor.reporting.alphas import learned_alphas, starting_alphas
from hodor.reporting.claims_page import claims_page
from hodor.reporting.readable import benchmark_title
from hodor.reporting.runs import Run
from hodor.reporting.samples import bootstrap_line, metric, sample, score
from hodor.reporting.tables import Runs, collect
from hodor.reporting.verdicts import Verdict
from hodor.reporting.words import provenance_lines, scale_statement
from hodor.scoring.statistics import Bootstrap, compare


def claims(stamp: dict, runs: Path, out: Path) -> None:
    """Writes claims.json and claims.md to `out`.

    claims.json: {"scale", "title", "statement" (what the scale's numbers say and do not say), "seeds", "resamples",
    "bootstrap_seed", "rule", "claims": a list of {"id", "claim", "kind", "benchmark" (id or null), "metric" ("J&F", "G"
    or "alpha"), "rows", "source", "note", "verdict", "effect", "interval", "probability", "sequences", "seeds", "reason"
    (see `hodor.reporting.verdicts.Verdict`), "evidence" (what a verdict at this scale is about)}, "manifests": row ->
    those of its runs, "provenance": what -> value}.

    Args:
        stamp: its settings are those of a table named `claims` (`hodor.reporting.tables.tabulate`) and "claims": the
            claims one by one ("id", "claim", "kind", "benchmark", "rows", "source", "note", "without": why its rows
            decide nothing here, or None), "evidence", "rule", "bootstrap".
        runs: the scale's folder of runs.
        out: folder for the files.

    Raises:
        HodorError: a result is missing, or was not made from what is current.
    """
    settings, out = stamp["settings"], Path(out)
    found = collect(settings, Path(runs))
    bootstrap = settings["bootstrap"]
    judged = [
        {
            **{key: claim[key] for key in ("id", "claim", "kind", "benchmark")},
            "metric": metric(claim["benchmark"]) if claim["benchmark"] else "alpha",
            **{key: claim[key] for key in ("rows", "source", "note")},
            **judge(settings, claim, found).as_json(),
            "evidence": settings["evidence"],
        }
        for claim in settings["claims"]
    ]
    shown = list(dict.fromkeys(row for row, _ in found))
    content = {
        "scale": settings["scale"],
        "title": settings["title"],
        "statement": f"{scale_statement(settings)} {settings['evidence']}",
        "seeds": settings["seeds"],
        "resamples": bootstrap["resamples"],
        "bootstrap_seed": bootstrap["seed"],
        "rule": settings["rule"],
        "claims": judged,
        "manifests": {
            row: [(found[row, seed].folder / "manifest.json").as_posix() for seed in settings["seeds"]] for row in shown
        },
        "provenance": dict(
            [*provenance_lines(list(found.values()), settings["seeds"]), bootstrap_line(settings["bootstrap"])]
        ),
    }
    write_json_atomic(out / "claims.json", content)
    write_text_atomic(out / "claims.md", claims_page(content))


def judge(settings: dict, claim: dict, found: Runs) -> Verdict:
    """The verdict on one claim of the settings, from the runs that were made."""
    selected = [row for row in claim["rows"] if settings["rows"][row]["selected"]]
    if missing := [row for row in claim["rows"] if row not in selected]:
        return verdicts.not_run(f"not part of this run: {', '.join(missing)} (rows=)")
    runs = [[found[row, seed] for seed in settings["seeds"]] for row in selected]
    if claim["kind"] == "alphas-move":
        alphas = learned_alphas(runs[0])
        return verdicts.of_alphas(alphas, starting_alphas(alphas.shape[-1]), claim["without"])
    return _judge_rows(settings, claim, *runs)


def _judge_rows(settings: dict, claim: dict, first: Sequence[Run], second: Sequence[Run]) -> Verdict:
    benchmark = claim["benchmark"]
    if benchmark not in settings["benchmarks"]:
        return verdicts.not_run("this scale has no such benchmark")
    scores = [score(runs, benchmark) for runs in (first, second)]
    if missing := [row for row, values in zip(claim["rows"], scores, strict=True) if not values]:
        return verdicts.not_run(f"no score on {benchmark_title(benchmark)} yet: {', '.join(missing)}")
    ours, theirs = (sample(runs, benchmark) for runs in (first, second))
    if ours is None or theirs is None:
        return verdicts.of_numbers(*scores, claim["without"])
    try:
        compared = compare(ours, theirs, Bootstrap(**settings["bootstrap"]))
    except HodorError as error:
        raise HodorError(f"{benchmark}, {' and '.join(claim['rows'])}: {error}") from None
    return verdicts.of_rows(claim["kind"], compared, settings["rule"], claim["without"])
