"""The verdict on a claim, by a rule that was fixed before any number was seen.

    two rows, the paired 95 % interval of their difference in points:
        above 0: supported    below 0: contradicted    within `on_par` points of 0: on par    else: undecided
        fewer than `fewest_sequences` sequences, or numbers of a server alone: undecided
    learned alphas, their distance from the start and the spread over seeds:
        distance above the spread: supported    else, or one seed: undecided

An interval above 0 and within half a point of it counts as above 0 for a claim that one row is better; for a claim that it
is on par or better, on par comes first, so that a difference too small to matter contradicts nothing.
"""

from dataclasses import asdict, dataclass

import numpy as np

from hodor.scoring.statistics import Comparison

SUPPORTED, CONTRADICTED, ON_PAR, UNDECIDED, NOT_RUN = "supported", "contradicted", "on par", "undecided", "not run"
# Verdict -> a sign that needs no colour, and its meaning.
VERDICTS = {
    SUPPORTED: ("\N{CHECK MARK}", "the interval of the effect is on the claim's side"),
    CONTRADICTED: ("\N{MULTIPLICATION X}", "the interval of the effect is on the other side"),
    ON_PAR: ("\N{ALMOST EQUAL TO}", "the interval is within the margin that counts as equal"),
    UNDECIDED: ("?", "these runs do not decide it, for the reason given"),
    NOT_RUN: ("\N{EN DASH}", "this scale's run lacks a row or a benchmark of the claim"),
}


@dataclass(frozen=True)
class Verdict:
    """A verdict and its evidence.

    Attributes:
        reason: A sentence.
        effect, interval: In points or, of alphas, in units of alpha; None without one.
        probability: That the first row beats the second.
        sequences, seeds: How many there are.
    """

    verdict: str
    reason: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    probability: float | None = None
    sequences: int = 0
    seeds: int = 0

    def as_json(self) -> dict:
        """Its fields, numbers with four decimals."""
        rounded = {
            name: None if (value := getattr(self, name)) is None else round(value, 4)
            for name in ("effect", "probability")
        }
        return asdict(self) | rounded | {"interval": self.interval and [round(end, 4) for end in self.interval]}


def not_run(reason: str) -> Verdict:
    """A verdict without numbers."""
    return Verdict(NOT_RUN, reason)


def of_rows(kind: str, found: Comparison, rule: dict, without: str | None = None) -> Verdict:
    """The verdict on two rows that were compared on the same sequences.

    Args:
        kind: "better" or "at-least".
        found: In points.
        rule: {"on_par": points, "fewest_sequences"}.
        without: Why these rows decide nothing, if so.
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

    The effect is the root mean square over all alphas of the distance between their mean over seeds and their start; the
    spread that of their sample standard deviation over seeds; the interval is effect ± spread.

    Args:
        values: (R, layers, heads), of R seeds.
        starts: (heads,).
    """
    moved = values.mean(0) - starts  # (layers, heads)
    effect, seeds = float(np.sqrt(np.mean(moved**2))), len(values)
    if seeds < 2:
        return Verdict(UNDECIDED, without or "one seed (n = 1) has no spread over seeds", effect, seeds=seeds)
    deviations = values.std(0, ddof=1)
    spread = float(np.sqrt(np.mean(deviations**2)))
    more = int(np.sum(np.abs(moved) > deviations))
    reason = (
        f"moved by {effect:.3g}, spread over seeds {spread:.3g}; {more} of {moved.size} alphas by more than their own"
    )
    name = SUPPORTED if effect > spread and not without else UNDECIDED
    return Verdict(name, without or reason, effect, (effect - spread, effect + spread), seeds=seeds)


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
