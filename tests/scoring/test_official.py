"""The adapter of the official toolkit, against a stand-in that has the toolkit's interface, arithmetic and traps."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hodor.cli import main as cli
from hodor.data.images import read_labels, write_labels
from hodor.scoring import official
from hodor.scoring.score import score
from tests.refused import refused

from .conftest import CSVS, VAL, read, read_record

# Scores whole arrays of one-hot masks, as the toolkit does, with the official functions; `trap` is what goes wrong.
EVALUATION = """
import glob, os, sys
import numpy as np
from PIL import Image
from segmetric.metrics import db_eval_boundary, db_eval_iou
from segmetric.utils import db_statistics

TRAP = open(os.path.join(os.path.dirname(__file__), "trap")).read()
CALLS = os.path.join(os.path.dirname(__file__), "calls")


def read(paths):
    return np.stack([np.array(Image.open(path)) for path in paths]).astype(float)


def one_hot(masks, count):
    return masks[None] == np.arange(1, count + 1)[:, None, None, None]


class DAVISEvaluation:
    def __init__(self, davis_root, task="unsupervised", gt_set="val", sequences="all", codalab=False):
        self.root, self.task = davis_root, task
        self.annotations = "Annotations" if task == "semi-supervised" else "Annotations_unsupervised"
        with open(os.path.join(davis_root, "ImageSets", "2017", gt_set + ".txt")) as file:
            self.sequences = [line.strip() for line in file]
        with open(CALLS, "a") as file:
            print(os.getcwd(), file=file)

    def evaluate(self, res_path, metric=("J", "F"), debug=False):
        print("Evaluating sequences for the", self.task, "task...")
        sys.stderr.write("\\r 50%|#####     |\\r100%|##########|\\n")
        for folder in (res_path, "."):
            if glob.glob(os.path.join(folder, "*.csv")):
                print("Using precomputed results...")
                sys.exit()
        found = {m: {"M": [], "R": [], "D": [], "M_per_object": {}} for m in metric}
        for name in self.sequences:
            paths = sorted(glob.glob(os.path.join(self.root, self.annotations, "480p", name, "*.png")))
            truth = read(paths)
            truth[truth == 255] = 0
            count = int(truth[0].max())
            truth = one_hot(truth, count)[:, 1:-1]
            masks = read([os.path.join(res_path, name, os.path.basename(path)) for path in paths[1:-1]])
            if masks.max() > count or TRAP == "fatal":
                sys.stdout.write("In your PNG files there is an index higher than the number of objects!")
                sys.exit()
            for k, (mask, wanted) in enumerate(zip(one_hot(masks, count), truth)):
                if TRAP == "missing" and (name, k) == ("walk", 1):
                    continue
                for m, function in (("J", db_eval_iou), ("F", db_eval_boundary)):
                    with np.errstate(invalid="ignore"):
                        mean, recall, decay = db_statistics(function(wanted, mask))
                    for which, value in zip("MRD", (mean, recall, decay)):
                        if TRAP.startswith(f"{m} {name}_{k + 1} {which} "):
                            value += float(TRAP.split()[3])
                        found[m][which].append(value)
                    found[m]["M_per_object"][f"{name}_{k + 1}"] = found[m]["M"][-1]
        if TRAP == "extra":
            for m in metric:
                for key in "MRD":
                    found[m][key].append(0.5)
                found[m]["M_per_object"]["swim_1"] = 0.5
        if TRAP == "status":
            os._exit(3)
        if TRAP == "killed":
            os.kill(os.getpid(), 9)
        with open(os.path.join(res_path, "global_results-val.csv"), "w") as file:  # rounded, as the toolkit's are
            file.write("J&F-Mean\\n%.3f\\n" % ((np.mean(found["J"]["M"]) + np.mean(found["F"]["M"])) / 2))
        return found
"""


@pytest.fixture
def toolkit(tmp_path, monkeypatch, with_toolkit):
    """Installs the stand-in; the function given sets its trap. Returns the folder of its package."""
    package = tmp_path / "site" / "davis2017"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "evaluation.py").write_text(EVALUATION)
    monkeypatch.syspath_prepend(package.parent)

    def install(trap: str = "") -> Path:
        (package / "trap").write_text(trap)
        return package

    install()
    return install


@pytest.fixture
def rough_tree(make_tree):
    """A tree whose masks are of every kind that a protocol may stumble on."""
    rng = np.random.default_rng(0)
    tree = make_tree({"walk": (8, 3), "run": (5, 1), "hop": (7, 4), "stay": (9, 2)})
    for name, frames in (("walk", 8), ("run", 5), ("hop", 7), ("stay", 9)):
        for frame in range(frames):
            truth, mask = read_labels(tree.truth_path(name, frame)), read_labels(tree.pred_path(name, frame))
            mask[rng.random(mask.shape) < 0.02] = 0
            if name == "walk":
                mask[mask == 3] = 0  # fewer objects than the truth has
            if name == "hop" and frame > 2:
                truth[truth == 2] = 0  # vanishes, while the prediction goes on
                mask[mask == 4] = 0  # the other way round
                truth[truth == 1] = mask[mask == 1] = 0  # from both: 1
            if name == "stay":
                truth[:12, 50:] = 255
                if frame > 3:
                    truth[40:, :9] = 7  # an object that is absent on the first frame
            write_labels(tree.truth_path(name, frame), truth)
            write_labels(tree.pred_path(name, frame), mask)
    return tree


def test_the_same_numbers_to_the_last_bit_and_which_toolkit_gave_them(rough_tree, tmp_path, toolkit, monkeypatch):
    monkeypatch.setattr(official.metadata, "packages_distributions", dict)  # where the toolkit itself is installed too
    score(rough_tree.pred, rough_tree.root, VAL, tmp_path / "alone", official=False)
    assert not (toolkit() / "calls").exists()
    score(rough_tree.pred, rough_tree.root, VAL, tmp_path / "both", official=True)
    assert (toolkit() / "calls").read_text().count("\n") == 1
    for name in CSVS:
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    values = {float(row[column]) for row in read(tmp_path / "both" / "per_object.csv") for column in list(row)[1:]}
    assert len(values) > 30, "these masks test little"
    found = read_record(tmp_path / "both")
    assert found["official"]["largest_difference"] == 0
    assert (found["official"]["package"], found["official"]["commit"]) == ("davis2017", None)
    assert len(found["official"]["code"]) == 64
    assert found["metric"].startswith("official DAVIS toolkit (davis2017 unknown, commit unknown, code ")
    alone = read_record(tmp_path / "alone")
    assert alone["official"] is None and "the official toolkit itself was not used" in alone["metric"]


def test_version_and_commit_are_those_that_the_installer_recorded(tree, tmp_path, toolkit):
    info = toolkit().parent / "davis2017-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: davis2017\nVersion: 0.0.0\n")
    (info / "top_level.txt").write_text("davis2017\n")
    (info / "direct_url.json").write_text(json.dumps({"url": "x", "vcs_info": {"vcs": "git", "commit_id": "ac7c43f0"}}))
    score(tree.pred, tree.root, VAL, tmp_path / "out", official=True)
    found = read_record(tmp_path / "out")
    assert (found["official"]["version"], found["official"]["commit"]) == ("0.0.0", "ac7c43f0")
    assert "davis2017 0.0.0, commit ac7c43f0" in found["metric"]


def test_it_works_in_a_fresh_folder_and_leaves_the_masks_alone(tree, tmp_path, toolkit, monkeypatch):
    """Old results beside the masks or in the working directory end the toolkit; new ones must not appear there."""
    for folder in (tree.pred, tmp_path / "here"):
        folder.mkdir(exist_ok=True)
        (folder / "global_results-val.csv").write_text("J&F-Mean\n0.999\n")
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    score(tree.pred, tree.root, VAL, tmp_path / "out", official=True)
    calls = (toolkit() / "calls").read_text().split()
    assert not Path(calls[0]).exists(), "the folder is gone"
    after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} - set(before)
    assert {path.name for path in after} == {"out", "calls", "score.json", *CSVS}
    (overall,) = read(tmp_path / "out" / "global.csv")
    assert float(overall["J&F-Mean"]) == pytest.approx((9 / 11 + 1) / 2, abs=1e-12), "neither old nor rounded"


def test_relative_paths(tree, tmp_path, toolkit, monkeypatch):
    monkeypatch.chdir(tree.root / "DAVIS")
    score(Path("../../row/masks"), Path("."), VAL, tmp_path / "out", official=True)
    assert read_record(tmp_path / "out")["official"]["largest_difference"] == 0


@pytest.mark.parametrize(
    ("trap", "message"),
    [
        ("fatal", r"ended without scores \(exit status 0\).*index higher than the number"),
        ("status", r"ended without scores \(exit status 3\)"),
        ("killed", r"was killed .*out of memory.*--no-official"),
        ("missing", r"left out 1 object\(s\), walk_2 first"),
        ("extra", r"added 1 object\(s\), swim_1 first"),
        ("J walk_2 M 2e-9", "J-Mean of walk_2 is .* by the official DAVIS toolkit and .* by hodor"),
        ("F run_1 R -2e-9", "F-Recall of run_1 is"),
        ("J run_1 D 1e-3", "J-Decay of run_1 is"),
        ("F walk_1 M nan", "F-Mean of walk_1 is nan by"),
    ],
)
def test_a_toolkit_that_fails_or_disagrees_ends_the_step_without_numbers(tree, tmp_path, toolkit, trap, message):
    out = tmp_path / "out"
    score(tree.pred, tree.root, VAL, out, official=False)
    toolkit(trap)
    refused(message, score, tree.pred, tree.root, VAL, out)
    assert list(out.iterdir()) == []


def test_within_the_tolerance_the_number_of_record_is_the_toolkits(tree, tmp_path, toolkit):
    score(tree.pred, tree.root, VAL, tmp_path / "ours", official=False)
    toolkit("J walk_2 M 5e-10")
    score(tree.pred, tree.root, VAL, tmp_path / "out")
    ours, found = (read(tmp_path / name / "per_object.csv")[1] for name in ("ours", "out"))
    assert float(found["J-Mean"]) - float(ours["J-Mean"]) == pytest.approx(5e-10, rel=1e-4)
    (ours,), (found,) = (read(tmp_path / name / "global.csv") for name in ("ours", "out"))
    assert float(found["J-Mean"]) - float(ours["J-Mean"]) == pytest.approx(5e-10 / 3, rel=1e-4)
    assert read_record(tmp_path / "out")["official"]["largest_difference"] == pytest.approx(5e-10, rel=1e-4)


def test_above_255_frames_the_decay_is_ours(make_tree, tmp_path, toolkit):
    tree = make_tree({"walk": (260, 1), "run": (5, 1)})
    for frame in range(100):
        write_labels(tree.pred_path("walk", frame), read_labels(tree.truth_path("walk", frame)))
    score(tree.pred, tree.root, VAL, tmp_path / "ours", official=False)
    score(tree.pred, tree.root, VAL, tmp_path / "out", official=True)
    assert read_record(tmp_path / "out")["official"]["decay_of_hodor"] == ["walk_1"]
    for name in CSVS:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()
    assert float(read(tmp_path / "out" / "per_object.csv")[0]["J-Decay"]) == pytest.approx(2 / 11)


def test_what_cannot_be_demanded(tree, tmp_path, with_toolkit, monkeypatch, capsys):
    monkeypatch.setattr(official, "installed", lambda: False)
    arguments = ["score", "--pred", tree.pred, "--truth", tree.root, "--benchmark", VAL, "--out", tmp_path / "out"]
    assert cli.main([*map(str, arguments), "--official"]) == 1
    assert "not installed; run: pip install '.[official]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(list(map(str, arguments))) == 0
    assert read_record(tmp_path / "out")["official"] is None
    monkeypatch.setattr(official, "installed", lambda: True)
    refused("scores davis2017-val and davis2017-test-dev only", official.use_official, None, True)
    assert not official.use_official("another", None)
    assert official.use_official(VAL, None) and not official.use_official(VAL, False)


def test_the_step_of_the_workflow_finds_it_by_itself(tree, tmp_path, toolkit):
    """As the rule calls it: in another process, with the package on the path and no flag."""
    command = [sys.executable, "-m", "hodor", "score", "--pred", tree.pred, "--truth", tree.root, "--benchmark", VAL]
    root = Path(official.__file__).resolve().parents[2]
    environment = {"PYTHONPATH": f"{toolkit().parent}:{root}", "PATH": "/usr/bin:/bin"}
    subprocess.run([*command, "--out", tmp_path / "out"], check=True, env=environment, cwd=tmp_path)
    assert read_record(tmp_path / "out")["official"]["largest_difference"] == 0
    toolkit("fatal")
    done = subprocess.run(
        [*command, "--out", tmp_path / "out"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "ended without scores (exit status 0)" in done.stderr
    shutil.rmtree(toolkit())
    subprocess.run([*command, "--out", tmp_path / "out"], check=True, env=environment, cwd=tmp_path)
    assert "the official toolkit itself was not used" in read_record(tmp_path / "out")["metric"]


@pytest.mark.skipif(
    not official.installed(), reason="the official toolkit is not installed (pip install '.[official]')"
)
def test_the_toolkit_itself_agrees_on_real_masks(shared_data, tmp_path, with_toolkit):
    reference = shared_data.parent / "reference"
    for source, folder in (
        (shared_data / "davis" / "DAVIS-2017-trainval-480p.zip", "davis"),
        (reference / "osvos_val_masks.zip", "masks"),
    ):
        with zipfile.ZipFile(source) as zipped:
            zipped.extractall(tmp_path / folder)
    score(tmp_path / "masks", tmp_path / "davis", VAL, tmp_path / "out", official=True)
    assert read_record(tmp_path / "out")["official"]["largest_difference"] <= 1e-12
