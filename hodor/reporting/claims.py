"""The verb `claims`: give a verdict on each claim of the poster, as JSON and Markdown.

The rule of a verdict was fixed before any number was known:

    two rows, the paired 95 % interval of their difference in points:
        above 0: supported    below 0: contradicted    within `on_par` points of 0: on par    else: undecided
        fewer than `fewest_seeds` seeds or `fewest_sequences` sequences, or numbers of a server alone: undecided
    learned alphas, their distance from the start and the spread over seeds:
        distance above the spread: supported    else, or fewer than `fewest_seeds` seeds: undecided

An interval that is above 0 and within `on_par` points of it is "supported" for a claim that one row is better, and "on
par" for a claim that it is on par or better.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from hodor.config.benchmarks import get_benchmark
from hodor.errors import HodorError
from hodor.provenance import read_json, write_json_atomic, write_text_atomic
from hodor.reporting.formats import MISSING, benchmark_title, footnote, render_markdown, scale_statement
from hodor.reporting.runs import Run, provenance, sample, seed_scores
from hodor.reporting.tables import Runs, collect
from hodor.scoring.statistics import Bootstrap, Comparison, compare

SUPPORTED, CONTRADICTED, ON_PAR, UNDECIDED, NOT_RUN = "supported", "contradicted", "on par", "undecided", "not run"
# Verdict -> its sign, readable without colour, and its meaning.
VERDICTS = {
    SUPPORTED: ("\N{CHECK MARK}", "the interval of the effect is on the claim's side"),
    CONTRADICTED: ("\N{MULTIPLICATION X}", "the interval of the effect is on the other side"),
    ON_PAR: ("\N{ALMOST EQUAL TO}", "the interval is within the margin that counts as equal"),
    UNDECIDED: ("?", "these runs do not decide it, for the reason given"),
    NOT_RUN: ("\N{EN DASH}", "a row or a benchmark of the claim is not part of this run"),
}
_ALPHA = re.compile(r"^network\.encoder\.layers\.(\d+)\.cross_attention\.alpha$")


@dataclass(frozen=True)
class Verdict:
    """A verdict and its evidence.

    Attributes:
        verdict: a key of `VERDICTS`.
        reason: a sentence.
        effect, interval: in points or, for alphas, in units of alpha; None if there is none.
        probability: probability that the first row beats the second, or None.
        sequences, seeds: their numbers.
    """

    verdict: str
    reason: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    probability: float | None = None
    sequences: int = 0
    seeds: int = 0

    def as_json(self) -> dict:
        """Return the fields, numbers with four decimals."""
        found = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return found | {"interval": self.interval and [round(end, 4) for end in self.interval]}


def judge_rows(kind: str, found: Comparison, rule: dict) -> Verdict:
    """Return the verdict on two rows that were compared on the same sequences.

    Args:
        kind: "better" or "at-least".
        found: the comparison, in points.
        rule: {"on_par": points, "fewest_sequences", "fewest_seeds"}.
    """
    name, reason = _decide(kind, found, rule)
    few = _few_seeds(found.seeds, rule)
    if found.sequences < rule["fewest_sequences"]:
        few.append(f"{found.sequences} sequences are fewer than {rule['fewest_sequences']}")
    if few:
        name, reason = UNDECIDED, "; ".join(few)
    return Verdict(name, reason, found.effect, (found.low, found.high), found.probability, found.sequences, found.seeds)


def _few_seeds(seeds: int, rule: dict) -> list[str]:
    """Return why this number of seeds decides nothing; an empty list if it is sufficient."""
    if seeds >= rule["fewest_seeds"]:
        return []
    return [f"{'one seed' if seeds == 1 else f'{seeds} seeds'} (n = {seeds}), {rule['fewest_seeds']} are needed"]


def judge_server_scores(first: list[float], second: list[float]) -> Verdict:
    """Return the verdict on a server's scores, in points for each seed, without those of the sequences."""
    effect, seeds = float(np.mean(first) - np.mean(second)), min(len(first), len(second))
    reason = "a server gave a number for the whole benchmark, and none of its sequences"
    return Verdict(UNDECIDED, reason, effect, seeds=seeds)


def judge_alphas(values: np.ndarray, starts: np.ndarray, rule: dict) -> Verdict:
    """Return the verdict on learned alphas.

    The effect is the root mean square, over all alphas, of the distance of their mean over seeds from their start. The
    spread is the root mean square of their sample standard deviations over seeds. The interval is effect ± spread.

    Args:
        values: (R, layers, heads), alphas of R seeds.
        starts: (heads,), starting values.
        rule: {"fewest_seeds"}.
    """
    moved = values.mean(0) - starts  # (layers, heads)
    effect, seeds = float(np.sqrt(np.mean(moved**2))), len(values)
    few = _few_seeds(seeds, rule)
    if seeds < 2:
        return Verdict(UNDECIDED, few[0], effect, seeds=seeds)
    deviations = values.std(0, ddof=1)
    spread = float(np.sqrt(np.mean(deviations**2)))
    more = int(np.sum(np.abs(moved) > deviations))
    reason = (
        f"moved by {effect:.3g}, spread over seeds {spread:.3g}; {more} of {moved.size} alphas by more than their own"
    )
    name = SUPPORTED if effect > spread and not few else UNDECIDED
    return Verdict(name, "; ".join([*few, reason]), effect, (effect - spread, effect + spread), seeds=seeds)


def _decide(kind: str, found: Comparison, rule: dict) -> tuple[str, str]:
    interval = f"the 95 % interval of the difference, {found.low:.1f} to {found.high:.1f} points,"
    on_par = -rule["on_par"] <= found.low and found.high <= rule["on_par"]
    within = f"{interval} is within {rule['on_par']:g} points of 0"
    if kind == "at-least" and on_par:
        return ON_PAR, within
    if found.low > 0:
        return SUPPORTED, f"{interval} is above 0"
    if found.high < 0:
        return CONTRADICTED, f"{interval} is below 0"
    if on_par:
        return ON_PAR, within
    return UNDECIDED, f"{interval} contains 0 and extends beyond {rule['on_par']:g} points"


def claims(stamp: dict, runs: Path, out: Path) -> list[Path]:
    """Write claims.json and claims.md to `out` and return their paths.

    claims.json: {"scale", "title", "statement" (what the scale's numbers mean), "seeds", "resamples", "bootstrap_seed",
    "rule", "claims": a list of {"id", "claim", "kind", "benchmark" (id or null), "metric" ("J&F", "G" or "alpha"),
    "rows", "source", "note", the fields of `Verdict`, "evidence" (what a verdict at this scale is about)}, "manifests":
    row -> manifests of its runs, "provenance": name -> value}.

    Args:
        stamp: stamp of the step.
        runs: folder of the scale's runs.
        out: folder to write to.

    Raises:
        HodorError: a result is missing or out of date.
    """
    settings, out = stamp["settings"], Path(out)
    found, bootstrap = collect(settings, Path(runs)), settings["bootstrap"]
    judged = [
        {key: claim[key] for key in ("id", "claim", "kind", "benchmark", "rows", "source", "note")}
        | {"metric": get_benchmark(claim["benchmark"]).metric if claim["benchmark"] else "alpha"}
        | judge(settings, claim, found).as_json()
        | {"evidence": " ".join([settings["evidence"], *(f"Trained on {text}." for text in claim["substitutes"])])}
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
    """Return the content of claims.json in a folder of results; None if it is absent."""
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
    """Return the verdict on one claim of the settings."""
    rows, benchmark = claim["rows"], claim["benchmark"]
    if missing := [row for row in rows if not settings["rows"][row]["selected"]]:
        return Verdict(NOT_RUN, f"not part of this run: {', '.join(missing)} (rows=)")
    runs = [[found[row, seed] for seed in settings["seeds_of"][row]] for row in rows]
    if claim["kind"] == "alphas-move":
        alphas = learned_alphas(runs[0])
        from hodor.attention import initial_alpha  # imports torch

        return judge_alphas(alphas, np.array(initial_alpha(alphas.shape[-1])), settings["rule"])
    if benchmark not in settings["benchmarks"]:
        return Verdict(NOT_RUN, settings["absent"].get(benchmark, "this scale has no such benchmark"))
    scores = [seed_scores(of, benchmark) for of in runs]
    if missing := [row for row, values in zip(rows, scores, strict=True) if not values]:
        return Verdict(NOT_RUN, f"no score on {benchmark_title(benchmark)} yet: {', '.join(missing)}")
    samples = [sample(of, benchmark) for of in runs]
    if None in samples:
        return judge_server_scores(*scores)
    try:
        compared = compare(*samples, Bootstrap(**settings["bootstrap"]))
    except HodorError as error:
        raise HodorError(f"{benchmark}, {' and '.join(rows)}: {error}") from None
    return judge_rows(claim["kind"], compared, settings["rule"])


def learned_alphas(runs: Sequence[Run]) -> np.ndarray:
    """Read the alphas of a row's runs from their weights, float (R, layers, heads); HodorError if there are none."""
    alphas = []
    for path in (run.folder / "model.safetensors" for run in runs):
        try:
            with safe_open(path, framework="numpy") as file:
                found = {int(match[1]): file.get_tensor(name) for name in file.keys() if (match := _ALPHA.match(name))}
        except (OSError, SafetensorError) as error:
            raise HodorError(f"{path}: broken model file ({error}); delete it and train its row again") from None
        if not found:
            raise HodorError(f"{path}: no alphas, its attention is not soft; correct the rows of config/claims.yaml")
        alphas.append([found[layer] for layer in sorted(found)])
    return np.array(alphas, float)


def effect_text(claim: Mapping) -> tuple[str, str]:
    """Return effect and interval of a claim of claims.json as text."""
    digits = 3 if claim.get("metric") == "alpha" else 1
    effect, interval = claim.get("effect"), claim.get("interval")
    ends = [f"{end:+.{digits}f}" for end in interval or ()]
    return MISSING if effect is None else f"{effect:+.{digits}f}", f"[{', '.join(ends)}]" if ends else MISSING


def where(claim: Mapping) -> str:
    """Return the benchmark and metric of a claim; "weights" without a benchmark."""
    return f"{benchmark_title(claim['benchmark'])}, {claim.get('metric')}" if claim.get("benchmark") else "weights"


def _page(content: dict) -> str:
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
