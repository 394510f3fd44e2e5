"""Table 2: benchmarks side by side, the paper's numbers and their notes, and what is said of a row."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hodor.errors import HodorError
from hodor.reporting import comparison, readable, run_page
from hodor.reporting.readable import is_number
from hodor.reporting.runs import read_run
from hodor.reporting.tables import COST_COLUMNS, with_server_scores

VAL, TEST_DEV, YT18, YT19 = "davis2017-val", "davis2017-test-dev", "ytvos2018-val", "ytvos2019-val"
OUT = Path("results/tiny")
NOTE = "re-interpretation from the abstract; 67.9 not reproduced"


def make(project, **changed) -> dict[str, dict[str, str]]:
    """Lines of the comparison table by row."""
    project.tabulate(OUT, **changed)
    with open(OUT / "comparison_table.csv", newline="") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def published(project, *but: str) -> list[dict[str, str]]:
    """The published numbers of the project, those of some rows left out."""
    return [entry for entry in project.settings()["published"] if entry["row"] not in but]


def page() -> str:
    return (OUT / "comparison_table.md").read_text()


def test_a_line_for_each_row_with_all_four_benchmarks(project):
    project.add("hodor-soft-dense", "soft", tables=["comparison"], selected=False)
    lines = make(project)
    assert list(lines) == ["hodor-soft-coco", "dmn-aoa", "hodor-soft-dense"]
    soft = lines["hodor-soft-coco"]
    assert tuple(soft) == comparison.COLUMNS
    overall = read_run(project.run("hodor-soft-coco")).predictions[VAL].overall
    assert float(soft[f"{VAL}_J&F"]) == pytest.approx(100 * overall["J&F-Mean"], abs=5e-5)
    expected = {
        "label": "Hodor-Soft-Coco",
        "training_data": "COCO",
        "attention": "soft",
        "scale": "tiny",
        "seeds": "0",
        "n": "1",
        f"{VAL}_J&F_std": "",
        f"{TEST_DEV}_J&F_low": "",
        f"{VAL}_paper_J&F": "77.5",
        f"{VAL}_note": "",
        f"{TEST_DEV}_J&F": "not run",
        f"{TEST_DEV}_paper_J&F": "65.0",
        f"{YT18}_G": "not run",
        f"{YT18}_paper_G": "",
        f"{YT19}_G": "not run",
        "parameters": "123456",
        "manifest": "runs/tiny/hodor-soft-coco/seed0/manifest.json",
        "note": "",
    }
    assert {key: soft[key] for key in expected} == expected
    assert lines["dmn-aoa"][f"{VAL}_note"] == "no code released"
    unrun = lines["hodor-soft-dense"]
    assert (unrun[f"{VAL}_J&F"], unrun["n"], unrun["manifest"]) == ("not run", "0", "")


def test_a_cell_that_the_paper_leaves_empty_is_a_new_measurement(project):
    lines = make(project, published=published(project, "dmn-aoa"))
    assert lines["dmn-aoa"][f"{VAL}_note"] == "new measurement"
    # Neither what the paper has, nor what nobody has.
    assert lines["hodor-soft-coco"][f"{VAL}_note"] == ""
    assert lines["dmn-aoa"][f"{TEST_DEV}_note"] == ""
    score = float(lines["dmn-aoa"][f"{VAL}_J&F"])
    assert re.search(rf"\| {score:.1f} \[\d+\.\d, \d+\.\d\] \(new\) \|", page()) and page().count("(new) |") == 1


def test_what_is_said_of_a_row_stands_in_every_table_and_page(project):
    make(project)
    for name in ("comparison_table", "extended_table", "costs"):
        with open(OUT / f"{name}.csv", newline="") as file:
            notes = {line["row"]: line["note"] for line in csv.DictReader(file)}
        assert notes.pop("dmn-aoa") == NOTE and set(notes.values()) == {""}, name
    assert COST_COLUMNS[-1] == "note"
    for table in ("comparison", "extended"):
        rows = [line for line in (OUT / f"{table}_table.md").read_text().splitlines() if line.startswith("| Dmn-Aoa")]
        # Beside our number and beside the paper's.
        assert len(rows) == 2 and all(NOTE in row for row in rows)
    assert "| note |" not in (OUT / "ablation_table.md").read_text()


def test_below_the_scale_of_the_paper_its_numbers_stand_apart(project):
    make(project)
    ours, apart = page().split("## The paper's numbers: another experiment")
    assert "These numbers say nothing about the paper's numbers." in ours and "not to be compared" in apart
    for number in ("77.5", "65.0"):
        assert number not in ours and number in apart
    assert "| paper" not in ours
    assert "| Hodor-Soft-Coco | DAVIS-2017 test-dev | J&F | 65.0 | – |" in apart
    assert f"| Dmn-Aoa | DAVIS-2017 val | J&F | 67.9 | {NOTE}; no code released |" in apart


def test_at_the_scale_of_the_paper_they_stand_side_by_side_and_their_notes_below(empty_project):
    project = empty_project
    (project.folder / "data" / "tiny").rename(project.folder / "data" / "paper")
    project.scale = "paper"
    project.add("hodor-soft-coco", "soft", tables=["comparison"])
    project.add("dmn-aoa", method="dmn-aoa", tables=["comparison"], note=NOTE, selected=False)
    line = make(project)["hodor-soft-coco"]
    score = readable.score(*(line[f"{VAL}_J&F{end}"] for end in ("", "_std", "_low", "_high")))
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", score)
    assert "| DAVIS-2017 val J&F | paper's DAVIS-2017 val J&F |" in page()
    assert f"| Hodor-Soft-Coco | COCO | {score} | 77.5 | not run | 65.0 | not run | – | not run | – |" in page()
    assert (
        f"| Dmn-Aoa | static images | not run | 67.9 | not run | – | not run | – | not run | – | – | – | {NOTE} |"
        in (page())
    )
    assert "another experiment" not in page() and "say nothing" not in page()
    notes = page().partition("## Notes on the paper's numbers")[2]
    assert "no code released" in notes and "Hodor-Soft-Coco |" not in notes


def test_two_seeds_give_mean_and_standard_deviation(empty_project):
    empty_project.seeds = [0, 3]
    empty_project.add("hodor-soft-coco", "soft", tables=["comparison"], shift=1)
    line = make(empty_project)["hodor-soft-coco"]
    runs = [read_run(empty_project.run("hodor-soft-coco", seed)) for seed in (0, 3)]
    a, b = (100 * run.predictions[VAL].overall["J&F-Mean"] for run in runs)
    assert float(line[f"{VAL}_J&F"]) == pytest.approx((a + b) / 2, abs=5e-5)
    assert float(line[f"{VAL}_J&F_std"]) == pytest.approx(abs(a - b) / 2**0.5, abs=5e-5)
    low, high = float(line[f"{VAL}_J&F_low"]), float(line[f"{VAL}_J&F_high"])
    assert low < min(a, b) and max(a, b) < high
    assert f"| {(a + b) / 2:.1f} ± {abs(a - b) / 2**0.5:.1f} [{low:.1f}, {high:.1f}] |" in page()


def test_youtube_vos_is_measured_by_g(project):
    run = read_run(project.run("dmn-aoa"))
    prediction = replace(run.predictions[VAL], benchmark=YT19, overall={"J&F-Mean": 0.5, "G": 0.625})
    run = replace(run, predictions=run.predictions | {YT19: prediction})
    (entry,) = published(project, "hodor-soft-coco")
    entries = [entry | {"benchmark": YT19, "metric": "G", "value": "69.4", "note": "2019"}]
    cells = comparison.benchmark_cells(entries, "dmn-aoa", [run])
    assert (cells[f"{YT19}_G"], cells[f"{YT19}_paper_G"], cells[f"{YT19}_note"]) == ("62.5000", "69.4", "2019")
    assert (cells[f"{YT18}_G"], cells[f"{YT18}_note"]) == ("not run", "")
    run = replace(run, predictions={YT19: replace(prediction, overall={"J&F-Mean": 0.5})})
    with pytest.raises(HodorError, match=r"global\.csv: no column G"):
        comparison.benchmark_cells(entries, "dmn-aoa", [run])


def test_the_benchmarks_are_those_of_the_published_numbers(root):
    with open(root / "config" / "published.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["table"] == "comparison"]
    known = {
        (benchmark.id, benchmark.metric) for benchmark in comparison.BENCHMARKS if benchmark.id in comparison.POSTER
    }
    assert {(line["benchmark"], line["metric"]) for line in lines} == known
    cells = comparison.benchmark_cells(lines, "stcn", [])
    assert [cells[f"{VAL}_paper_J&F"], cells[f"{TEST_DEV}_paper_J&F"], cells[f"{YT19}_paper_G"]] == [
        "75.8",
        "51.7",
        "69.4",
    ]
    assert "presumably run by the HODOR authors" in cells[f"{TEST_DEV}_note"]


def test_headings_of_numbers_are_aligned_as_numbers():
    assert all(is_number(comparison.heading(benchmark)) for benchmark in comparison.BENCHMARKS)
    assert is_number("paper's YouTube-VOS 2018 val G") and not is_number("note") and not is_number("benchmark")


def secret_run(project, row="hodor-soft-coco"):
    """A run of a row whose masks were packed for a server on test-dev, and the zip's digest."""
    run = read_run(project.run(row))
    score = {"submission": {"sha256": "a" * 64}}
    prediction = replace(run.predictions[VAL], benchmark=TEST_DEV, overall={}, objects={}, score=score)
    return replace(run, predictions=run.predictions | {TEST_DEV: prediction})


def test_until_the_server_has_answered_the_cell_says_so(project):
    run = secret_run(project)
    cells = comparison.benchmark_cells(published(project), "hodor-soft-coco", [run])
    assert (cells[f"{TEST_DEV}_J&F"], cells[f"{TEST_DEV}_paper_J&F"]) == ("server: pending", "65.0")
    answer = {"scale": "tiny", "row": "hodor-soft-coco", "seed": 0, "benchmark": TEST_DEV, "submission": "a" * 64}
    answer |= {"date": "2027-01-31", "scores": {"J&F": 64.5}}
    key = ("hodor-soft-coco", 0, TEST_DEV)
    answered = with_server_scores(run, {key: answer})
    assert comparison.benchmark_cells(published(project), key[0], [answered])[f"{TEST_DEV}_J&F"] == "64.5000"
    # The page of the run has no numbers of its own to show for it.
    shown = run_page._scores(run)
    assert f'<h3 id="{TEST_DEV}">' in shown and f"sha256 {'a' * 64}" in shown and "<table>" in shown.split(VAL)[1]
    assert "<table>" not in shown.split(f'<h3 id="{TEST_DEV}">')[1].split("<h3")[0]
    # With one of two seeds answered there is no mean yet.
    assert comparison.benchmark_cells([], key[0], [answered, run])[f"{TEST_DEV}_J&F"] == "server: pending"
    with pytest.raises(HodorError, match="send that and type in its score, or remove the entry"):
        with_server_scores(run, {key: answer | {"submission": "b" * 64}})
    with pytest.raises(HodorError, match="the truth is here and was scored"):
        with_server_scores(run, {("hodor-soft-coco", 0, VAL): answer | {"benchmark": TEST_DEV}})


def test_a_holdout_that_a_row_was_trained_on(project):
    lines = make(project, benchmarks=[VAL, "ytvos-holdout"])
    assert lines["hodor-soft-coco"]["ytvos-holdout_G"] == "trained on it"
    assert "| YouTube-VOS hold-out G |" in page() and "| trained on it |" in page()
    make(project)
    assert "hold-out G |" not in page() and "DAVIS-2016" not in page()
