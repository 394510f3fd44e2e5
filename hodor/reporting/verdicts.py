"""The verdict on a claim, by a rule that was fixed before any number was seen.

    two rows, the paired 95 % interval of their difference in points:
        above 0: supported    below 0: contradicted    within `on_par` points of 0: on par    else: undecided
        fewer than `fewest_sequences` sequences, or numbers of a server alone: undecided
    learned alphas, how far they moved and how far seeds lie apart:
        moved by more than the spread: supported    else, or one seed: undecided

An interval that lies above 0 and within half a point counts as above 0 for a claim that one row is better; for a claim
that it is on par or better, on par is looked at first, so that a difference too small to matter contradicts nothing.
"""

from dataclasses import asdict, dataclass

import numpy as np

from hodor.scoring.statistics import Comparison

SUPPORTED, CONTRADICTED, ON_PAR, UNDECIDED, NOT_RUN = "supported", "contradicted", "on par", "undecided", "not run"
# Verdict -> a sign that needs no colour, and its meaning.
VERDICTS = {
    SUPPORTED: ("\N{CHECK MARK}", "the interval of the effect lies on the claim's side"),
    CONTRADICTED: ("\N{MULTIPLICATION X}", "the interval of the effect lies on the other side"),
    ON_PAR: ("\N{ALMOST EQUAL TO}", "the interval lies within the margin that counts as equal"),
    UNDECIDED: ("?", "these runs do not decide it, for the reason given"),
    NOT_RUN: ("\N{EN DASH}", "this scale's run lacks a row or a benchmark that the claim is about"),
}


@dataclass(frozen=True)
class Verdict:
    """A verdict and what it rests on.

    effect, interval: in points, or, of alphas, in units of alpha; None where there is none. probability: that the first
    row beats the second. sequences, seeds: how many stand behind it. reason: a sentence.
    """

    verdict: str
    reason: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    probability: float | None = None
    sequences: int = 0
    seeds: int = 0

    def as_json(self) -> dict:
        """Its fields, numbers rounded to what a reader can use."""
        fields = asdict(self)
        fields["effect"] = None if self.effect is None else round(self.effect, 4)
        fields["interval"] = None if self.interval is None else [round(end, 4) for end in self.interval]
        fields["probability"] = None if self.probability is None else round(self.probability, 4)
        return fields


def not_run(reason: str) -> Verdict:
    """No numbers."""
    return Verdict(NOT_RUN, reason)


def of_rows(kind: str, found: Comparison, rule: dict, without: str | None = None) -> Verdict:
    """The verdict on two rows that were compared on the same sequences.

    Args:
        kind: "better" or "at-least".
        found: in points.
        rule: {"on_par": points, "fewest_sequences"}.
        without: why these rows decide nothing, if so.
    """
    name, reason = _decide(kind, found, rule)
    if without:
        name, reason = UNDECIDED, without
    elif found.sequences < rule["fewest_sequences"]:
        name, reason = UNDECIDED, f"{found.sequences} sequences are fewer than {rule['fewest_sequences']}"
    if found.seeds == 1:
        reason += "; of one seed (n = 1), so that the spread between trainings is in no interval"
    return Verdict(name, reason, found.effect, (found.low, found.high), found.probability, found.sequences, found.seeds)


def of_numbers(first: list[float], second: list[float], without: str | None = None) -> Verdict:
    """The verdict on scores in points, one for each seed, that a server gave without those of the sequences."""
    effect, seeds = float(np.mean(first) - np.mean(second)), min(len(first), len(second))
    reason = without or "a server gave a number for the whole benchmark, and none of its sequences"
    return Verdict(UNDECIDED, reason, effect, seeds=seeds)


def of_alphas(values: np.ndarray, starts: np.ndarray, without: str | None = None) -> Verdict:
    """The verdict on learned alphas.

    The effect is the root mean square over all alphas of how far their mean over seeds lies from their start; the spread
    that of their sample standard deviation over seeds; the interval is the effect with the spread on either side.

    Args:
        values: (R, layers, heads), of R seeds.
        starts: (heads,).
    """
    moved = values.mean(0) - starts  # (layers, heads)
    effect = float(np.sqrt(np.mean(moved**2)))
    if len(values) < 2:
        return Verdict(UNDECIDED, without or "one seed (n = 1) has no spread over seeds", effect, seeds=len(values))
    deviations = values.std(0, ddof=1)
    spread = float(np.sqrt(np.mean(deviations**2)))
    more = int(np.sum(np.abs(moved) > deviations))
    reason = (
        f"moved by {effect:.3g}, spread over seeds {spread:.3g}; {more} of {moved.size} alphas by more than their own"
    )
    name = SUPPORTED if effect > spread else UNDECIDED
    return Verdict(
        UNDECIDED if without else name, without or reason, effect, (effect - spread, effect + spread), seeds=len(values)
    )


def _decide(kind: str, found: Comparison, rule: dict) -> tuple[str, str]:
    interval = f"the 95 % interval of the difference, {found.low:.1f} to {found.high:.1f} points,"
    on_par = -rule["on_par"] <= found.low and found.high <= rule["on_par"]
    within = f"{interval} lies within {rule['on_par']:g} points of 0"
    if kind == "at-least" and on_par:
        return ON_PAR, within
    if found.low > 0:
        return SUPPORTED, f"{interval} lies above 0"
    if found.high < 0:
        return CONTRADICTED, f"{interval} lies below 0"
    if on_par:
        return ON_PAR, within
    return UNDECIDED, f"{interval} holds 0 and reaches beyond {rule['on_par']:g} points"
