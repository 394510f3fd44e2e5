"""Stamps change with the settings and recipe versions that a step depends on and with nothing else; records follow them."""

import json
import os
from pathlib import Path

import pytest

from hodor import paths
from hodor.config import loading as config
from hodor.config.recipes import RECIPES
from hodor.config.schema import TABLES
from hodor.provenance import read_stamp, sha256_file, sha256_json
from hodor.records import Records
from hodor.stamps import Stamps
from tests.checkouts import set_yaml

# ---------------------------------------------------------------------------------------------------- the stamps


def stamps(root: Path, **overrides) -> Stamps:
    return Stamps(config.load(root / "config", {"scale": "tiny"} | overrides), root)


def changed(root: Path, **overrides) -> set[str]:
    """Steps whose stamps differ after a change, rows left out."""
    before, after = stamps(root).contents, stamps(root, **overrides).contents
    assert before.keys() <= after.keys() or "rows" in overrides
    return {name for name in after if after[name] != before.get(name)}


def tables(*names: str) -> set[str]:
    """Names of the stamps of these tables; of all, the costs and the claims included, where none is named."""
    return {name if name == "claims" else f"tabulate-{name}" for name in names or (*TABLES, "costs", "claims")}


def test_names_and_common_keys(root):
    contents = stamps(root).contents
    assert {"fetch-coco", "prepare-davis", "train-hodor-soft-cyclic-seed0", "score-davis2017-val"} <= contents.keys()
    assert {"segment-copy-first-mask-seed0-davis2017-val", *tables(), "render"} <= contents.keys()
    for name, content in contents.items():
        assert name.partition("-")[0] == content["step"]
        assert content["scale"] == "tiny" and all(version >= 1 for version in content["recipes"].values())


def test_a_training_stamp_holds_all_that_the_step_needs(root):
    stamp = stamps(root).contents["train-hodor-soft-cyclic-seed0"]
    assert (stamp["row"], stamp["seed"]) == ("hodor-soft-cyclic", 0)
    settings = stamp["settings"]
    assert settings["method"] == "hodor" and settings["options"]["attention"] == "soft"
    assert settings["stage"]["kind"] == "sparse-video" and settings["init"] == {"row": "hodor-soft-coco"}
    assert settings["datasets"] == ["youtube-vos", "davis"] and set(settings["data"]) == {
        "youtube-vos",
        "davis",
    }
    assert (settings["seed"], settings["device"], settings["threads"]) == (0, "cpu", 1)
    untrained = stamps(root).contents["train-hodor-soft-untrained-seed0"]["settings"]
    assert untrained["stage"] is None and untrained["init"] is None and untrained["datasets"] == []


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("train/stm", {"train-stm-seed0"}),
        ("segment/stm", {"segment-stm-seed0-davis2017-val"}),
        ("tables", set()),
        ("score/davis", {"score-davis2017-val"}),
    ],
)
def test_a_raised_version_reaches_the_steps_of_its_recipe(root, monkeypatch, recipe, steps):
    before = stamps(root).contents
    monkeypatch.setitem(RECIPES, recipe, RECIPES[recipe] + 1)
    after = stamps(root).contents
    changed = {name for name in after if before[name] != after[name]}
    assert {name for name in changed if name.partition("-")[0] in ("prepare", "train", "segment", "score")} == steps
    of_method = recipe.endswith("/stm")
    assert changed - steps == (tables("comparison", "costs", "claims") if of_method else tables())


CYCLIC = {f"train-hodor-{kind}-cyclic-seed0" for kind in ("none", "hard", "soft")}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # No selected row of the extended table is trained so.
        ({"overrides": {"stages.cyclic.steps": 5}}, CYCLIC | tables("ablation", "comparison", "costs", "claims")),
        ({"overrides": {"caption": "Another."}}, tables(*TABLES, "claims") | {"render"}),
        ({"mirror": "https://example.org"}, set()),
    ],
)
def test_a_setting_reaches_what_depends_on_it(root, overrides, expected):
    assert changed(root, **overrides) == expected


def test_generated_data_reach_everything_that_reads_them(root):
    names = changed(root, overrides={"generated.seed": 1})
    assert {"fetch-coco", "prepare-coco", "train-hodor-soft-coco-seed0", "score-davis2017-val"} <= names
    inference = changed(root, overrides={"inference.temporal_window": 2})
    assert inference == {name for name in stamps(root).contents if name.startswith("segment-")} | tables()
    assert not {"train-copy-first-mask-seed0", "render"} & names


def test_selected_rows_reach_the_tables_alone(root):
    assert changed(root, rows="hodor-soft-cyclic") == tables() | {"render"}
    contents = stamps(root, rows="hodor-soft-cyclic").contents
    assert "train-hodor-soft-coco-seed0" in contents
    assert "segment-hodor-soft-coco-seed0-davis2017-val" not in contents


@pytest.mark.parametrize("table", TABLES)
def test_a_table_knows_its_rows_and_the_stamps_of_the_selected(root, table):
    made = stamps(root, rows="hodor-soft-coco", seeds=[0, 3])
    settings = made.contents[f"tabulate-{table}"]["settings"]
    in_it = table != "extended"
    assert settings["table"] == table
    assert list(settings["rows"]) == [row for row, entry in made.config.rows.items() if table in entry.tables]
    assert [row for row, entry in settings["rows"].items() if entry["selected"]] == ["hodor-soft-coco"] * in_it
    assert settings["init"] == ({"hodor-soft-coco": None} if in_it else {})
    assert settings["stamps"] == {
        f"hodor-soft-coco/seed{seed}/{step}": sha256_json(made.contents[name.format(seed)])
        for seed in (0, 3)
        for step, name in {
            "train": "train-hodor-soft-coco-seed{}",
            "davis2017-val/segment": "segment-hodor-soft-coco-seed{}-davis2017-val",
            "davis2017-val/score": "score-davis2017-val",
        }.items()
        if in_it
    }
    published = {line["row"] for line in settings["published"]}
    compared = {entry["compare"] for entry in settings["rows"].values()} - {None}
    assert published <= settings["rows"].keys() | compared
    assert ("stcn" in published, "hodor-none-coco" in published) == (table != "ablation", table == "ablation")


def test_the_claims_know_their_rows_and_what_decides_nothing(root):
    made = stamps(root, rows="hodor-soft-coco,hodor-soft-coco-alpha0,copy-first-mask")
    settings = made.contents["claims"]["settings"]
    assert set(settings["rows"]) == made.config.claims.rows()
    init = {"hodor-soft-coco": None, "hodor-soft-coco-alpha0": "hodor-soft-coco"}
    assert [row for row, entry in settings["rows"].items() if entry["selected"]] == list(init)
    assert {name.partition("/")[0] for name in settings["stamps"]} == set(init)
    assert settings["init"] == init
    assert not [claim for claim in settings["claims"] if claim["substitutes"]] and "generated" in settings["evidence"]


def test_an_optional_data_set_adds_its_benchmark_and_is_trained_on(root, tmp_path):
    alone = stamps(root, scale="subset", mirror=str(tmp_path)).contents["claims"]["settings"]
    assert "data set davis2016" in alone["absent"]["davis2016-val"] and "davis2016-val" not in alone["benchmarks"]
    (tmp_path / "davis2016").mkdir()
    (tmp_path / "davis2016" / "DAVIS-data.zip").touch()
    made = stamps(root, scale="subset", mirror=str(tmp_path))
    settings = made.contents["claims"]["settings"]
    assert not settings["absent"] and settings["benchmarks"] == ["davis2017-val", "davis2016-val"]
    for claim in settings["claims"]:
        cyclic = any("cyclic" in row for row in claim["rows"])
        assert claim["substitutes"] == (["DAVIS-2016 train instead of YouTube-VOS"] if cyclic else [])
    stages = made.config.scale.stages
    assert {source.dataset for stage in ("cyclic", "cyclic-holdout", "dense") for source in stages[stage].sources} == {
        "davis2016"
    }
    assert alone["caption"] != settings["caption"] and not stamps(root, scale="paper").config.absent_benchmarks()


@pytest.mark.parametrize(
    ("file", "key", "value", "expected"),
    [
        ("rows", "systems.stm.label", "Space-time memory", ["comparison"]),
        ("rows", "systems.hodor-none-coco.label", "HODOR, none", ["ablation"]),
        ("rows", "systems.hodor-soft-coco.label", "HODOR, soft", ["ablation", "comparison"]),
        ("rows", "systems.stm-stcn-recipe.label", "STM, STCN's training", ["extended"]),
        ("rows", "systems.stm.note", "hm", ["comparison", "costs"]),
        # A row that is not selected costs nothing.
        ("rows", "systems.stm-stcn-recipe.note", "hm", ["extended"]),
        ("rows", "systems.stm.tables", ["comparison", "extended"], ["extended"]),
        ("claims", "rule.on_par", 1, ["claims"]),
        ("claims", "bootstrap.resamples", 1000, [*TABLES, "claims"]),
    ],
)
def test_what_is_said_of_a_row_or_claim_reaches_the_tables_that_say_it(root, folder, file, key, value, expected):
    before = Stamps(config.load(folder, {"scale": "tiny"}), root).contents
    set_yaml(folder / f"{file}.yaml", key, value)
    after = Stamps(config.load(folder, {"scale": "tiny"}), root).contents
    assert {name for name in after if after[name] != before[name]} == tables(*expected)


def test_another_address_fetches_again_and_trains_nothing(root, folder):
    before = Stamps(config.load(folder, {"scale": "paper"}), root).contents
    table = folder / "datasets.csv"
    table.write_text(table.read_text().replace("images.cocodataset.org", "example.org"))
    after = Stamps(config.load(folder, {"scale": "paper"}), root).contents
    assert {name for name in after if after[name] != before[name]} == {"fetch-coco"}


def times(folder: Path) -> dict[str, int]:
    """Stamp file -> time of its last change, which is set back to 1."""
    files = {path: path.stat().st_mtime_ns for path in (folder / paths.stamps("tiny")).glob("*-*.json")}
    for path in files:
        os.utime(path, ns=(1, 1))
    return {path.name.rpartition("-")[0]: at for path, at in files.items() if at != 1}


def test_only_changed_stamps_become_new(root, tmp_path):
    stamps(root).write(tmp_path)
    assert times(tmp_path).keys() == stamps(root).contents.keys()
    broken = tmp_path / stamps(root).path("tabulate-extended")
    broken.write_text("{")
    stamps(root).write(tmp_path)
    assert set(times(tmp_path)) == {"tabulate-extended"} and read_stamp(broken)["step"] == "tabulate"
    other = stamps(root, overrides={"stages.cyclic.steps": 5})
    other.write(tmp_path)
    expected = CYCLIC | tables("ablation", "comparison", "costs", "claims")
    assert set(times(tmp_path)) == expected
    # Back to the first settings: their stamps are newer than what the second ones made.
    stamps(root).write(tmp_path)
    assert set(times(tmp_path)) == expected


def test_a_dry_run_changes_nothing_that_another_run_reads(root, tmp_path):
    stamps(root).write(tmp_path)
    times(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    stamps(root, overrides={"stages.cyclic.steps": 5}).write(tmp_path, present=False)
    assert {path: path.read_bytes() for path in before} == before
    times(tmp_path)
    stamps(root).write(tmp_path)
    assert times(tmp_path) == {}


# --------------------------------------------------------------------------------------------------- the records


def make_run(folder: Path, made: Stamps, row: str) -> None:
    """A finished run of a row, as far as its records go."""
    run = folder / paths.run("tiny", row, 0)
    masks = run / "davis2017-val" / "masks"
    masks.mkdir(parents=True)
    (run / "model.safetensors").touch()
    for path, name in (
        (run / "train.json", f"train-{row}-seed0"),
        (masks.parent / "masks.json", f"segment-{row}-seed0-davis2017-val"),
        (masks.parent / "score.json", "score-davis2017-val"),
    ):
        path.write_text(json.dumps({"stamp": sha256_json(made.contents[name])}))


def needs(made: Stamps, folder: Path, row: str) -> list[bool]:
    """Whether training, segmenting and scoring ask for data."""
    records = Records(made, folder)
    return [
        bool(records.train_data(row, 0)),
        bool(records.segment_data(row, 0, "davis2017-val")),
        bool(records.score_data(row, 0, "davis2017-val")),
    ]


def test_what_is_recorded_with_the_present_stamps_needs_no_data(root, tmp_path):
    made = stamps(root)
    assert needs(made, tmp_path, "hodor-soft-coco") == [True, True, True]
    make_run(tmp_path, made, "hodor-soft-coco")
    assert needs(made, tmp_path, "hodor-soft-coco") == [False, False, False]
    other = stamps(root, overrides={"stages.images.steps": 9})
    assert needs(other, tmp_path, "hodor-soft-coco") == [True, True, True]
    other = stamps(root, overrides={"inference.temporal_window": 2})
    assert needs(other, tmp_path, "hodor-soft-coco") == [False, True, True]


def test_a_row_needs_data_while_its_beginning_does(root, tmp_path):
    made = stamps(root)
    make_run(tmp_path, made, "hodor-soft-cyclic")
    assert needs(made, tmp_path, "hodor-soft-cyclic") == [True, True, True]
    make_run(tmp_path, made, "hodor-soft-coco")
    assert needs(made, tmp_path, "hodor-soft-cyclic") == [False, False, False]


def test_a_missing_result_needs_data(root, tmp_path):
    made = stamps(root)
    make_run(tmp_path, made, "hodor-soft-coco")
    for file, expected in (
        ("davis2017-val/score.json", [False, False, True]),
        ("davis2017-val/masks", [False, True, True]),
        ("davis2017-val/masks.json", [False, True, True]),
        ("model.safetensors", [True, True, True]),
    ):
        path = tmp_path / paths.run("tiny", "hodor-soft-coco", 0) / file
        path.rmdir() if path.is_dir() else path.unlink()
        assert needs(made, tmp_path, "hodor-soft-coco") == expected


def test_masks_and_scores_of_an_earlier_version_of_a_data_set_are_made_again(root, tmp_path):
    made = stamps(root)
    make_run(tmp_path, made, "hodor-soft-coco")
    manifest = tmp_path / paths.manifest("tiny", "davis")
    manifest.parent.mkdir(parents=True)
    manifest.write_text("six videos")
    at = tmp_path / paths.prediction("tiny", "hodor-soft-coco", 0, "davis2017-val")
    for name, key in (("masks.json", "data"), ("score.json", "truth")):
        content = json.loads((at / name).read_text())
        (at / name).write_text(json.dumps(content | {key: sha256_file(manifest)}))
    assert needs(made, tmp_path, "hodor-soft-coco") == [False, False, False]
    manifest.write_text("thirty videos")
    assert needs(made, tmp_path, "hodor-soft-coco") == [False, True, True]
    made.write(tmp_path)
    Records(made, tmp_path).date_stamps()
    for name, of in (
        ("masks.json", "segment-hodor-soft-coco-seed0-davis2017-val"),
        ("score.json", "score-davis2017-val"),
    ):
        assert (tmp_path / made.path(of)).stat().st_mtime > (at / name).stat().st_mtime  # so that Snakemake runs it
    manifest.unlink()  # deleted to save space
    assert needs(made, tmp_path, "hodor-soft-coco") == [False, False, False]


def test_a_training_waits_for_the_data_of_everything_that_the_targets_need(root, tmp_path):
    made = stamps(root)
    records = Records(made, tmp_path)
    own = ["data/tiny/coco.json", "data/tiny/coco"]
    davis = ["data/tiny/davis.json", "data/tiny/davis"]
    youtube = ["data/tiny/youtube-vos.json", "data/tiny/youtube-vos"]

    def wait(*targets: str) -> list[str]:
        return [path.as_posix() for path in records.train_data("hodor-soft-coco", 0, targets)]

    assert wait() == own
    assert wait("hodor-soft-coco") == wait("runs/tiny/hodor-soft-coco/seed0/train.json") == [*own, *davis]
    for targets in (["results/ablation_table.csv"], ["tables"], ["hodor-soft-coco", "reports/index.html"]):
        assert sorted(wait(*targets)) == sorted([*own, *davis, *youtube]), targets
    make_run(tmp_path, made, "hodor-soft-coco")
    assert Records(made, tmp_path).train_data("hodor-soft-coco", 0, ["tables"]) == []


@pytest.mark.parametrize("at", [1e9, 2e9])
def test_a_stamp_is_newer_than_results_of_other_stamps_alone_whatever_the_clocks_say(root, tmp_path, at):
    made, other = stamps(root), stamps(root, overrides={"stages.images.steps": 9})
    make_run(tmp_path, made, "hodor-soft-coco")
    record = tmp_path / paths.run("tiny", "hodor-soft-coco", 0) / "train.json"
    os.utime(record, (at, at))
    for present, newer in ((made, False), (other, True)):
        present.write(tmp_path)
        Records(present, tmp_path).date_stamps()
        stamp = tmp_path / present.path("train-hodor-soft-coco-seed0")
        assert (stamp.stat().st_mtime > record.stat().st_mtime) == newer
