"""Verdicts from the scores of several machines are those of the runs themselves."""

import sys

import pandas as pd
import pytest

from hodor.reporting.runs import read_run, sample
from hodor.scoring.statistics import Bootstrap, compare
from tests.benchmarks.conftest import cells
from tests.reporting.conftest import VAL, empty_project  # noqa: F401

ROWS = ("hodor-soft-coco", "hodor-none-coco")


@pytest.fixture
def scores(study, empty_project, tmp_path):  # noqa: F811
    """Return the collected scores of two rows with three seeds, and the comparison of their runs."""
    empty_project.seeds = [0, 1, 2]
    empty_project.add(ROWS[0], "soft", shift=2)
    empty_project.add(ROWS[1], "none", shift=3)
    (tmp_path / "results").mkdir()
    of = [sample([read_run(empty_project.run(row, seed)) for seed in empty_project.seeds], VAL) for row in ROWS]
    return study.collect(empty_project.runs, "tiny"), compare(*of, Bootstrap())


def test_two_machines_give_the_verdicts_of_their_runs(scores, benchmark, tmp_path):
    collected, expected = scores
    assert len(collected) == 2 * 3 * 4 and set(collected["commit"]) == {"abc123"}
    assert set(collected["substitutes"]) == {""}
    for name, seeds, data in (("one", {0, 2}, ""), ("two", {1}, "old films instead of YouTube-VOS")):
        kept = collected[collected["seed"].isin(seeds)].assign(machine=name, substitutes=data)
        kept.to_csv(tmp_path / f"results/tiny_objects_{name}.csv", index=False)
    page = benchmark("pooled_claims.py", f"--scale tiny --compare {' '.join(ROWS)}")
    ((claim, rows, on, verdict, effect, interval, seeds, sequences, why),) = [
        line for line in cells(page) if " vs " in line[1]
    ]
    assert (rows, on) == (" vs ".join(ROWS), VAL) and verdict == "undecided" and "3 sequences are fewer" in why
    assert why.endswith("; trained on old films instead of YouTube-VOS")
    assert (seeds, sequences) == ("3", "3") and effect == f"{expected.effect:+.1f}"
    assert interval == f"[{expected.low:+.1f}, {expected.high:+.1f}]"
    ((_, *further),) = [line for line in cells(page) if line[0] == rows]  # as if no claim were about them
    assert further == [VAL, effect, interval, "0, 1, 2"]
    assert "not about real videos" in page  # what tiny's numbers are about
    assert "seeds 0, 2 on one" in page and "seeds 1 on two" in page


def test_a_run_in_two_files_and_rows_without_a_common_seed_are_errors(scores, benchmark, tmp_path):
    scores[0].to_csv(tmp_path / "results/tiny_objects_one.csv", index=False)
    with pytest.raises(AssertionError, match="--compare stm hodor-none-coco: no seed of both rows"):
        benchmark("pooled_claims.py", "--scale tiny --compare stm hodor-none-coco")
    scores[0].to_csv(tmp_path / "results/tiny_objects_two.csv", index=False)
    with pytest.raises(AssertionError, match="hodor-none-coco, seed 0, davis2017-val: in several files"):
        benchmark("pooled_claims.py", "--scale tiny")


def test_scores_are_kept_beside_those_of_earlier_runs(scores, study, monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["", "--collect", "--scale", "tiny", "--runs", "runs/tiny", "--out", str(tmp_path / "results")]
    )
    path = tmp_path / f"results/tiny_objects_{study.machine_slug()}.csv"
    earlier = scores[0].assign(seed=scores[0]["seed"] + 2)  # seed 2 twice
    earlier.to_csv(path, index=False)
    study.main()
    assert sorted(pd.read_csv(path)["seed"].unique()) == [0, 1, 2, 3, 4]
    assert len(pd.read_csv(path)) == 2 * 5 * 4
