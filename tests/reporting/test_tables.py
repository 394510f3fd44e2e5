"""The tables: their numbers, what stands beside them, and the refusal of results from elsewhere."""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from hodor.errors import HodorError
from hodor.provenance import sha256_file
from hodor.reporting.published import published_value
from hodor.reporting.readable import view
from hodor.reporting.runs import read_run
from hodor.reporting.samples import interval_cells, sample
from hodor.reporting.tables import COLUMNS, tabulate
from hodor.scoring.score import score
from hodor.scoring.statistics import Bootstrap, estimate

VAL = "davis2017-val"
OUT = Path("results/tiny")


def make(project, **changed) -> dict[str, list[dict[str, str]]]:
    project.tabulate(OUT, **changed)
    return {path.stem: read(path) for path in OUT.glob("*.csv")}


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_ablation_table(project):
    table = make(project)["ablation_table"]
    assert list(table[0]) == list(COLUMNS)
    rows = {line["row"]: line for line in table}
    assert list(rows) == ["hodor-none-coco", "hodor-soft-coco", "hodor-hard-coco", "hodor-soft-cyclic"]
    overall = read_run(project.run("hodor-soft-coco")).predictions[VAL].overall
    soft = rows["hodor-soft-coco"]
    for column in ("J&F", "J", "F"):
        assert float(soft[column]) == pytest.approx(100 * overall[f"{column}-Mean"], abs=5e-5)
    assert float(soft["J&F"]) > float(rows["hodor-none-coco"]["J&F"])
    expected = {
        "training_data": "COCO",
        "attention": "soft",
        "scale": "tiny",
        "benchmark": VAL,
        "seeds": "0",
        "n": "1",
    }
    expected |= {"J&F_std": "", "paper_J&F": "77.5", "parameters": "123456"}
    assert float(soft["J&F_low"]) < float(soft["J&F"]) < float(soft["J&F_high"])
    expected |= {"manifest": "runs/tiny/hodor-soft-coco/seed0/manifest.json"}
    assert {key: soft[key] for key in expected} == expected
    assert json.loads(Path(soft["manifest"]).read_text())["row"] == "hodor-soft-coco"


def test_table_1_is_about_one_benchmark_whatever_else_is_scored(project):
    benchmarks, out = [VAL, "davis2017-test-dev"], {}
    for table in ("ablation", "extended"):
        settings = project.settings(table, benchmarks=benchmarks)
        settings["rows"] = {row: entry | {"selected": False} for row, entry in settings["rows"].items()}
        tabulate({"settings": settings}, project.runs, OUT)
        out[table] = {line["benchmark"] for line in read(OUT / f"{table}_table.csv")}
    assert out == {"ablation": {VAL}, "extended": set(benchmarks)}


def test_a_row_that_was_not_run_says_so(project):
    line = next(line for line in make(project)["ablation_table"] if line["row"] == "hodor-hard-coco")
    assert (line["J&F"], line["n"], line["attention"]) == ("not run", "0", "hard")
    assert {line[key] for key in ("seeds", "J", "F", "J&F_std", "J&F_low", "J&F_high", "parameters", "manifest")} == {
        ""
    }
    assert "| Hodor-Hard-Coco | COCO | hard | not run | – |" in (OUT / "ablation_table.md").read_text()


def test_the_extended_table_and_the_costs(project):
    tables = make(project)
    dmn, copy = tables["extended_table"]
    assert (dmn["row"], dmn["attention"], dmn["parameters"]) == ("dmn-aoa", "", "123456")
    assert (copy["row"], copy["attention"], copy["parameters"]) == ("copy-first-mask", "", "0")
    rows = ["hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic", "dmn-aoa", "copy-first-mask"]
    assert [line["row"] for line in tables["costs"]] == rows
    assert tables["costs"][0] == {
        "row": "hodor-none-coco",
        "seed": "0",
        "benchmark": VAL,
        "training_s": "12.5",
        "training_peak_mib": "300.25",
        "segmentation_fps": "8.0",
        "segmentation_peak_mib": "200",
        "machine": "Abacus 9, 2 cores, 2 GiB, no GPU",
        "note": "",
    }


def test_two_seeds_give_mean_and_standard_deviation(empty_project):
    empty_project.seeds = [0, 3]
    empty_project.add("hodor-soft-coco", "soft", shift=1)
    (line,) = make(empty_project)["ablation_table"]
    a, b = (
        100 * read_run(empty_project.run("hodor-soft-coco", seed)).predictions[VAL].overall["J&F-Mean"]
        for seed in (0, 3)
    )
    assert abs(a - b) > 1
    assert float(line["J&F"]) == pytest.approx((a + b) / 2, abs=5e-5)
    assert float(line["J&F_std"]) == pytest.approx(abs(a - b) / 2**0.5, abs=5e-5)
    assert (line["seeds"], line["n"], len(line["manifest"].split())) == ("0 3", "2", 2)
    low, high = float(line["J&F_low"]), float(line["J&F_high"])
    assert low < min(a, b) and max(a, b) < high  # sequences vary too
    text = (OUT / "ablation_table.md").read_text()
    assert f"| {(a + b) / 2:.1f} ± {abs(a - b) / 2**0.5:.1f} [{low:.1f}, {high:.1f}] | 2 |" in text
    assert "standard deviation over seeds" in text and "n = 1" not in text


def test_a_score_of_one_seed_says_so_and_has_an_interval_over_sequences(project):
    line = next(line for line in make(project)["ablation_table"] if line["row"] == "hodor-soft-coco")
    expected = estimate(sample([read_run(project.run("hodor-soft-coco"))], VAL), Bootstrap(1000, 0))
    assert float(line["J&F"]) == pytest.approx(expected.mean, abs=5e-5)
    assert (line["J&F_low"], line["J&F_high"]) == (f"{expected.low:.4f}", f"{expected.high:.4f}")
    for name in ("ablation_table", "comparison_table", "extended_table"):
        text = (OUT / f"{name}.md").read_text()
        assert "one seed (n = 1): its interval is over sequences alone" in text
        assert "percentile bootstrap over sequences and seeds, 1,000 resamples, generator seed 0" in text


def test_a_number_that_a_server_gave_has_no_interval(project):
    run = read_run(project.run("hodor-soft-coco"))
    run = replace(run, predictions={VAL: replace(run.predictions[VAL], objects={})})
    assert sample([run], VAL) is None and interval_cells([run], VAL, Bootstrap()) == ("", "")
    assert sample([run], "ytvos2019-val") is None  # not scored on it


def test_the_score_of_youtube_vos_averages_over_categories(project):
    run = read_run(project.run("hodor-soft-coco"))
    objects = run.predictions[VAL].objects
    categories = {name: "unseen" if name == "walk_1" else "seen" for name in objects}
    run = replace(run, predictions={VAL: replace(run.predictions[VAL], categories=categories)})
    j_and_f = {name: 50 * (entry["J-Mean"] + entry["F-Mean"]) for name, entry in objects.items()}
    seen = fmean(value for name, value in j_and_f.items() if name != "walk_1")
    assert sample([run], VAL).scores() == pytest.approx([(seen + j_and_f["walk_1"]) / 2])


def test_what_a_number_of_youtube_vos_is_stands_below_the_table(project):
    make(project)
    about = "averaged apart and then the two, so that J&F is G"
    (line,) = [line for line in read(OUT / "ablation_table.csv") if line["row"] == "hodor-soft-coco"]
    assert about not in view([line], beside=False).about
    assert about in view([line, line | {"benchmark": "ytvos2019-val"}], beside=False).about


def test_below_the_scale_of_the_paper_its_numbers_stand_apart(project):
    make(project)
    text = (OUT / "ablation_table.md").read_text()
    ours, apart = text.split("## The paper's numbers: another experiment")
    assert "Measured at tiny scale. Numbers without meaning, on generated data." in ours
    assert "These numbers say nothing about the paper's numbers." in ours
    assert "77.5" not in ours and "77.5" in apart and "not to be compared" in apart
    for fact in ("seeds: 0", "commit: ", "abc123", "Abacus 9", "torch 2.13.0", "toolkit itself was not used"):
        assert fact in apart
    # A table of rows without published numbers has no such heading.
    make(project, published=[])
    assert "another experiment" not in (OUT / "ablation_table.md").read_text()


def test_at_the_scale_of_the_paper_they_stand_side_by_side(empty_project):
    project = empty_project
    (project.folder / "data" / "tiny").rename(project.folder / "data" / "paper")
    project.scale = "paper"
    project.add("hodor-soft-coco", "soft")
    make(project)
    text = (OUT / "ablation_table.md").read_text()
    assert "| J&F | paper's J&F |" in text and "another experiment" not in text and "say nothing" not in text


def test_the_tables_have_no_times_and_do_not_change_when_only_times_do(project):
    make(project)
    names = [
        f"{table}_table.{kind}" for table in ("ablation", "comparison", "extended") for kind in ("csv", "md", "tex")
    ]
    before = {name: (OUT / name).read_bytes() for name in names}
    for row in ("hodor-soft-coco", "copy-first-mask"):
        for name in ("train.json", f"{VAL}/segment.json", f"{VAL}/score.json"):
            path = project.run(row) / name
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"time_s": 99.0, "peak_memory_mib": 1.0, "fps": 1.0}))
    costs = (OUT / "costs.csv").read_bytes()
    make(project)
    assert {name: (OUT / name).read_bytes() for name in names} == before
    assert (OUT / "costs.csv").read_bytes() != costs


def make_one(project, table: str) -> None:
    tabulate({"settings": project.settings(table)}, project.runs, OUT)


@pytest.mark.parametrize(
    ("table", "files"),
    [
        ("ablation", {"ablation_table.csv", "ablation_table.md", "ablation_table.tex"}),
        ("comparison", {"comparison_table.csv", "comparison_table.md", "comparison_table.tex"}),
        ("extended", {"extended_table.csv", "extended_table.md", "extended_table.tex"}),
        ("costs", {"costs.csv"}),
    ],
)
def test_a_table_is_made_alone_from_its_own_rows(project, table, files):
    rows = [row for row, entry in project.rows.items() if table == "costs" or table in entry["tables"]]
    for row in project.rows.keys() - set(rows):
        shutil.rmtree(project.run(row).parent, ignore_errors=True)
    make_one(project, table)
    assert {path.name for path in OUT.iterdir()} == files
    selected = {row for row in rows if project.rows[row]["selected"]}
    assert {path.parts[-3] for path in project.runs.rglob("manifest.json")} == selected


def test_a_manifest_that_says_the_same_stays_as_it_is(project):
    make_one(project, "ablation")
    manifest = project.run("hodor-soft-coco") / "manifest.json"
    os.utime(manifest, ns=(1, 1))
    make_one(project, "comparison")
    assert manifest.stat().st_mtime_ns == 1
    manifest.write_text("{}")
    make_one(project, "costs")
    assert json.loads(manifest.read_text())["row"] == "hodor-soft-coco"


def refused(project, path: Path, message: str, table: str = "ablation", target: object = None) -> None:
    """Refused with one message that begins with the file and ends with the command that mends it."""
    with pytest.raises(HodorError, match=message) as error:
        make_one(project, table)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    target = target or {"costs": "results/costs.csv"}.get(table, f"results/{table}_table.csv")
    assert text.endswith(f"snakemake --cores all --config scale=tiny -- {target}")
    assert not OUT.exists(), "no table of mixed origin is written"


@pytest.mark.parametrize(
    "step, name",
    [("train", "train.json"), (f"{VAL}/segment", f"{VAL}/masks.json"), (f"{VAL}/score", f"{VAL}/score.json")],
)
def test_results_of_other_settings_or_code_are_refused(project, step, name):
    project.stamps[f"hodor-soft-coco/seed0/{step}"] = "0" * 64
    path = project.run("hodor-soft-coco") / name
    for table in ("ablation", "comparison", "costs"):
        refused(project, path, f"other settings or other code.*rm -f {path}", table)
    make_one(project, "extended")


def test_settings_that_are_not_those_of_the_stamp_are_refused(project):
    path = project.run("hodor-soft-coco") / "train.json"
    path.write_text(path.read_text().replace('"of": "hodor-soft-coco"', '"of": "something-better"'))
    refused(project, path, "the settings in it are not those of its stamp")


def test_weights_from_elsewhere_are_refused(project):
    path = project.run("hodor-soft-coco") / "model.safetensors"
    path.write_bytes(b"other weights")
    refused(project, path, "not the weights that .*train.json names")


def test_masks_of_other_weights_are_refused(project):
    path = project.run("hodor-none-coco") / VAL / "masks.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "0" * 64}))
    refused(project, path, "not made with")


def test_scores_of_another_row_are_refused(project):
    source, target = (project.run(row) / VAL for row in ("hodor-soft-cyclic", "hodor-soft-coco"))
    for name in ("global.csv", "per_object.csv", "per_frame.csv", "score.json"):
        shutil.copy(source / name, target / name)
    project.stamps["hodor-soft-coco/seed0/davis2017-val/score"] = json.loads((target / "score.json").read_text())[
        "stamp"
    ]
    refused(project, target / "score.json", "not the scores of the masks")


def test_numbers_edited_by_hand_are_refused(project):
    path = project.run("hodor-soft-coco") / VAL / "global.csv"
    head, numbers = path.read_text().splitlines()
    path.write_text(f"{head}\n{numbers.replace('0.', '0.9', 1)}\n")
    refused(project, path, "not the numbers that .*score.json records")


def test_a_training_that_started_from_other_weights_is_refused(project):
    parent, child = project.run("hodor-soft-coco"), project.run("hodor-soft-cyclic")
    # The parent was trained and scored anew, all of it consistent; the child still stems from the old one.
    project.rows.pop("hodor-soft-coco")
    shutil.rmtree(parent)
    stamps = dict(project.stamps)
    project.add("hodor-soft-coco", "soft")
    assert project.stamps == stamps
    make(project)
    (parent / "model.safetensors").write_bytes(b"new weights")
    shutil.rmtree(OUT)
    train = json.loads((parent / "train.json").read_text())
    (parent / "train.json").write_text(json.dumps(train | {"model": sha256_file(parent / "model.safetensors")}))
    project.rows["hodor-soft-coco"]["selected"] = False
    refused(
        project,
        child / "train.json",
        "did not start from the present .*hodor-soft-coco/seed0/model.safetensors",
    )


def test_a_parent_that_is_no_row_of_the_table_is_checked_too(project):
    project.rows["hodor-soft-coco"]["selected"] = False
    shutil.rmtree(project.run("hodor-soft-coco") / VAL)  # trained, not scored
    make(project)
    shutil.rmtree(OUT)
    train = project.run("hodor-soft-coco") / "train.json"
    digest = project.stamps["hodor-soft-coco/seed0/train"]
    project.stamps["hodor-soft-coco/seed0/train"] = "0" * 64
    refused(project, train, "other settings or other code")
    project.stamps["hodor-soft-coco/seed0/train"] = digest
    weights = train.with_name("model.safetensors")
    weights.unlink()
    refused(project, weights, "missing", target=weights)


def test_rows_scored_against_different_data_are_refused(project):
    Path("data/tiny/davis.json").write_text('{"other": "data"}')
    folder = project.run("hodor-soft-cyclic") / VAL
    masks = json.loads((folder / "masks.json").read_text())
    (folder / "masks.json").write_text(json.dumps(masks | {"data": sha256_file("data/tiny/davis.json")}))
    stamp = json.loads((folder / "score.json").read_text())
    score(
        folder / "masks",
        Path("data/tiny/davis"),
        VAL,
        folder,
        stamp["stamp_content"] | {"sha256": stamp["stamp"]},
    )
    refused(project, folder / "score.json", "other data than .*hodor-none-coco")


@pytest.mark.parametrize("name", ["train.json", "model.safetensors", f"{VAL}/masks.json", f"{VAL}/score.json"])
def test_a_missing_result_is_no_empty_cell(project, name):
    path = project.run("hodor-soft-coco") / name
    path.unlink()
    refused(project, path, "missing", target=path)


def test_published_numbers():
    line = {"row": "a", "benchmark": VAL, "metric": "J&F", "value": "77.5"}
    assert published_value([line, line | {"metric": "J", "value": "1"}], "a", VAL) == 77.5
    assert published_value([line], "b", VAL) is None
    for value in ("", "775", "-1", "n/a"):
        with pytest.raises(HodorError, match="published.csv.*not in 0..100"):
            published_value([line | {"value": value}], "a", VAL)
    with pytest.raises(HodorError, match="77.5, 78.0"):
        published_value([line, line | {"value": "78"}], "a", VAL)


def test_the_published_file_holds_both_tables_of_the_poster():
    lines = read(Path(__file__).parents[2] / "config" / "published.csv")
    ablation = {line["row"]: line["value"] for line in lines if line["table"] == "ablation" and line["metric"] == "J&F"}
    assert ablation == {
        "hodor-none-coco": "74.4",
        "hodor-hard-coco": "74.5",
        "hodor-soft-coco": "77.5",
        "hodor-none-cyclic": "79.1",
        "hodor-hard-cyclic": "78.4",
        "hodor-soft-cyclic": "80.6",
    }
    comparison = {}
    for line in lines:
        if line["table"] == "comparison":
            comparison.setdefault(line["row"], []).append(line["value"])
    assert comparison == {
        "stm": ["60.0", "69.1"],
        "dmn-aoa": ["67.9"],
        "kmn": ["68.9"],
        "stcn": ["75.8", "51.7", "69.4"],
        "hodor-soft-coco": ["77.5", "65.0", "71.7"],
        "hodor-soft-cyclic": ["80.6", "66.0", "72.4"],
    }
    assert all(published_value(lines, line["row"], line["benchmark"], line["metric"]) is not None for line in lines)
    assert all(line["source"] for line in lines)
