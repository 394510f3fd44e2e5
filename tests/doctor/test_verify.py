"""A run is verified on any disk, each fault with its file and its fix, and imported without being trained again."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from hodor import paths
from hodor.cli.main import main as cli
from hodor.doctor import verify
from hodor.provenance import IMPORTED, sha256_file, sha256_json

from .conftest import ROW
from .test_doctor import flip, flipped, spaced

VAL = "davis2017-val"
RUN = Path("runs/tiny") / ROW / "seed0"


def edit(path: Path, change) -> None:
    """Change a record."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def forge(path: Path, change) -> None:
    """Change the CSV files of a benchmark, and record their digests in score.json."""
    for name in ("per_frame.csv", "per_object.csv", "global.csv"):
        frame = pd.read_csv(path / name, dtype={"frame": str})
        change(name, frame)
        frame.to_csv(path / name, index=False)
    digests = {name: sha256_file(path / name) for name in json.loads((path / "score.json").read_text())["files"]}
    edit(path / "score.json", lambda record: record["files"].update(digests))


def of_other_settings(path: Path) -> None:
    """A training of other settings and another recipe whose records agree with each other."""

    def change(record: dict) -> None:
        record["stamp_content"]["settings"]["stage"]["batch"] = 64
        record["stamp_content"]["recipes"]["train/hodor"] = 0
        record["stamp"] = sha256_json(record["stamp_content"])

    edit(path / "train.json", change)


def better(name: str, frame: pd.DataFrame) -> None:
    """All scores are perfect, and their means agree."""
    for column in frame.columns.difference(["sequence", "object", "frame"]):
        frame[column] = 0.0 if "Decay" in column else 1.0


def better_mean(name: str, frame: pd.DataFrame) -> None:
    if name == "global.csv":
        frame["J&F-Mean"] = 0.99


# Fault -> damage, the place in `workplace` that it is done to, and the line that reports it.
FAULTS = {
    "weights": (flipped("model.safetensors"), "run", "model.safetensors: not the weights that .*train.json records"),
    "log": (flipped("train.jsonl"), "run", "train.jsonl: not the training log"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "run", "model.safetensors: missing"),
    "folder for weights": (
        lambda path: ((path / "model.safetensors").unlink(), (path / "model.safetensors").mkdir()),
        "run",
        "model.safetensors: missing",
    ),
    "no log": (lambda path: (path / "train.jsonl").unlink(), "run", "train.jsonl: missing"),
    "no scores": (lambda path: (path / "score.json").unlink(), "prediction", f"{VAL}/score.json: missing"),
    "weights to start from": (
        lambda path: edit(path / "train.json", lambda record: record["inputs"].update(init="0")),
        "run",
        "train.json: training started from weights, but its row starts from no other",
    ),
    "record cut": (lambda path: (path / "train.json").write_text("{"), "run", "train.json: not valid JSON"),
    "record of another shape": (
        lambda path: edit(path / "masks.json", lambda record: record.update(masks=3)),
        "prediction",
        "seed0: its records are not of the workflow",
    ),
    "mask": (flip, "mask", r"\.png: not the mask that .*masks.json records"),
    "mask gone": (Path.unlink, "mask", r"\.png: missing, but .*masks.json lists it"),
    "no masks": (lambda path: shutil.rmtree(path / "masks"), "prediction", f"{VAL}/masks: missing"),
    "list of masks": (
        lambda path: spaced(path / "masks.json"),
        "prediction",
        "score.json: not the scores of the masks",
    ),
    "settings and recipe": (
        of_other_settings,
        "run",
        "train.json: not the settings of scale tiny: recipes.train/hodor is 0, here 1, "
        "settings.stage.batch is 64, here 2",
    ),
    "settings shown": (
        lambda path: edit(path / "segment.json", lambda record: record["stamp_content"].update(seed=3)),
        "prediction",
        "segment.json: the settings in it are not those of its stamp",
    ),
    "another row": (
        lambda path: path.parent.rename(path.parent.with_name("stm")),
        "run",
        "train.json: not the settings",
    ),
    "scores": (lambda path: forge(path, better), "prediction", "per_frame.csv: not the scores of the masks"),
    "means": (lambda path: forge(path, better_mean), "prediction", "global.csv: not the means"),
    "ground truth": (lambda path: spaced(path / "../davis.json"), "dataset", "score.json: scored on other data than"),
    "training data": (lambda path: spaced(path / "../coco.json"), "dataset", "train.json: trained on other data than"),
}


def call(capsys, *arguments: object) -> tuple[int, list[str]]:
    """Status and printed lines of a verb, without the summary."""
    status = cli([*map(str, arguments)])
    return status, capsys.readouterr().out.splitlines()


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    return workplace


@pytest.fixture
def elsewhere(tmp_path_factory, root, monkeypatch) -> Path:
    """An empty working directory with the repository's configuration."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "config").symlink_to(root / "config")
    monkeypatch.chdir(folder)
    return folder


def test_a_run_is_verified_where_its_data_are_and_from_anywhere(workplace, monkeypatch, tmp_path_factory, capsys):
    monkeypatch.chdir(workplace.folder)
    status, lines = call(capsys, "verify", RUN, RUN.parents[1] / "copy-first-mask" / "seed0")
    assert status == 0 and sum("re-scored 2 of 2 sequences" in line for line in lines) == 2
    assert lines[1] == f"{RUN}: verified"
    monkeypatch.chdir(tmp_path_factory.mktemp("anywhere"))
    assert call(capsys, "verify", workplace.run) == (
        0,
        [f"{workplace.prediction}: not re-scored: no data here", f"{workplace.run}: verified"],
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_its_file_and_fix(here, capsys, fault):
    damage, place, expected = FAULTS[fault]
    damage(getattr(here, place))
    (run,) = Path("runs/tiny").glob("[hs]*/seed0")
    status, lines = call(capsys, "verify", run)
    lines = [line for line in lines if "re-scored" not in line]
    if fault == "another row":  # its masks and scores are not those of that row either
        lines = lines[:1]
    (line,) = lines
    assert status == 1 and line.startswith(f"{run.parent}/") and re.match(rf"\S*{expected}.*; [a-z]", line)


def test_imported_runs_are_copies_that_nothing_makes_again(finished, elsewhere, capsys):
    child, parent = (finished.path / "runs/tiny" / row / "seed0" for row in ("hodor-soft-cyclic", ROW))
    status = cli(["import", str(child)])
    assert (
        status == 1
        and f"tiny/{ROW}/seed0/model.safetensors: not the weights" in capsys.readouterr().err
        and not Path("runs").exists()
    )
    assert cli(["import", str(child), str(parent)]) == 0
    for run in (child, parent):
        copy = paths.run("tiny", run.parent.name, 0)
        files = {path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name[0] != "."}
        assert {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()} == files | {Path(IMPORTED)}
        manifest = json.loads((copy / "manifest.json").read_text())
        assert manifest.pop("imported") == json.loads((copy / IMPORTED).read_text())
        assert manifest == json.loads((run / "manifest.json").read_text())
        assert all((run / of).read_bytes() == (copy / of).read_bytes() for of in files - {Path("manifest.json")})
    # For Snakemake only the manifest, an input of the tables, is newer than any other file.
    times = {path: path.stat().st_mtime for path in Path("runs").rglob("*") if path.is_file()}
    old = {
        row: {times[path] for path in times if row in path.parts and path.stem not in ("manifest", "imported")}
        for row in (ROW, "hodor-soft-cyclic")
    }
    assert [len(of) for of in old.values()] == [1, 1] and max(old[ROW]) <= max(old["hodor-soft-cyclic"])
    assert times[copy / "manifest.json"] > (parent / "manifest.json").stat().st_mtime
    assert not list(Path("runs").glob("tiny/*/.*")), "nothing is left over"
    capsys.readouterr()
    status, lines = call(capsys, "import", parent)
    assert status == 0 and lines[-1] == f"{copy}: is this run already"
    assert {path: path.stat().st_mtime for path in times} == times


def test_another_run_is_replaced_with_force_alone_and_kept_when_the_disk_is_full(
    workplace, elsewhere, capsys, monkeypatch
):
    (RUN / "checkpoints").mkdir(parents=True)
    unfinished = RUN / "checkpoints" / "step-3"
    unfinished.write_text("days of work")
    assert cli(["import", str(workplace.run)]) == 1 and "--force" in capsys.readouterr().err

    def full(source, target, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        assert cli(["import", str(workplace.run), "--force"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line and "free space" in line
    assert unfinished.read_text() == "days of work" and os.listdir(RUN.parent) == ["seed0"]

    flip(workplace.run / "model.safetensors")
    assert cli(["import", str(workplace.run), "--force"]) == 1 and unfinished.exists(), "a faulty run replaces none"
    flip(workplace.run / "model.safetensors")

    def damaged(source, target, copy=shutil.copyfile, **_):
        copy(source, target)
        if Path(target).name == "train.jsonl":
            flip(Path(target))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", damaged)
        assert cli(["import", str(workplace.run), "--force"]) == 1 and unfinished.exists()
    assert "train.jsonl: not the training log" in capsys.readouterr().err
    assert cli(["import", str(workplace.run), "--force"]) == 0
    assert not unfinished.exists() and (RUN / "train.json").is_file() and os.listdir(RUN.parent) == ["seed0"]


def test_a_sample_ends_after_whole_sequences(here, monkeypatch, capsys):
    monkeypatch.setattr(verify, "SAMPLE", 1)
    first = call(capsys, "verify", RUN)
    assert "re-scored 1 of 2 sequences" in first[1][0] and call(capsys, "verify", RUN) == first


def test_external_masks_are_verified_and_not_imported(here, capsys):
    """As of a run without training, of a row that is not here."""
    for name in ("train.json", "train.jsonl", "model.safetensors"):
        (here.run / name).unlink()
    edit(here.prediction / "masks.json", lambda record: record.update(weights=None))
    edit(here.prediction / "score.json", lambda r: r.update(masks=sha256_file(here.prediction / "masks.json")))
    masks = {"masks": {VAL: "external/masks"}, "label": "theirs", "tables": ["extended"], "source": "s", "licence": "l"}
    with open("config/rows.yaml", "a") as file:
        file.write(f"\n  theirs: {json.dumps(masks | {'edition': 'generated'})}\n")
    run = here.run.parent.rename(here.run.parent.with_name("theirs")) / "seed0"
    assert cli(["verify", str(run)]) == 0
    assert cli(["import", str(run)]) == 1 and "external masks" in capsys.readouterr().err
