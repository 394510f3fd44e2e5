"""The table of released weights: numbers of what is there, the way to get what is not, no number of other weights."""

import csv
import json

import pytest

from hodor.errors import HodorError
from hodor.reporting.published import published_value
from hodor.reporting.released import COLUMNS, SCORED, read_released, released_cells, released_notes, tabulate

VAL = "davis2017-val"


def entry(row: str, here: bool, **changed) -> dict:
    content = {"title": row.upper(), "file": f"{row}.pth", "row": row, "source": "https://example.org/w", "note": ""}
    return content | {"licence": "MIT", "present": here} | changed


@pytest.fixture
def released(project):
    """The project with a released run for hodor-soft-coco; returns a function that makes the table's stamp."""
    project.add("released-images", "soft", tables=["ablation"], shift=1)
    record = project.run("released-images") / "train.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"inputs": {"checkpoint": "ab" * 32}}))

    def stamp(**entries) -> dict:
        entries = entries or {
            "images": entry("hodor-soft-coco", True),
            "stm": entry("stm", False, note="of another training"),
        }
        published = project.settings("comparison")["published"]
        settings = {"table": "released", "entries": entries, "benchmarks": [VAL], "scale": "tiny", "server_scores": []}
        return {"settings": settings | {"stamps": project.stamps, "published": published}}

    return stamp


def test_numbers_of_what_is_there_and_the_way_to_the_rest(released, project):
    tabulate(released(), project.runs, project.folder / "results")
    lines = read_released(project.folder / "results")
    assert [line["id"] for line in lines] == ["images", "stm"] and list(lines[0]) == list(COLUMNS)
    here, absent = lines
    with open(project.run("released-images") / VAL / "global.csv", newline="") as file:
        scores = next(csv.DictReader(file))
    for name in ("J&F", "J", "F"):
        assert float(here[f"released_{name}"]) == pytest.approx(100 * float(scores[f"{name}-Mean"]), abs=1e-4)
        assert absent[f"released_{name}"] == ""
    assert here["status"] == "scored" and here["checkpoint_sha256"] == "ab" * 32 and here["paper_J&F"] == "77.5"
    assert here["manifest"] == "runs/tiny/released-images/seed0/manifest.json"
    assert (project.folder / here["manifest"]).is_file()
    told = "absent: put stm.pth into data/weights/ (from https://example.org/w), or: hodor fetch weights"
    assert absent["status"] == told and absent["scale"] == "tiny"


def test_the_same_results_give_the_same_bytes(released, project):
    out = project.folder / "results"
    tabulate(released(), project.runs, out)
    first = (out / "released_weights.csv").read_bytes()
    tabulate(released(), project.runs, out)
    assert (out / "released_weights.csv").read_bytes() == first


def test_a_table_can_ask_for_the_number_beside_its_own(released, project):
    """Apart from the paper's number and from ours."""
    tabulate(released(), project.runs, project.folder / "results")
    lines = read_released(project.folder / "results")
    cells, notes = released_cells(lines), released_notes(lines)
    number = float(cells["hodor-soft-coco", VAL])
    assert number == float(lines[0]["released_J&F"])
    assert number != published_value(project.settings()["published"], "hodor-soft-coco", VAL)
    assert cells["stm", VAL].startswith("absent: ") and ("kmn", VAL) not in cells
    # A note stands where a number stands: of the absent STM nothing has to be said.
    assert set(notes) <= {"hodor-soft-coco"} and all(notes.values())
    there = [line | {"status": SCORED} for line in lines if line["row"] == "stm"]
    assert released_notes(there) == {"stm": "of another training"}


def test_without_the_table_there_is_no_number(tmp_path):
    assert read_released(tmp_path) == [] and released_cells([]) == released_notes([]) == {}
    (tmp_path / "released_weights.csv").write_text("row,J\n")
    with pytest.raises(HodorError, match="not the columns of this table"):
        read_released(tmp_path)


def test_results_of_other_weights_or_settings_are_refused(released, project):
    out = project.folder / "results"
    weights = project.run("released-images") / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"other weights")
    with pytest.raises(HodorError, match="model.safetensors: not the weights that"):
        tabulate(released(), project.runs, out)
    weights.write_bytes(good)
    project.stamps[f"released-images/seed0/{VAL}/segment"] = "0" * 64
    with pytest.raises(HodorError, match="masks.json: .*other settings or other code"):
        tabulate(released(), project.runs, out)
    assert not (out / "released_weights.csv").exists()


def test_a_missing_result_of_a_checkpoint_that_is_there(released, project):
    (project.run("released-images") / VAL / "score.json").unlink()
    with pytest.raises(HodorError, match="score.json"):
        tabulate(released(), project.runs, project.folder / "results")
