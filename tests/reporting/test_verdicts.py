"""The rule of a verdict, case by case."""

import numpy as np
import pytest

from hodor.reporting.verdicts import CONTRADICTED, ON_PAR, SUPPORTED, UNDECIDED, of_alphas, of_numbers, of_rows
from hodor.scoring.statistics import Comparison

RULE = {"on_par": 0.5, "fewest_sequences": 10}
STARTS = np.array([32.0, 16, 8, 4])


def found(low: float, high: float, sequences: int = 30, seeds: int = 3) -> Comparison:
    return Comparison((low + high) / 2, low, high, 0.9, seeds, sequences)


@pytest.mark.parametrize(
    ("low", "high", "better", "at_least"),
    [
        (0.2, 3.0, SUPPORTED, SUPPORTED),
        (-3.0, -0.2, CONTRADICTED, CONTRADICTED),
        (-1.0, 2.0, UNDECIDED, UNDECIDED),
        (-0.3, 0.6, UNDECIDED, UNDECIDED),
        (-0.5, 0.5, ON_PAR, ON_PAR),
        # Too small to matter: above and below 0 all the same, unless on par is what is claimed.
        (0.1, 0.4, SUPPORTED, ON_PAR),
        (-0.4, -0.1, CONTRADICTED, ON_PAR),
        # The ends themselves: 0 is not above 0.
        (0.0, 3.0, UNDECIDED, UNDECIDED),
        (-3.0, 0.0, UNDECIDED, UNDECIDED),
    ],
)
def test_two_rows(low, high, better, at_least):
    assert (of_rows("better", found(low, high), RULE).verdict, of_rows("at-least", found(low, high), RULE).verdict) == (
        better,
        at_least,
    )


def test_few_sequences_decide_nothing_and_show_their_numbers():
    verdict = of_rows("better", found(2, 4, sequences=9), RULE)
    assert (verdict.verdict, verdict.effect, verdict.interval) == (UNDECIDED, 3.0, (2, 4))
    assert "9 sequences are fewer than 10" in verdict.reason
    assert of_rows("better", found(2, 4, sequences=10), RULE).verdict == SUPPORTED


def test_a_verdict_of_one_seed_says_so():
    assert "n = 1" in of_rows("better", found(2, 4, seeds=1), RULE).reason
    assert "n = 1" not in of_rows("better", found(2, 4, seeds=2), RULE).reason


def test_rows_that_decide_nothing_at_this_scale():
    for verdict in (
        of_rows("better", found(2, 4), RULE, "trained on other data"),
        of_numbers([60.0], [50.0], "trained on other data"),
        of_alphas(np.array([STARTS + 1, STARTS + 1])[:, None], STARTS, "trained on other data"),
    ):
        assert verdict.verdict == UNDECIDED and verdict.reason.startswith("trained on other data")
        assert verdict.effect > 0


def test_a_servers_number_has_an_effect_and_no_interval():
    verdict = of_numbers([60.0, 62.0], [50.0, 51.0])
    assert (verdict.verdict, verdict.effect, verdict.interval) == (UNDECIDED, 10.5, None)
    assert (verdict.sequences, verdict.seeds, verdict.probability) == (0, 2, None)
    assert "server" in verdict.reason


def alphas(*shifts: float) -> np.ndarray:
    """(R, 2, 4): every alpha moved by as much."""
    return np.stack([np.tile(STARTS, (2, 1)) + shift for shift in shifts])


def test_alphas_that_moved_by_more_than_the_spread_over_seeds():
    verdict = of_alphas(alphas(0.9, 1.0, 1.1), STARTS)
    assert verdict.verdict == SUPPORTED and verdict.seeds == 3
    assert verdict.effect == pytest.approx(1.0) and verdict.interval == pytest.approx((0.9, 1.1))
    assert "8 of 8 alphas" in verdict.reason
    # Downwards too: it is a distance.
    assert of_alphas(alphas(-0.9, -1.0, -1.1), STARTS).verdict == SUPPORTED


def test_alphas_that_moved_by_less():
    verdict = of_alphas(alphas(-1.0, 1.2), STARTS)
    assert verdict.verdict == UNDECIDED and verdict.effect == pytest.approx(0.1)
    assert verdict.interval[0] < 0 and "0 of 8 alphas" in verdict.reason


def test_alphas_of_one_seed_have_no_spread():
    verdict = of_alphas(alphas(5.0), STARTS)
    assert (verdict.verdict, verdict.interval, verdict.seeds) == (UNDECIDED, None, 1) and "n = 1" in verdict.reason
    assert verdict.effect == pytest.approx(5.0)


def test_numbers_in_json_are_plain():
    fields = of_rows("better", found(0.12345678, 3), RULE).as_json()
    assert fields["interval"] == [0.1235, 3] and fields["probability"] == 0.9
    assert set(fields) == {"verdict", "reason", "effect", "interval", "probability", "sequences", "seeds"}
