"""The verb `claims`: runs in, a verdict on each claim of the poster out, as JSON and Markdown."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from hodor.attention import initial_alpha
from hodor.config.benchmarks import get_benchmark
from hodor.errors import HodorError
from hodor.provenance import read_json, write_json_atomic, write_text_atomic
from hodor.reporting import verdicts
from hodor.reporting.formats import MISSING, benchmark_title, footnote, render_markdown, scale_statement
from hodor.reporting.runs import Run, provenance, sample, seed_scores
from hodor.reporting.tables import Runs, collect
from hodor.reporting.verdicts import NOT_RUN, VERDICTS, Verdict
from hodor.scoring.statistics import Bootstrap, compare

_ALPHA = re.compile(r"^network\.encoder\.layers\.(\d+)\.cross_attention\.alpha$")


def claims(stamp: dict, runs: Path, out: Path) -> list[Path]:
    """Write claims.json and claims.md to `out`.

    claims.json: {"scale", "title", "statement" (what the scale's numbers mean), "seeds", "resamples", "bootstrap_seed",
    "rule", "claims": a list of {"id", "claim", "kind", "benchmark" (id or null), "metric" ("J&F", "G" or "alpha"),
    "rows", "source", "note", "verdict", "effect", "interval", "probability", "sequences", "seeds", "reason" (see
    `hodor.reporting.verdicts.Verdict`), "evidence" (what a verdict at this scale is about)}, "manifests": row -> those
    of its runs, "provenance": what -> value}.

    Args:
        stamp: Its settings are those of a table named `claims` (`hodor.reporting.tables.tabulate`) and "claims": the
            claims one by one ("id", "claim", "kind", "benchmark", "rows", "source", "note", "without": why its rows
            decide nothing here, or None), "evidence", "rule", "bootstrap".
        runs: The scale's folder of runs.
        out: Folder for the files.

    Returns:
        The files written.

    Raises:
        HodorError: A result is missing, or was not made from what is current.
    """
    settings, out = stamp["settings"], Path(out)
    found, bootstrap = collect(settings, Path(runs)), settings["bootstrap"]
    judged = [
        {key: claim[key] for key in ("id", "claim", "kind", "benchmark", "rows", "source", "note")}
        | {"metric": get_benchmark(claim["benchmark"]).metric if claim["benchmark"] else "alpha"}
        | judge(settings, claim, found).as_json()
        | {"evidence": settings["evidence"]}
        for claim in settings["claims"]
    ]
    rows = dict.fromkeys(row for row, _ in found)
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
            row: [found[row, seed].manifest.as_posix() for seed in settings["seeds_of"][row]] for row in rows
        },
        "provenance": provenance(found.values(), settings["seeds"], bootstrap),
    }
    write_json_atomic(out / "claims.json", content)
    write_text_atomic(out / "claims.md", _page(content))
    return [out / "claims.json", out / "claims.md"]


def read_claims(results: Path) -> dict | None:
    """The content of claims.json in a folder of results; None where there is none.

    Raises:
        HodorError: The file holds no list of claims with known verdicts.
    """
    path = Path(results) / "claims.json"
    if not path.is_file():
        return None
    content = read_json(path)
    found = content.get("claims")
    if not isinstance(found, list) or not all(isinstance(c, dict) and c.get("verdict") in VERDICTS for c in found):
        raise HodorError(
            f"{path}: no list of claims with the verdicts {', '.join(VERDICTS)}; delete it and run the workflow again"
        )
    return content


def judge(settings: dict, claim: dict, found: Runs) -> Verdict:
    """The verdict on one claim of the settings, from the runs that were made."""
    rows, benchmark = claim["rows"], claim["benchmark"]
    if missing := [row for row in rows if not settings["rows"][row]["selected"]]:
        return verdicts.not_run(f"not part of this run: {', '.join(missing)} (rows=)")
    runs = [[found[row, seed] for seed in settings["seeds_of"][row]] for row in rows]
    if claim["kind"] == "alphas-move":
        alphas = learned_alphas(runs[0])
        return verdicts.of_alphas(alphas, np.array(initial_alpha(alphas.shape[-1])), claim["without"])
    if benchmark not in settings["benchmarks"]:
        return verdicts.not_run("this scale has no such benchmark")
    scores = [seed_scores(of, benchmark) for of in runs]
    if missing := [row for row, values in zip(rows, scores, strict=True) if not values]:
        return verdicts.not_run(f"no score on {benchmark_title(benchmark)} yet: {', '.join(missing)}")
    samples = [sample(of, benchmark) for of in runs]
    if None in samples:
        return verdicts.of_numbers(*scores, claim["without"])
    try:
        compared = compare(*samples, Bootstrap(**settings["bootstrap"]))
    except HodorError as error:
        raise HodorError(f"{benchmark}, {' and '.join(rows)}: {error}") from None
    return verdicts.of_rows(claim["kind"], compared, settings["rule"], claim["without"])


def learned_alphas(runs: Sequence[Run]) -> np.ndarray:
    """Alphas of a row's runs, from their weights: float (R, layers, heads), the runs in their order.

    Raises:
        HodorError: Weights cannot be read, or hold no alphas.
    """
    return np.stack([_read_alphas(run.folder / "model.safetensors") for run in runs])


def _read_alphas(path: Path) -> np.ndarray:
    try:
        with safe_open(path, framework="numpy") as file:
            found = {int(match[1]): file.get_tensor(name) for name in file.keys() if (match := _ALPHA.match(name))}
    except (OSError, SafetensorError) as error:
        raise HodorError(f"{path}: broken model file ({error}); delete it and train its row again") from None
    if not found:
        raise HodorError(f"{path}: holds no alphas: its attention is not soft")
    return np.array([found[layer] for layer in sorted(found)], float)


def effect_text(claim: Mapping) -> tuple[str, str]:
    """Effect and interval of a claim of claims.json as text, in points or, of alphas, in units of alpha."""
    digits = 3 if claim.get("metric") == "alpha" else 1
    effect, interval = claim.get("effect"), claim.get("interval")
    ends = [f"{end:+.{digits}f}" for end in interval or ()]
    return MISSING if effect is None else f"{effect:+.{digits}f}", f"[{', '.join(ends)}]" if ends else MISSING


def where(claim: Mapping) -> str:
    """The benchmark of a claim and its metric; "weights" where it is about none."""
    return f"{benchmark_title(claim['benchmark'])}, {claim.get('metric')}" if claim.get("benchmark") else "weights"


def _page(content: dict) -> str:
    """claims.json as Markdown."""
    absent: dict[tuple[str, str], list[str]] = {}
    for claim in content["claims"]:
        if claim["verdict"] == NOT_RUN:
            absent.setdefault((claim["claim"], claim["reason"]), []).append(where(claim))
    lines = [(claim, "; ".join(places), reason) for (claim, reason), places in absent.items()]
    return render_markdown(
        "claims.md",
        content=content,
        judged=pd.DataFrame(_cells(claim) for claim in content["claims"] if claim["verdict"] != NOT_RUN),
        absent=pd.DataFrame(lines, columns=["claim", "on", "why"]),
        foot=footnote(content["provenance"]),
        origin=content["provenance"],
        manifests=[(row, path) for row, paths in content["manifests"].items() for path in paths],
    )


def _cells(claim: Mapping) -> dict[str, str]:
    effect, interval = effect_text(claim)
    reason = (claim["reason"][:1].upper() + claim["reason"][1:]).rstrip(".")
    return {
        "claim": f"{claim['claim']} ({' vs '.join(claim['rows'])})",
        "on": where(claim),
        "verdict": f"**{claim['verdict']}**",
        "effect": effect,
        "interval": interval,
        "P(first beats second)": MISSING if claim["probability"] is None else f"{claim['probability']:.2f}",
        "sequences": str(claim["sequences"] or MISSING),
        "n": str(claim["seeds"]),
        "why": ". ".join(filter(None, [reason, claim["note"]])),
    }
