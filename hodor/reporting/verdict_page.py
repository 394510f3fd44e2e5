"""The verdicts on the paper's claims, as the start page shows them: results/<scale>/claims.json."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from hodor.errors import HodorError
from hodor.provenance import read_json

FILE = "claims.json"
# Verdict -> a sign that needs no colour, and what it means.
VERDICTS = {
    "supported": ("\N{CHECK MARK}", "the interval of the effect lies on the claim's side"),
    "contradicted": ("\N{MULTIPLICATION X}", "the interval of the effect lies on the other side"),
    "on par": ("\N{ALMOST EQUAL TO}", "the interval lies within the margin that counts as equal"),
    "undecided": ("?", "the interval holds both sides: these runs do not tell"),
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
    parts = [f'<p class="note">{escape(content.get("statement", ""))}{f" ({escape(facts)})" if facts else ""}</p>']
    parts.append('<ol class="claims">')
    parts += [_claim(claim) for claim in content["claims"]]
    parts.append("</ol>")
    meanings = "; ".join(f"{sign} {name}: {meaning}" for name, (sign, meaning) in VERDICTS.items())
    parts.append(f'<p class="note">{escape(meanings)}.</p>')
    return "\n".join(parts)


def _claim(claim: Mapping) -> str:
    verdict = claim["verdict"]
    numbers = []
    if claim.get("effect") is not None:
        numbers.append(f"effect {_signed(claim['effect'])} points")
    if claim.get("interval"):
        numbers.append("95 % interval {} to {}".format(*(_signed(side) for side in claim["interval"])))
    if claim.get("probability") is not None:
        numbers.append(f"better in {100 * claim['probability']:.0f} % of the resamples")
    numbers += [f"{claim[unit]} {unit}" for unit in ("sequences", "seeds") if claim.get(unit)]
    rows = ", ".join(claim.get("rows", []))
    lines = [
        f'<p class="verdict">{VERDICTS[verdict][0]} {escape(verdict)}</p>',
        f'<p class="claim">{escape(claim.get("claim", ""))}</p>',
        f"<p>{escape('; '.join(numbers))}</p>" if numbers else "",
        f'<p class="note">{escape(claim["reason"])}</p>' if claim.get("reason") else "",
        f'<p class="note">rows: {escape(rows)}</p>' if rows else "",
        f'<p class="note">evidence: {escape(claim["evidence"])}</p>' if claim.get("evidence") else "",
    ]
    return f'<li class="{verdict.replace(" ", "-")}">' + "".join(lines) + "</li>"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
