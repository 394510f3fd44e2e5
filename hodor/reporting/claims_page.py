"""claims.json as a Markdown page."""

from hodor.reporting.markdown import markdown_table
from hodor.reporting.readable import MISSING, Grid, benchmark_title
from hodor.reporting.verdicts import NOT_RUN

HEAD = ["claim", "on", "verdict", "effect", "interval", "P(first beats second)", "sequences", "n", "why"]


def claims_page(content: dict) -> str:
    """The page of the claims. content: that of claims.json (`hodor.reporting.claims.claims`)."""
    judged = [claim for claim in content["claims"] if claim["verdict"] != NOT_RUN]
    absent = [claim for claim in content["claims"] if claim["verdict"] == NOT_RUN]
    rule = content["rule"]
    parts = [
        f"# Claims of the poster: {content['title']}",
        f"**{content['statement']}**",
        "Effect: score of the first row minus that of the second, in points, on the same sequences, with its 95 % interval; "
        "of alphas, how far they moved from their start, less and plus the spread over seeds. n: seeds. "
        "A claim is *supported* where the interval lies above 0, "
        f"*contradicted* where it lies below, *on par* where it lies within {rule['on_par']:g} points of 0; otherwise, "
        f"with fewer than {rule['fewest_sequences']} sequences, or with a server's one number, it is *undecided*. "
        "docs/claims.md has the rule in full.",
        markdown_table(Grid(HEAD, [_cells(claim) for claim in judged])) if judged else "No claim was tested.",
    ]
    if absent:
        parts += ["## Not run", markdown_table(Grid(["claim", "on", "why"], _absent(absent)))]
    manifests = [f"- {row}: `{path}`" for row, paths in content["manifests"].items() for path in paths]
    parts += [
        "## Where the verdicts come from",
        "\n".join(f"- {what}: {value}" for what, value in content["provenance"].items()),
        "Each run's settings, data and cost:" if manifests else "",
        "\n".join(manifests),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(claim: dict) -> list[str]:
    effect, interval, probability = claim["effect"], claim["interval"], claim["probability"]
    rows, digits = " vs ".join(claim["rows"]), 3 if claim["metric"] == "alpha" else 1
    return [
        f"{claim['claim']} ({rows})",
        _where(claim),
        f"**{claim['verdict']}**",
        MISSING if effect is None else f"{effect:+.{digits}f}",
        MISSING if interval is None else f"[{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]",
        MISSING if probability is None else f"{probability:.2f}",
        str(claim["sequences"]) if claim["benchmark"] and claim["sequences"] else MISSING,
        str(claim["seeds"]),
        ". ".join(filter(None, [_sentence(claim["reason"]), claim["note"]])),
    ]


def _absent(claims: list[dict]) -> list[list[str]]:
    """A line for each claim and reason, with all benchmarks that they hold for."""
    found: dict[tuple[str, str], list[str]] = {}
    for claim in claims:
        found.setdefault((claim["claim"], claim["reason"]), []).append(_where(claim))
    return [[claim, "; ".join(places), reason] for (claim, reason), places in found.items()]


def _where(claim: dict) -> str:
    if claim["benchmark"] is None:
        return "weights"
    return f"{benchmark_title(claim['benchmark'])}, {claim['metric']}"


def _sentence(text: str) -> str:
    return (text[:1].upper() + text[1:]).rstrip(".")
