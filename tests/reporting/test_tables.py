"""The tables: their numbers, what accompanies them, and the refusal of results from elsewhere."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from hodor.errors import HodorError
from hodor.reporting.formats import footnote, latex_text, view
from hodor.reporting.html import overview
from hodor.reporting.runs import provenance, read_run, sample, seed_scores
from hodor.reporting.selection import Report
from hodor.reporting.tables import (
    COLUMNS,
    RELEASED_COLUMNS,
    TABLES,
    comparison_cells,
    comparison_columns,
    interval_cells,
    make_lines,
    with_server_scores,
)
from hodor.scoring.statistics import Bootstrap, estimate
from tests.refused import refused
from tests.reporting.conftest import NOTE, OUT, make, make_one, markdown, tables

VAL, TEST_DEV, YT18, YT19 = "davis2017-val", "davis2017-test-dev", "ytvos2018-val", "ytvos2019-val"
DAVIS16 = "davis2016-val"
FEW = Bootstrap(1000, 0)


def expect(line: dict, **expected) -> None:
    assert {key: line[key] for key in expected} == expected


def test_the_ablation_table(tabulated):
    project, lines = tabulated, tables()["ablation_table"]
    assert list(lines[0]) == list(COLUMNS)
    rows = {line["row"]: line for line in lines}
    assert list(rows) == ["hodor-none-coco", "hodor-soft-coco", "hodor-hard-coco", "hodor-soft-cyclic"]
    overall, soft = read_run(project.run("hodor-soft-coco")).predictions[VAL].overall, rows["hodor-soft-coco"]
    for column in ("J&F", "J", "F"):
        assert float(soft[column]) == pytest.approx(100 * overall[f"{column}-Mean"], abs=5e-5)
    assert float(soft["J&F"]) > float(rows["hodor-none-coco"]["J&F"])
    expected = estimate(sample([read_run(project.run("hodor-soft-coco"))], VAL), FEW)
    assert (soft["J&F_low"], soft["J&F_high"]) == (f"{expected.low:.4f}", f"{expected.high:.4f}")
    expect(soft, training_data="COCO", attention="soft", scale="tiny", benchmark=VAL, seeds="0", n="1", note="")
    expect(soft, **{"J&F_std": "", "paper_J&F": "77.5", "parameters": "123456"})
    assert json.loads(Path(soft["manifest"]).read_text())["row"] == "hodor-soft-coco"
    # A row that was not run.
    hard = rows["hodor-hard-coco"]
    expect(hard, **{"J&F": "not run", "n": "0", "attention": "hard"})
    empty = ("seeds", "J", "F", "J&F_std", "J&F_low", "J&F_high", "parameters", "manifest")
    assert {hard[key] for key in empty} == {""}
    assert ["Hodor-Hard-Coco", "COCO", "hard", "not run", "–"] == markdown("ablation")[3][:5]
    for name in TABLES.values():
        text = (OUT / f"{name}.md").read_text()
        assert "n = 1" in text and "1,000 resamples, generator seed 0" in text


def test_the_ablation_table_shows_both_benchmarks_of_its_claims_and_no_other(tabulated):
    made = make(tabulated, benchmarks=[DAVIS16, YT19, VAL], bootstrap={"resamples": 1, "seed": 0})
    assert [line["benchmark"] for line in made["ablation_table"]] == 4 * [VAL] + 4 * [DAVIS16]
    assert {line["benchmark"] for line in made["extended_table"]} == {DAVIS16, YT19, VAL}
    # The settings of the bootstrap reach every interval: that of one resample has no width.
    for table, key in (("ablation", "J&F"), ("comparison", f"{VAL}_J&F")):
        ends = [(line[f"{key}_low"], line[f"{key}_high"]) for line in made[f"{table}_table"]]
        assert any(low for low, _ in ends) and all(low == high for low, high in ends)
    # On the start page a row is one line; the paper has numbers on one of the two.
    page = overview(Report(OUT, tabulated.runs, tabulated.data), "ablation", at_paper=False)
    assert page.count('<th scope="row">') == 4 and page.count(">ours<") == 2 and page.count(">paper&#39;s, ") == 1
    soft = page.partition("Hodor-Soft-Coco")[2].partition("</tr>")[0]
    assert re.search(rf"#{VAL}.*>77\.5<.*>trained on it</td>$", soft), soft


def test_a_closed_server_does_not_widen_the_start_page(tabulated):
    path = OUT / "comparison_table.csv"
    path.write_text(path.read_text().replace("not run", "server closed since 2026-01-20"))
    page = overview(Report(OUT, tabulated.runs, tabulated.data), "comparison", at_paper=True)
    assert ">server closed</td>" in page and "since" not in page


def test_the_extended_table_and_the_costs(tabulated):
    dmn, copy = tables()["extended_table"]
    expect(dmn, row="dmn-aoa", attention="", parameters="123456")
    expect(copy, row="copy-first-mask", attention="", parameters="0")
    rows = ["hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic", "dmn-aoa", "copy-first-mask"]
    costs = tables()["costs"]
    assert [line["row"] for line in costs] == rows
    machine = "Abacus 9, 2 cores, 2 GiB, no GPU"
    assert list(costs[0].values()) == [*("hodor-none-coco", "0", VAL, "12.5", "300.25", "8.0", "200", machine, "")]


def test_a_line_of_the_comparison_has_all_benchmarks(project):
    project.add("hodor-soft-dense", "soft", tables=["comparison"], selected=False)
    lines = {line["row"]: line for line in make(project)["comparison_table"]}
    assert list(lines) == ["hodor-soft-coco", "dmn-aoa", "hodor-soft-dense"]
    soft = lines["hodor-soft-coco"]
    assert list(soft) == comparison_columns([])
    overall = read_run(project.run("hodor-soft-coco")).predictions[VAL].overall
    assert float(soft[f"{VAL}_J&F"]) == pytest.approx(100 * overall["J&F-Mean"], abs=5e-5)
    expect(soft, label="Hodor-Soft-Coco", training_data="COCO", attention="soft", scale="tiny", seeds="0", n="1")
    expect(soft, parameters="123456", manifest="runs/tiny/hodor-soft-coco/seed0/manifest.json", note="")
    expect(soft, **{f"{VAL}_J&F_std": "", f"{VAL}_paper_J&F": "77.5", f"{VAL}_note": "", f"{TEST_DEV}_J&F_low": ""})
    expect(soft, **{f"{TEST_DEV}_J&F": "not run", f"{TEST_DEV}_paper_J&F": "65.0", f"{YT18}_paper_G": ""})
    expect(soft, **{f"{YT18}_G": "not run", f"{YT19}_G": "not run"})
    assert lines["dmn-aoa"][f"{VAL}_note"] == "no code released"
    expect(lines["hodor-soft-dense"], **{f"{VAL}_J&F": "not run", "n": "0", "manifest": ""})
    # A cell that the paper leaves empty and we fill, but neither where it has a number nor where nobody has.
    published = [entry for entry in project.settings()["published"] if entry["row"] != "dmn-aoa"]
    lines = {line["row"]: line for line in make(project, published=published)["comparison_table"]}
    assert lines["dmn-aoa"][f"{VAL}_note"] == "new measurement"
    assert lines["hodor-soft-coco"][f"{VAL}_note"] == lines["dmn-aoa"][f"{TEST_DEV}_note"] == ""
    (new,) = [cell for row in markdown("comparison") for cell in row if "(new)" in cell]
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\] \(new\)", new)


@pytest.mark.parametrize("table", ["ablation", "comparison"])
def test_two_seeds_give_mean_and_standard_deviation(empty_project, table):
    empty_project.seeds = [0, 3]
    empty_project.add("hodor-soft-coco", "soft", tables=[table], shift=1)
    (line,) = make(empty_project)[f"{table}_table"]
    runs = [read_run(empty_project.run("hodor-soft-coco", seed)) for seed in (0, 3)]
    a, b = (100 * run.predictions[VAL].overall["J&F-Mean"] for run in runs)
    key = "J&F" if table == "ablation" else f"{VAL}_J&F"
    low, high = float(line[f"{key}_low"]), float(line[f"{key}_high"])
    assert abs(a - b) > 1 and low < min(a, b) and max(a, b) < high  # sequences vary too
    assert float(line[key]) == pytest.approx((a + b) / 2, abs=5e-5)
    assert float(line[f"{key}_std"]) == pytest.approx(abs(a - b) / 2**0.5, abs=5e-5)
    assert (line["seeds"], line["n"], len(line["manifest"].split())) == ("0 3", "2", 2)
    assert f"{(a + b) / 2:.1f} ± {abs(a - b) / 2**0.5:.1f} [{low:.1f}, {high:.1f}]" in markdown(table)[1]
    text = (OUT / f"{table}_table.md").read_text()
    assert "standard deviation over seeds" in text and "n = 1" not in text


def test_youtube_vos_is_measured_by_g_over_categories(project):
    run = read_run(project.run("dmn-aoa"))
    objects = run.predictions[VAL].objects
    objects = objects.assign(category=["unseen" if name == "walk_1" else "seen" for name in objects.index])
    prediction = replace(run.predictions[VAL], objects=objects, overall={"J&F-Mean": 0.5, "G": 0.625})
    run = replace(run, predictions={VAL: prediction, YT19: replace(prediction, benchmark=YT19)})
    values = prediction.object_scores()
    seen = fmean(value for name, value in values.items() if name != "walk_1")
    server = replace(prediction, objects=objects.iloc[:0])
    for other in (replace(run, predictions={VAL: server}), replace(run, predictions={})):
        assert sample([other], VAL) is None and interval_cells([other], VAL, FEW) == ("", "")
    assert sample([run], VAL).scores() == pytest.approx([(seen + values["walk_1"]) / 2])
    published = [
        {"table": "comparison", "row": "dmn-aoa", "benchmark": YT19, "metric": "G", "value": "69.4", "note": "?"}
    ]
    found = comparison_cells(published, "dmn-aoa", [run], FEW)
    expect(found, **{f"{YT19}_G": "62.5000", f"{YT19}_paper_G": "69.4", f"{YT19}_note": "?", f"{YT18}_G": "not run"})
    run = replace(run, predictions={YT19: replace(prediction, overall={"J&F-Mean": 0.5})})
    refused(r"global\.csv: no column G", comparison_cells, published, "dmn-aoa", [run], FEW)
    lines = make_lines(project.settings("ablation"), {("hodor-soft-coco", 0): run})
    assert "G" not in view("ablation", lines, False).about
    lines["benchmark"] = YT19
    assert "J&F is G" in view("ablation", lines, False).about


def test_the_note_of_a_row_is_in_every_table(tabulated):
    for name in ("comparison_table", "extended_table", "costs"):
        notes = {line["row"]: line["note"] for line in tables()[name]}
        assert notes.pop("dmn-aoa") == NOTE and set(notes.values()) == {""}, name
    for table in ("comparison", "extended"):
        # Beside our number and beside the paper's.
        for part in (0, 1):
            (row,) = [row for row in markdown(table, part) if row[0] == "Dmn-Aoa"]
            assert NOTE in row[-1]
    assert "note" not in markdown("ablation")[0]


def test_commit_machine_versions_and_seeds_are_below_every_table(project):
    train = project.run("hodor-soft-coco") / "train.json"
    train.write_text(train.read_text().replace("abc123", "def456-dirty"))
    make(project)
    for table in TABLES.values():
        settings = project.settings(table.removesuffix("_table"))
        rows = [row for row in settings["rows"] if settings["rows"][row]["selected"]]
        foot = footnote(provenance([read_run(project.run(row)) for row in rows], [0]))
        assert ("def456-dirty" in foot) == ("hodor-soft-coco" in rows)
        for fact in ("abc123", "Abacus 9", "torch 2.13.0", "seeds 0"):
            assert fact in foot
        text = (OUT / f"{table}.md").read_text()
        assert re.search(rf"\|\n\n{re.escape(foot)}\n", text) and "toolkit itself was not used" in text
        assert latex_text(foot) in (OUT / f"{table}.tex").read_text().partition(r"\end{tabular}")[2]


def secret_run(project, row="hodor-soft-coco"):
    """A run of a row whose masks were packed for a server on test-dev."""
    run = read_run(project.run(row))
    submission = {"submission": {"sha256": "a" * 64}}
    prediction = run.predictions[VAL]
    prediction = replace(prediction, benchmark=TEST_DEV, overall={}, objects=prediction.objects[:0], score=submission)
    return replace(run, predictions=run.predictions | {TEST_DEV: prediction})


def test_until_the_server_has_answered_the_cell_is_pending(project):
    run, row, published = secret_run(project), "hodor-soft-coco", project.settings()["published"]
    expect(
        comparison_cells(published, row, [run], FEW),
        **{f"{TEST_DEV}_J&F": "server: pending", f"{TEST_DEV}_paper_J&F": "65.0"},
    )
    answer = {"scale": "tiny", "row": row, "seed": 0, "benchmark": TEST_DEV, "submission": "a" * 64}
    answer |= {"date": "2027-01-31", "scores": {"J&F": 64.5}}
    key = (row, 0, TEST_DEV)
    answered = with_server_scores(run, {key: answer})
    assert comparison_cells(published, row, [answered], FEW)[f"{TEST_DEV}_J&F"] == "64.5000"
    # With one of two seeds answered there is no mean yet.
    assert comparison_cells([], row, [answered, run], FEW)[f"{TEST_DEV}_J&F"] == "server: pending"
    assert seed_scores([answered], TEST_DEV) == [64.5] and seed_scores([answered, run], TEST_DEV) == []
    with pytest.raises(HodorError, match="score.json.*remove the entry|remove the entry"):
        with_server_scores(run, {key: answer | {"submission": "b" * 64}})
    refused("ground truth is public", with_server_scores, run, {(row, 0, VAL): answer | {"benchmark": TEST_DEV}})


def test_a_holdout_that_a_row_was_trained_on(tabulated):
    assert not [column for column in markdown("comparison")[0] if "hold-out" in column or "2016" in column]
    made = make(tabulated, benchmarks=[VAL, "ytvos-holdout"])
    assert made["comparison_table"][0]["ytvos-holdout_G"] == "trained on it"
    head, soft, _ = markdown("comparison")
    assert soft[head.index("YouTube-VOS hold-out G")] == "trained on it"


def test_released_weights_are_rows_of_the_extended_table_with_a_view_of_their_own(project):
    about = {"source": "https://example.org/w", "licence": "MIT"}
    here = about | {"weights": "images.pth", "compare": "hodor-soft-coco"}
    project.add("soft-released", "soft", tables=["extended"], shift=1, released=here)
    absent = about | {"weights": "stm.pth", "compare": "stm"}
    project.add("stm-released", method="stm", tables=["extended"], selected=False, released=absent, note="other data")
    made = make(project)
    rows = {line["row"]: line for line in made["extended_table"]}
    assert float(rows["soft-released"]["J&F"]) > 0 and rows["stm-released"]["J&F"] == "not run"
    found, missing = made["released_weights"]
    assert tuple(found) == RELEASED_COLUMNS
    for name in ("J&F", "J", "F"):
        assert found[f"released_{name}"] == rows["soft-released"][name] and missing[f"released_{name}"] == ""
    expect(found, row="hodor-soft-coco", status="scored", checkpoint_sha256="ab" * 32, short_side="64", **about)
    expect(found, **{"paper_J&F": "77.5", "manifest": "runs/tiny/soft-released/seed0/manifest.json"})
    expect(missing, id="stm-released", row="stm", note="other data", scale="tiny", manifest="", **about)
    for text in (missing["status"], rows["stm-released"]["note"]):
        assert text.startswith("not run: ") and "hodor fetch weights" in text and "stm.pth" in text


def test_the_tables_do_not_change_when_only_times_do(tabulated):
    kept = [path for path in OUT.rglob("*.*") if path.name != "costs.csv"]
    before, costs = {path: path.read_bytes() for path in kept}, (OUT / "costs.csv").read_bytes()
    for row in ("hodor-soft-coco", "copy-first-mask"):
        for name in ("train.json", f"{VAL}/segment.json", f"{VAL}/score.json"):
            path = tabulated.run(row) / name
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"time_s": 99.0, "peak_memory_mib": 1.0, "fps": 1.0}))
    make(tabulated)
    assert {path: path.read_bytes() for path in kept} == before and (OUT / "costs.csv").read_bytes() != costs


def test_metrics_and_curves_for_dvc(tabulated):
    metrics = json.loads((OUT / "metrics.json").read_text())
    scored = read_run(tabulated.run("hodor-soft-coco")).predictions[VAL].overall["J&F-Mean"]
    assert metrics["hodor-soft-coco"][VAL] == pytest.approx(100 * scored, abs=1e-4)
    log = read_run(tabulated.run("hodor-soft-coco")).log
    curve = pd.read_csv(OUT / "curves" / "hodor-soft-coco.csv")
    assert curve["step"].tolist() == [step["step"] for step in log]
    assert curve["loss"].tolist() == pytest.approx([step["loss"] for step in log])
    assert not (OUT / "curves" / "copy-first-mask.csv").exists(), "a row without training has no curve"


@pytest.mark.parametrize("table", [*TABLES, "costs"])
def test_a_table_is_made_from_its_own_rows_and_writes_nothing_else(project, table):
    rows = [row for row, entry in project.rows.items() if table == "costs" or table in entry["tables"]]
    for row in project.rows.keys() - set(rows):
        shutil.rmtree(project.run(row).parent, ignore_errors=True)
    before = {path: path.stat().st_mtime_ns for path in project.runs.rglob("*")}
    make_one(project, table)
    files = (
        {"costs.csv", "metrics.json", "curves"}
        if table == "costs"
        else {f"{table}_table.{kind}" for kind in ("csv", "md", "tex")}
    )
    assert {path.name for path in OUT.iterdir()} == files | ({"released_weights.csv"} if table == "extended" else set())
    # Only the verb `manifest` writes manifests, which are inputs here.
    assert {path: path.stat().st_mtime_ns for path in project.runs.rglob("*")} == before
