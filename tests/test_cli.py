"""The command line: verbs, stamps, errors in one line."""

import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from hodor.cli import main as cli
from hodor.config.execution import Execution
from hodor.errors import HodorError
from hodor.provenance import sha256_json

VERBS = ["fetch", "prepare", "pack", "train", "segment", "score", "submit", "manifest", "tabulate", "claims", "render"]
VERBS += ["released", "track"]


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

        def function(*arguments):
            calls.append(arguments)
            if error:
                raise error

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


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["score", "--pred", "a"]])
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2 and "usage: hodor" in capsys.readouterr().err


def test_fetch_gets_the_mirror_from_the_environment(stamp, entry, monkeypatch, tmp_path):
    calls = entry("data.fetch", "fetch")
    path = stamp("fetch", dataset="davis", edition="official")
    monkeypatch.setenv("HODOR_MIRROR", "/mirror")
    assert run("fetch", "--stamp", path, "--out", tmp_path / "out") == 0
    monkeypatch.setenv("HODOR_MIRROR", "")
    assert run("fetch", "--stamp", path, "--out", tmp_path / "out") == 0
    (first, out, lock), (second, _, _) = calls
    assert first["settings"] == {"dataset": "davis", "edition": "official", "mirror": "/mirror"}
    assert out == tmp_path / "out" and lock == Path("config/locks/official.json")
    assert second["settings"]["mirror"] is None
    # The digest is that of the file, which knows no mirror.
    assert first["sha256"] == second["sha256"] == sha256_json(json.loads(path.read_text()))
    calls.clear()
    assert run("fetch", "--stamp", stamp("fetch", dataset="davis", edition="generated"), "--out", tmp_path) == 0
    assert calls[0][2] is None, "what is generated needs no lock"
    assert run("fetch", "--stamp", path) == 1


def test_prepare(stamp, entry, tmp_path):
    calls = entry("data.prepare", "prepare")
    assert run("prepare", "--stamp", stamp("prepare"), "--archives", "a", "--out", "o", "--manifest", "m") == 0
    assert calls[0][1:] == (Path("a"), Path("o"), Path("m"))


def test_train_sets_the_threads_of_its_stamp(stamp, entry, tmp_path):
    calls = entry("training.trainer", "train")
    (tmp_path / "coco").mkdir()
    path = stamp("train", datasets=["coco"], threads=3)
    assert run("train", "--stamp", path, "--data", tmp_path, "--out", "o", "--init", "w") == 0
    assert run("train", "--stamp", path, "--data", tmp_path, "--out", "o", "--micro-batch", "2", "--compile") == 0
    assert calls[0][1:4] == (tmp_path, Path("o"), Path("w")) and calls[1][3] is None
    assert calls[0][4] == Execution() and calls[1][4] == Execution(micro_batch=2, compile=True)
    assert run("train", "--stamp", path, "--data", tmp_path, "--out", "o", "--micro-batch", "0") == 1
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_gpu_is_taken_before_torch_looks_for_one(device, stamp, entry, tmp_path):
    entry("training.trainer", "train")
    entry("inference.segment", "segment")
    taken = entry("gpus", "take")
    (tmp_path / "coco").mkdir()
    flags = ["--data", tmp_path, "--out", "o"]
    path = stamp("train", datasets=["coco"], threads=1, device=device)
    assert run("train", "--stamp", path, *flags) == 0
    path = stamp("segment", benchmark={"dataset": "coco"}, threads=1, device=device)
    assert run("segment", "--stamp", path, "--weights", "w", *flags) == 0
    assert len(taken) == (2 if device == "cuda" else 0)


@pytest.mark.parametrize("verb", ["train", "segment", "score"])
def test_a_missing_data_set_is_named_with_the_mend(verb, stamp, tmp_path, capsys):
    path = stamp(verb, datasets=["davis"], benchmark={"id": "davis2017-val", "dataset": "davis"}, threads=1)
    flags = {
        "train": ["--data", tmp_path, "--out", "o"],
        "segment": ["--weights", "w", "--data", tmp_path, "--out", "o"],
        "score": ["--pred", "p", "--truth", tmp_path / "davis", "--benchmark", "davis2017-val", "--out", "o"],
    }
    assert run(verb, "--stamp", path, *flags[verb]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"hodor {verb}: error: {tmp_path / 'davis'}: ") and error.count("\n") == 1
    assert f"snakemake --cores 1 --force -- {tmp_path / 'davis'}.json" in error


def test_segment(stamp, entry, tmp_path):
    calls = entry("inference.segment", "segment")
    (tmp_path / "davis").mkdir()
    path = stamp("segment", benchmark={"dataset": "davis"}, threads=1)
    assert run("segment", "--stamp", path, "--weights", "w", "--data", tmp_path, "--out", "o") == 0
    assert calls[0][1:] == (Path("w"), tmp_path, Path("o"))


def test_score_works_with_and_without_a_stamp(stamp, entry, tmp_path):
    calls = entry("scoring.score", "score")
    flags = ["--pred", "p", "--truth", tmp_path, "--benchmark", "davis2017-val", "--out", "o"]
    assert run("score", *flags) == 0
    assert run("score", "--stamp", stamp("score"), "--jobs", "2", *flags) == 0
    assert run("score", "--official", *flags) == run("score", "--no-official", *flags) == 0
    assert calls[0] == (Path("p"), tmp_path, "davis2017-val", Path("o"), None, None, None)
    assert calls[1][-1] == 2
    assert [call[5] for call in calls] == [None, None, True, False]


def test_tabulate_claims_and_render(stamp, entry):
    tables, pages = entry("reporting.tables", "tabulate"), entry("reporting.render", "render")
    verdicts = entry("reporting.claims", "claims")
    assert run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o") == 0
    assert run("claims", "--stamp", stamp("claims"), "--runs", "r", "--out", "o") == 0
    flags = ["--results", "t", "--runs", "r", "--data", "d", "--out", "o"]
    assert run("render", "--stamp", stamp("render"), *flags) == 0
    assert tables[0][1:] == verdicts[0][1:] == (Path("r"), Path("o"))
    assert pages[0][1:] == (Path("t"), Path("r"), Path("d"), Path("o"))


def test_an_error_is_one_line_and_status_1(stamp, entry, capsys):
    entry("reporting.tables", "tabulate", HodorError("runs/x: broken; mend it"))
    assert run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o") == 1
    assert capsys.readouterr().err == "hodor tabulate: error: runs/x: broken; mend it\n"


def test_an_unexpected_error_keeps_its_traceback(stamp, entry):
    entry("reporting.tables", "tabulate", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o")


def test_a_full_disk_is_one_line_that_names_the_file(stamp, entry, capsys):
    entry("reporting.tables", "tabulate", OSError(errno.ENOSPC, "No space left on device", "results/table.csv"))
    assert run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o") == 1
    told = capsys.readouterr().err
    assert told.startswith("hodor tabulate: error: results/table.csv: No space left on device; free space")
    assert told.count("\n") == 1


def test_a_file_where_a_folder_is_wanted_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    common = ["--pred", "p", "--truth", "t", "--benchmark", "davis2017-val"]
    for out in ("file", "file/out"):
        assert run("score", *common, "--out", str(tmp_path / out)) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"hodor score: error: {tmp_path / out}/") and told.count("\n") == 1
    assert run("submit", *common, "--zip", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith(f"hodor submit: error: {tmp_path}: Is a directory; ")


def test_a_package_that_is_not_installed_is_one_line(stamp, entry, capsys):
    entry("reporting.tables", "tabulate", ModuleNotFoundError("No module named 'cv2'", name="cv2.dnn"))
    assert run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o") == 1
    told = capsys.readouterr().err
    assert told.startswith("hodor tabulate: error: Python module cv2.dnn is not installed; ") and "make install" in told
    entry("reporting.tables", "tabulate", ModuleNotFoundError("No module named 'hodor.x'", name="hodor.x"))
    with pytest.raises(ModuleNotFoundError):
        run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o")


def test_an_interrupt_is_no_traceback(stamp, entry, capsys):
    entry("reporting.tables", "tabulate", KeyboardInterrupt())
    assert run("tabulate", "--stamp", stamp("tabulate"), "--runs", "r", "--out", "o") == 130
    assert capsys.readouterr().err == "hodor tabulate: interrupted\n"


def test_a_stamp_of_another_step_is_refused(stamp, capsys):
    assert run("tabulate", "--stamp", stamp("render"), "--runs", "r", "--out", "o") == 1
    assert "is a stamp of the step render" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["-m", "hodor", "--version"], ["-X", "importtime", "-m", "hodor", "score", "-h"]])
def test_as_a_module_without_heavy_imports(root, command):
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hodor 0.") or done.stdout.startswith("usage: hodor score")
    assert not {"torch", "cv2", "numpy", "pydantic"} & set(done.stderr.replace("|", " ").split())
