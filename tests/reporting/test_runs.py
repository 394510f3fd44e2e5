"""Reading run folders: resumed logs, broken files, the manifest."""

import json

import pytest

from hodor.provenance import write_manifest
from hodor.reporting.runs import read_log, read_run
from tests.refused import refused

VAL = "davis2017-val"


def test_a_run_as_a_dataclass(project):
    run = read_run(project.run("hodor-soft-coco"))
    assert (run.row, run.seed) == ("hodor-soft-coco", 0)
    assert run.train["parameters"] == 123456
    assert [line["step"] for line in run.log] == list(range(20, 220, 20))
    assert run.log[-1]["alpha"][1] == [32.5, 16.5, 8.5, 4.5]
    prediction = run.predictions[VAL]
    assert set(prediction.objects.index) == {"walk_1", "walk_2", "run_1", "swim_1"}
    assert prediction.overall["J-Mean"] == pytest.approx(prediction.objects["J-Mean"].mean())
    frames = prediction.frames()
    assert len(frames) == 2 * 4 + 3 + 3 and set(frames["frame"]) == {f"{frame:05d}" for frame in range(1, 5)}
    walk = frames[(frames["sequence"] == "walk") & (frames["object"] == "2")]
    assert walk["J"].mean() == pytest.approx(prediction.objects.loc["walk_2", "J-Mean"])
    two = prediction.objects.loc[["walk_1", "walk_2"], ["J-Mean", "F-Mean"]]
    scores = prediction.sequence_scores()
    assert set(scores.index) == {"walk", "run", "swim"}
    assert scores["walk"] == pytest.approx(100 * two.to_numpy().mean())


def test_a_log_after_a_kill_and_a_resume(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [{"event": "start"}, *({"step": 10 * k, "loss": loss} for k, loss in enumerate((3.0, 2.0, 9.0), 1))]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 40, "lo'
    path.write_text(text + "\n" + '{"step": 30, "loss": 1.5}\n{"step": 40, "loss": 1.0}\n')
    found = [(line["step"], line["loss"]) for line in read_log(path)]
    assert found == [(10, 3.0), (20, 2.0), (30, 1.5), (40, 1.0)]
    assert read_log(tmp_path / "absent.jsonl") == []


def test_the_manifest_holds_what_a_reader_needs_to_repeat_the_run(project):
    folder = project.run("hodor-soft-cyclic")
    write_manifest(folder, "hodor-soft-cyclic", 0)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["row"], manifest["scale"], manifest["seed"]) == ("hodor-soft-cyclic", "tiny", 0)
    assert manifest["config"]["train"]["settings"] == {"of": "hodor-soft-cyclic"}
    assert manifest["config"][f"{VAL}/score"]["step"] == "score"
    parent = read_run(project.run("hodor-soft-coco"))
    assert manifest["data"]["init"] == parent.train["model"]
    assert manifest["data"][f"truth of {VAL}"] == parent.predictions[VAL].score["truth"]
    assert manifest["steps"]["train"]["time_s"] == 12.5
    assert set(manifest["steps"]) == {"train", f"{VAL}/segment", f"{VAL}/score"}
    assert all(step["peak_memory_mib"] > 0 and step["machine"] for step in manifest["steps"].values())
    assert (manifest["commit"], manifest["machine"]["processor"]) == ("abc123", "Abacus 9")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("train.json", None, "no such file"),
        ("train.json", "{", "not valid JSON"),
        (f"{VAL}/global.csv", None, "run the step score again"),
        (f"{VAL}/global.csv", "J&F-Mean,J-Mean,F-Mean\n", "0 lines of numbers"),
        (f"{VAL}/global.csv", "J-Mean\n0.5\n", "no column J&F-Mean, F-Mean"),
        (f"{VAL}/per_object.csv", "object,J-Mean,F-Mean\nwalk_1,0.5\n", "not a number"),
        (f"{VAL}/score.json", "[]", "not a JSON object"),
    ],
)
def test_broken_files_are_named(project, name, content, message):
    path = project.run("hodor-soft-coco") / name
    path.unlink() if content is None else path.write_text(content)
    assert str(path) in refused(message, read_run, project.run("hodor-soft-coco"), [VAL])


def test_a_folder_that_is_no_run_folder(project):
    refused("<row>/seed<k>", read_run, project.runs / "hodor-soft-coco")
