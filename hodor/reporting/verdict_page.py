"""The verdicts on the paper's claims, as the start page shows them: results/<scale>/claims.json."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hodor.errors import HodorError
from hodor.provenance import read_json
from hodor.reporting.readable import benchmark_title

FILE = "claims.json"
# Verdict -> a sign that needs no colour, and what it means.
VERDICTS = {
    "supported": ("\N{CHECK MARK}", "the interval of the effect lies on the claim's side"),
    "contradicted": ("\N{MULTIPLICATION X}", "the interval of the effect lies on the other side"),
    "on par": ("\N{ALMOST EQUAL TO}", "the interval lies within the margin that counts as equal"),
    "undecided": ("?", "these runs do not tell, for the reason given"),
    "not run": ("\N{EN DASH}", "this scale's run lacks a row or a benchmark that the claim is about"),
}


def read_claims(results: Path) -> dict | None:
    """The content of claims.json; None where there is none.

    Raises:
        HodorError: a file that is no JSON object with a list of claims, each with a known verdict.
    """
    path = Path(results) / FILE
    if not path.is_file():
        return None
    content = read_json(path)
    claims = content.get("claims")
    if not isinstance(claims, list) or not all(isinstance(c, dict) and c.get("verdict") in VERDICTS for c in claims):
        raise HodorError(
            f"{path}: no list of claims with the verdicts {', '.join(VERDICTS)}; delete it and run the workflow again"
        )
    return content


def verdicts_html(content: Mapping | None, scale: str) -> str:
    """The claims one below the other, each with its verdict, effect, interval and reason."""
    if content is None:
        return (
            f"<p>The claims of the paper were not judged: <code>results/{escape(scale)}/{FILE}</code> is not there. "
            "Nothing on this page says that a claim holds or fails.</p>"
        )
    seeds = ", ".join(str(seed) for seed in content.get("seeds", []))
    drawn = f"{content['resamples']:,} bootstrap resamples" if content.get("resamples") else ""
    facts = "; ".join(filter(None, [f"seeds {seeds}" if seeds else "", drawn]))
    # What every verdict of a scale is about is said once, not in each.
    evidence = list(dict.fromkeys(claim.get("evidence", "") for claim in content["claims"]))
    statement = content.get("statement", "")
    if len(evidence) == 1 and evidence[0] not in statement:
        statement = f"{statement} {evidence[0]}".strip()
    parts = [f'<p class="note">{escape(statement)}{f" ({escape(facts)})" if facts else ""}</p>']
    parts.append('<ol class="claims">')
    groups: dict[tuple, list[Mapping]] = {}
    for claim in content["claims"]:
        groups.setdefault((claim.get("claim", ""), *claim.get("rows", [])), []).append(claim)
    parts += [_card(claims, with_evidence=len(evidence) > 1) for claims in groups.values()]
    parts.append("</ol>")
    meanings = "; ".join(f"{sign} {name}: {meaning}" for name, (sign, meaning) in VERDICTS.items())
    parts.append(f'<p class="note">{escape(meanings)}.</p>')
    return "\n".join(parts)


def _card(claims: Sequence[Mapping], *, with_evidence: bool) -> str:
    """One claim: its sentence, its rows, and a verdict for each benchmark; those not run share a line for each reason."""
    ran = [claim for claim in claims if claim["verdict"] != "not run"]
    absent: dict[str, list[str]] = {}
    for claim in claims:
        if claim["verdict"] == "not run":
            absent.setdefault(claim.get("reason", ""), []).append(_where(claim))
    lines = [f'<p class="claim">{escape(claims[0].get("claim", ""))}</p>']
    if rows := claims[0].get("rows"):
        lines.append(f'<p class="note">rows: {escape(", ".join(rows))}</p>')
    lines += [_verdict(claim, with_evidence) for claim in ran]
    for reason, places in absent.items():
        places = ", ".join(filter(None, places))
        told = escape("".join([f" on {places}" if places else "", f": {reason}" if reason else ""]))
        lines.append(f'<p><span class="verdict">{VERDICTS["not run"][0]} not run</span>{told}</p>')
    verdicts = {claim["verdict"] for claim in ran}
    # The colour of a card is that of its verdict where it has one, and that of undecided where they differ.
    name = "not run" if not verdicts else verdicts.pop() if len(verdicts) == 1 else "undecided"
    return f'<li class="{name.replace(" ", "-")}">' + "".join(lines) + "</li>"


def _verdict(claim: Mapping, with_evidence: bool) -> str:
    """The verdict on one benchmark with its numbers, and below it why."""
    verdict, numbers = claim["verdict"], []
    # Alphas move by fractions of 1, and their interval is no bootstrap's (`hodor.reporting.verdicts.of_alphas`).
    alphas = claim.get("metric") == "alpha"
    unit, digits, interval = (
        ("", 3, "less and plus the spread over seeds") if alphas else (" points", 1, "95 % interval")
    )
    if claim.get("effect") is not None:
        numbers.append(f"effect {_signed(claim['effect'], digits)}{unit}")
    if claim.get("interval"):
        low, high = (_signed(side, digits) for side in claim["interval"])
        numbers.append(f"{interval} {low} to {high}")
    if claim.get("probability") is not None:
        numbers.append(f"better in {100 * claim['probability']:.0f} % of the resamples")
    for unit in ("sequences", "seeds"):
        if count := claim.get(unit):
            numbers.append(f"{count} {unit if count > 1 else unit[:-1]}")
    where = _where(claim)
    told = "".join([f" on {where}" if where else "", f": {'; '.join(numbers)}" if numbers else ""])
    lines = [f'<p><span class="verdict">{VERDICTS[verdict][0]} {escape(verdict)}</span>{escape(told)}</p>']
    for text in (
        claim.get("reason"),
        f"evidence: {claim['evidence']}" if with_evidence and claim.get("evidence") else "",
    ):
        if text:
            lines.append(f'<p class="note">{escape(text)}</p>')
    return "".join(lines)


def _where(claim: Mapping) -> str:
    """The benchmark of a claim and its metric; empty where it is about none."""
    benchmark = claim.get("benchmark")
    return f"{benchmark_title(benchmark)} ({claim.get('metric', '')})" if benchmark else ""


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
