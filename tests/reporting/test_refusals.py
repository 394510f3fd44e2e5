"""Results of other settings, of other files or of another run make no table."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from hodor.provenance import IMPORTED, record_making, sha256_file
from hodor.scoring.score import score
from tests.refused import refused
from tests.reporting.conftest import OUT, VAL, make, make_one


def refused_table(project, path: Path, message: str, table: str = "ablation", target: object = None) -> None:
    """Refused with one message that begins with the file and ends with the command that fixes it."""
    text = refused(message, make_one, project, table)
    assert text.startswith(str(path))
    target = target or {"costs": "results/costs.csv"}.get(table, f"results/{table}_table.csv")
    assert text.endswith(f"snakemake --cores all --config scale=tiny -- {target}")
    assert not OUT.exists(), "no table of mixed origin is written"


def edited(path: Path, **changed) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_results_of_other_settings_or_of_each_other_are_refused(project):
    run = project.run("hodor-soft-coco")
    for step, name in (
        ("train", "train.json"),
        (f"{VAL}/segment", f"{VAL}/masks.json"),
        (f"{VAL}/score", f"{VAL}/score.json"),
    ):
        present = project.stamps[f"hodor-soft-coco/seed0/{step}"]
        project.stamps[f"hodor-soft-coco/seed0/{step}"] = "0" * 64
        for table in ("ablation", "comparison", "costs"):
            refused_table(project, run / name, f"other settings.*rm -f {run / name}", table)
        make_one(project, "extended")
        shutil.rmtree(OUT)
        project.stamps[f"hodor-soft-coco/seed0/{step}"] = present

    def damaged(name: str, old: bytes, new: bytes, message: str) -> None:
        path = run / name
        content = path.read_bytes()
        path.write_bytes(content.replace(old, new, 1) if old else new)
        assert path.read_bytes() != content
        refused_table(project, path, message)
        path.write_bytes(content)

    of = b'"of": "hodor-soft-coco"'
    damaged("train.json", of, b'"of": "something-better"', "the settings in it are not those of its stamp")
    damaged("model.safetensors", b"", b"other weights", "not the weights that .*train.json records")
    weights = sha256_file(run / "model.safetensors").encode()
    damaged(f"{VAL}/masks.json", weights, b"0" * 64, "not made with")
    damaged(f"{VAL}/masks.json", b'"' + weights + b'"', b"null", "not made with")  # as external masks have it
    damaged(f"{VAL}/global.csv", b"0.", b"0.9", "not the numbers that .*score.json records")
    other = project.run("hodor-soft-cyclic") / VAL
    for name in ("global.csv", "per_object.csv", "per_frame.csv", "score.json"):
        shutil.copy(other / name, run / VAL / name)
    project.stamps[f"hodor-soft-coco/seed0/{VAL}/score"] = json.loads((other / "score.json").read_text())["stamp"]
    refused_table(project, run / VAL / "score.json", "not the scores of the masks")


def test_a_training_that_started_from_other_weights_is_refused(project):
    parent, child = project.run("hodor-soft-coco"), project.run("hodor-soft-cyclic")
    (parent / "model.safetensors").write_bytes(b"new weights")
    edited(parent / "train.json", model=sha256_file(parent / "model.safetensors"))
    project.rows["hodor-soft-coco"]["selected"] = False
    refused_table(
        project, child / "train.json", "did not start from the present .*hodor-soft-coco/seed0/model.safetensors"
    )


def test_a_parent_that_is_no_row_of_the_table_is_checked_too(project):
    project.rows["hodor-soft-coco"]["selected"] = False
    shutil.rmtree(project.run("hodor-soft-coco") / VAL)  # trained, not scored
    make(project)
    shutil.rmtree(OUT)
    train = project.run("hodor-soft-coco") / "train.json"
    digest = project.stamps["hodor-soft-coco/seed0/train"]
    project.stamps["hodor-soft-coco/seed0/train"] = "0" * 64
    refused_table(project, train, "other settings")
    project.stamps["hodor-soft-coco/seed0/train"] = digest
    weights = train.with_name("model.safetensors")
    weights.unlink()
    refused_table(project, weights, "missing", target=weights)


def test_rows_scored_against_different_data_are_refused(project):
    Path("data/tiny/davis.json").write_text('{"other": "data"}')
    folder = project.run("hodor-soft-cyclic") / VAL
    edited(folder / "masks.json", data=sha256_file("data/tiny/davis.json"))
    stamp = json.loads((folder / "score.json").read_text())
    content = stamp["stamp_content"] | {"sha256": stamp["stamp"]}
    score(folder / "masks", Path("data/tiny/davis"), VAL, folder, content)
    refused_table(project, folder / "score.json", "other data than .*hodor-none-coco")


@pytest.mark.parametrize("name", ["train.json", "model.safetensors", f"{VAL}/masks.json", f"{VAL}/score.json"])
def test_a_missing_result_is_no_empty_cell(project, name):
    path = project.run("hodor-soft-coco") / name
    path.unlink()
    refused_table(project, path, "missing", target=path)


def test_a_row_that_was_trained_elsewhere_says_so_until_it_is_trained_again(project):
    run = project.run("hodor-soft-coco")
    record_making(run / IMPORTED, [run / "train.json"])
    for note in ("trained elsewhere: seed 0", ""):
        make_one(project, "ablation")
        lines = pd.read_csv(OUT / "ablation_table.csv", keep_default_na=False).set_index("row")
        assert lines["note"].to_dict() == dict.fromkeys(lines.index, "") | {"hodor-soft-coco": note}
        shown = (OUT / "ablation_table.md").read_text()
        assert shown.count("trained elsewhere") == bool(note), "of our number, not of the paper's"
        edited(run / "train.json", time_s=99.0)
