"""The command line: verbs, stamps, errors in one line."""

import errno
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from hodor import paths
from hodor.cli import main as cli
from hodor.config.execution import Execution
from hodor.config.loading import load
from hodor.errors import HodorError
from hodor.provenance import sha256_json
from hodor.stamps import Stamps

VERBS = ["fetch", "prepare", "train", "segment", "score", "submit", "manifest", "tabulate", "claims", "render"]
VERBS += ["track", "convert", "cost", "doctor", "export", "verify", "import"]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads as Snakemake sets them; what a verb makes of them ends with the test."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        monkeypatch.setenv(name, "64")


@pytest.fixture
def stamp(tmp_path: Path):
    """Writes a stamp; returns its path."""

    def write(step: str, **settings) -> Path:
        path = tmp_path / f"{step}.json"
        path.write_text(json.dumps({"step": step, "scale": "tiny", "settings": settings, "recipes": {}}))
        return path

    return write


@pytest.fixture
def entry(monkeypatch):
    """Replaces the module of a verb by one whose entry function records how it was called, or fails."""

    def replace(module: str, name: str, error: Exception | None = None) -> list[tuple]:
        calls: list[tuple] = []

        def function(*arguments, **_):
            calls.append(arguments)
            if error:
                raise error
            return []  # the files written

        monkeypatch.setitem(sys.modules, f"hodor.{module}", types.SimpleNamespace(**{name: function}))
        return calls

    return replace


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_every_verb_explains_itself(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as end:
            run(verb, "--help")
        assert end.value.code == 0
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["tabulate"], ["train", "--speed", "9"]])
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2 and "usage: hodor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "ROW"),
        (["segment", "hodor-soft-coco"], "error: BENCHMARK missing"),
        (["score"], "error: ROW and BENCHMARK missing"),
        (["score", "--pred", "a"], "--truth missing"),
        (["submit", "--pred", "a", "--truth", "b", "--benchmark", "c"], "--zip"),
        (["train", "hodor-soft-cocos"], "nearest: hodor-soft-coco"),
        (["segment", "hodor-soft-coco", "davis2017-vla"], "'davis2017-vla' is none of davis2017-val, "),
        (["train", "main"], "'main' is none of hodor-none-coco, "),
        (["tabulate", "ablations"], "ablation"),
        (["prepare", "cocos"], "'cocos' is none of coco, "),
        (["train", "hodor-soft-coco", "--scale", "minni"], "is none of mini"),
    ],
)
def test_a_missing_or_unknown_name_is_one_line(here, arguments, expected, capsys):
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


@pytest.fixture
def here(root, tmp_path, monkeypatch) -> Path:
    """A working directory with the configuration and empty data folders of scale tiny."""
    shutil.copytree(root / "config", tmp_path / "config")
    shutil.copy(root / "CITATION.cff", tmp_path)
    for dataset in ("coco", "davis"):
        (tmp_path / paths.dataset("tiny", dataset)).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


STEPS = [
    ("prepare coco", "prepare-coco", "data.prepare.prepare"),
    ("train hodor-soft-coco --seed 3", "train-hodor-soft-coco-seed3", "training.trainer.train"),
    (
        "segment hodor-soft-coco davis2017-val",
        "segment-hodor-soft-coco-seed0-davis2017-val",
        "inference.segment.segment",
    ),
    ("score hodor-soft-coco davis2017-val", "score-davis2017-val", "scoring.score.score"),
    ("tabulate ablation", "tabulate-ablation", "reporting.tables.tabulate"),
    ("claims", "claims", "reporting.claims.claims"),
    ("render", "render", "reporting.site.render"),
]


@pytest.mark.parametrize(("command", "name", "function"), STEPS)
def test_a_step_resolves_the_settings_that_the_workflow_uses(here, entry, command, name, function):
    calls = entry(*function.rsplit(".", 1))
    arguments = command.split()
    seeds = [3] if "3" in arguments else [0]
    stamps = Stamps(load(here / "config", {"scale": "tiny", "seeds": seeds}), here)
    stamps.write()
    assert run(*arguments, "--scale", "tiny") == 0
    assert run(*arguments, "--stamp", stamps.path(name)) == 0
    assert calls[0] == calls[1]
    stamp = next(argument for argument in calls[0] if isinstance(argument, dict))
    assert stamp["sha256"] == sha256_json(stamps.contents[name])


def test_files_are_those_of_the_workflow(here, entry):
    train, segment = entry("training.trainer", "train"), entry("inference.segment", "segment")
    score, prepare = entry("scoring.score", "score"), entry("data.prepare", "prepare")
    run("train", "hodor-soft-coco", "--seed", 2, "--scale", "tiny")
    run("segment", "hodor-soft-coco", "davis2017-val", "--scale", "tiny")
    run("score", "hodor-soft-coco", "davis2017-val", "--scale", "tiny", "--jobs", 2)
    run("prepare", "coco", "--scale", "tiny")
    for dataset in ("youtube-vos", "davis"):
        paths.dataset("tiny", dataset).mkdir(exist_ok=True)
    run("train", "hodor-soft-cyclic", "--seed", 1, "--scale", "tiny")
    run("train", "hodor-soft-cyclic", "--scale", "tiny", "--init", "w", "--out", "o", "--data", "data/tiny")
    folder = paths.run("tiny", "hodor-soft-coco", 0)
    assert train[0][1:4] == (paths.data("tiny"), paths.run("tiny", "hodor-soft-coco", 2), None)
    # From the weights of the parent, unless others are given.
    assert train[1][3] == paths.run("tiny", "hodor-soft-coco", 1) / "model.safetensors"
    assert train[2][1:4] == (Path("data/tiny"), Path("o"), Path("w"))
    at = folder / "davis2017-val"
    assert segment[0][1:] == (folder / "model.safetensors", paths.data("tiny"), at)
    assert score[0][:4] == (at / "masks", paths.dataset("tiny", "davis"), "davis2017-val", at) and score[0][6] == 2
    assert prepare[0][1:] == (
        paths.archives("tiny", "coco"),
        paths.dataset("tiny", "coco"),
        paths.manifest("tiny", "coco"),
    )


def test_fetch_gets_the_mirror_from_the_environment(here, stamp, entry, monkeypatch):
    calls = entry("data.fetch", "fetch")
    path = stamp("fetch", dataset="davis", edition="official")
    monkeypatch.setenv("HODOR_MIRROR", "/mirror")
    assert run("fetch", "davis", "--stamp", path) == 0
    monkeypatch.setenv("HODOR_MIRROR", "")
    assert run("fetch", "davis", "--stamp", path) == 0
    (first, out, lock), (second, _, _) = calls
    assert first["settings"] == {"dataset": "davis", "edition": "official", "mirror": "/mirror"}
    assert out == paths.archives("tiny", "davis") and lock == Path("config/locks/official.json")
    assert second["settings"]["mirror"] is None
    # The digest is that of the file, which knows no mirror.
    assert first["sha256"] == second["sha256"] == sha256_json(json.loads(path.read_text()))
    assert run("fetch", "davis", "--stamp", stamp("fetch", dataset="davis", edition="generated")) == 0
    assert calls[2][2] is None, "generated archives need no lock"


def test_results_of_others_are_not_replaced(here, entry, capsys):
    calls = [entry("training.trainer", "train"), entry("data.prepare", "prepare")]
    (here / "out").mkdir()
    other = here / "out" / "train.json"
    other.write_text('{"stamp": "of another row"}')
    (here / "out.json").write_text('{"dataset": "coco"}')
    train = ("train", "hodor-soft-coco", "--scale", "tiny")
    for arguments, message in (
        ((*train, "--out", "out"), "out/train.json: of another training"),
        ((*train, "--init", "w"), "--init: row hodor-soft-coco starts from no other"),
        (("prepare", "davis", "--scale", "tiny", "--out", "out"), "out: exists"),
        (("prepare", "davis", "--scale", "tiny", "--out", "new", "--manifest", "out.json"), "out.json: exists"),
        (("score", "--pred", "p", "--truth", "t", "--jobs", "0"), "--jobs 0: must be 1 or more"),
    ):
        assert run(*arguments) == 1 and message in capsys.readouterr().err
    assert calls == [[], []]
    assert run("prepare", "coco", "--scale", "tiny", "--out", "out") == 0  # which it made


def test_a_closed_pipe_ends_a_verb_quietly(root):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hodor", "cost", "--scale", "tiny", "--rows", "copy-first-mask"]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, cwd=root, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141 and "rror" not in done.stderr


def test_train_sets_the_threads_of_its_stamp(here, stamp, entry):
    calls = entry("training.trainer", "train")
    path = stamp("train", datasets=["coco"], threads=3)
    assert run("train", "r", "--stamp", path) == 0
    assert run("train", "r", "--stamp", path, "--micro-batch", "2", "--compile") == 0
    assert calls[0][4] == Execution() and calls[1][4] == Execution(micro_batch=2, compile=True)
    assert run("train", "r", "--stamp", path, "--micro-batch", "0") == 1
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_gpus_are_taken_before_torch_looks_for_one(here, device, stamp, entry, monkeypatch):
    entry("training.trainer", "train")
    entry("inference.segment", "segment")
    taken = entry("gpus", "take")
    train = "train", "r", "--stamp", stamp("train", datasets=["coco"], threads=1, device=device)
    assert run(*train) == 0
    path = stamp("segment", benchmark={"id": "b", "dataset": "coco"}, threads=1, device=device)
    assert run("segment", "r", "b", "--stamp", path) == 0
    # The launcher takes those of its workers, which inherit the choice.
    launched = entry("training.distributed", "launch")
    with pytest.raises(SystemExit):
        run(*train, "--processes", 3)
    assert taken == ([(1,), (1,), (3,)] if device == "cuda" else []) and launched[0][0] == 3
    ended = entry("training.distributed", "end_with_launcher")
    monkeypatch.setenv("RANK", "0")
    assert run(*train, "--processes", 3) == 0 and len(ended) == 1 and len(launched) == 1
    assert len(taken) == (3 if device == "cuda" else 0)


@pytest.mark.parametrize("verb", ["train", "segment", "score"])
def test_a_missing_data_set_is_named_with_the_fix(here, verb, stamp, capsys):
    path = stamp(verb, datasets=["davis"], benchmark={"id": "davis2017-val", "dataset": "davis"}, threads=1)
    paths.dataset("tiny", "davis").rmdir()
    assert run(verb, "r", *["davis2017-val"] * (verb != "train"), "--stamp", path) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"hodor {verb}: error: data/tiny/davis: ") and error.count("\n") == 1
    assert "snakemake --cores 1 --force -- data/tiny/davis.json" in error


def test_score_of_masks_of_any_origin(entry, tmp_path):
    calls = entry("scoring.score", "score")
    flags = ["--pred", "p", "--truth", tmp_path, "--benchmark", "davis2017-val", "--out", "o"]
    for more in ([], ["--official"], ["--no-official", "--jobs", 2]):
        assert run("score", *flags, *more) == 0
    assert calls[0] == (Path("p"), tmp_path, "davis2017-val", Path("o"), None, None, None)
    assert [call[5:] for call in calls] == [(None, None), (True, None), (False, 2)]


def test_released_weights_are_converted_by_train(here, entry, capsys):
    calls = entry("models.checkpoints.load", "import_release")
    assert run("train", "stcn-released", "--scale", "tiny") == 1
    assert "stcn_s0.pth" in capsys.readouterr().err
    paths.weights().mkdir(parents=True)
    (paths.weights() / "stcn_s0.pth").touch()
    assert run("train", "stcn-released", "--scale", "tiny") == 0
    assert calls[0][1:] == (paths.weights() / "stcn_s0.pth", paths.run("tiny", "stcn-released", 0))


NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "results/table.csv")


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (HodorError("runs/x: broken; make it again"), 1, "error: runs/x: broken; make it again"),
        (NO_SPACE, 1, "error: results/table.csv: No space left on device; free space"),
        (
            ModuleNotFoundError(name="cv2.dnn"),
            1,
            "error: Python module cv2.dnn is not installed; run pip install",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError(name="hodor.x"), None, ""),
        (ZeroDivisionError(), None, ""),
    ],
)
def test_an_expected_error_is_one_line_and_any_other_keeps_its_traceback(stamp, entry, capsys, error, status, expected):
    entry("reporting.tables", "tabulate", error)
    if status is None:
        with pytest.raises(type(error)):
            run("tabulate", "ablation", "--stamp", stamp("tabulate"))
        return
    assert run("tabulate", "ablation", "--stamp", stamp("tabulate")) == status
    text = capsys.readouterr().err
    assert text.startswith(f"hodor tabulate: {expected}") and text.count("\n") == 1
    assert run("tabulate", "ablation", "--stamp", stamp("render")) == 1
    assert "is a stamp of the step render" in capsys.readouterr().err


def test_a_file_where_a_folder_is_wanted_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "masks").mkdir()
    common = ["--pred", str(tmp_path / "masks"), "--truth", "t", "--benchmark", "davis2017-val"]
    for out in ("file", "file/out"):
        assert run("score", *common, "--out", str(tmp_path / out)) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"hodor score: error: {tmp_path / out}/") and error.count("\n") == 1
    assert run("submit", *common, "--zip", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith(f"hodor submit: error: {tmp_path}: Is a directory; ")


def test_as_a_module(root):
    command = [sys.executable, "-m", "hodor", "--version"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hodor 0.")
