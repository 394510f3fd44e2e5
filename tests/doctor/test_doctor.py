"""The doctor finds each fault with its fix, and raises no false alarm."""

import json
import re
import shutil
import subprocess
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hodor import paths
from hodor.cli import main as cli
from hodor.config import recipes
from hodor.config.loading import load
from hodor.doctor import checks
from hodor.doctor.artefacts import check_dataset, check_released
from hodor.doctor.checks import check_disk, check_gpu, check_packages, doctor, needed_space, read_pins
from hodor.errors import HodorError
from hodor.provenance import sha256_file

from .conftest import ROW

ROWS = f"{ROW},copy-first-mask"


def lines(folder: Path, capsys, **options) -> list[str]:
    """Lines of a check of a folder, but for packages and GPU, which are those of the machine."""
    try:
        doctor(folder / "config", {"scale": "tiny", "rows": ROWS}, folder, **options)
    except HodorError:
        pass
    found = capsys.readouterr().out.splitlines()[:-1]
    return [line for line in found if not re.match(r"\w+ +(package|gpu|torchvision|disk)", line)]


def alarms(folder: Path, capsys, **options) -> list[str]:
    return [line for line in lines(folder, capsys, **options) if not line.startswith("ok ")]


def test_a_finished_folder_raises_no_alarm(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished.path)
    assert cli.main(["doctor"]) == 0
    found = capsys.readouterr().out.splitlines()
    assert " 0 wrong" in found[-1]
    for what in ("data set davis", f"run {ROW} seed0", "disk", "released weights", "machine"):
        assert any(re.match(rf"ok +{what} ", line) for line in found), what
    found = lines(finished.path, capsys, deep=True)
    assert {line.split()[0] for line in found} == {"ok"}
    for what in ("archives coco", "data set davis", f"run {ROW} seed0 +files as recorded", "results ablation"):
        assert any(re.match(rf"ok +{what} ", f"{line} ") for line in found), what


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spaced(path: Path) -> None:
    path.write_text(path.read_text() + " ")


def written(name: str, text: str):
    return lambda path: (path / name).write_text(text)


def flipped(name: str):
    return lambda path: flip(path / name)


# Fault -> damage, the place in `workplace` that it is done to, and the subject of the alarm.
FAULTS = {
    "archive cut": (cut, "archive", "archives coco"),
    "archive record broken": (lambda path: path.write_text("{"), "record", "archives coco"),
    "archive record of another shape": (lambda path: path.write_text('{"x": 3}'), "record", "archives coco"),
    "image gone": (Path.unlink, "image", "data set coco"),
    "image changed": (flip, "image", "data set coco"),
    "manifest of another shape": (written("../coco.json", "{}"), "dataset", "data set coco"),
    "weights changed": (flipped("model.safetensors"), "run", f"run {ROW}"),
    "training log changed": (flipped("train.jsonl"), "run", f"run {ROW}"),
    "table changed": (flipped("ablation_table.csv"), "results", "results ablation"),
    "page changed": (flipped("index.html"), "pages", "reports pages"),
    "training record broken": (written("train.json", "[]"), "run", f"run {ROW}"),
    "mask changed": (flip, "mask", f"run {ROW}"),
    "mask gone": (Path.unlink, "mask", f"run {ROW}"),
    "list of masks changed": (lambda path: spaced(path / "masks.json"), "prediction", f"run {ROW}"),
    "scores changed": (flipped("per_frame.csv"), "prediction", f"run {ROW}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_found_and_its_fix_clears_it(workplace, capsys, fault):
    damage, place, subject = FAULTS[fault]
    damage(getattr(workplace, place))
    with pytest.raises(HodorError, match="1 of .* checks"):
        doctor(workplace.folder / "config", {"scale": "tiny", "rows": ROWS}, workplace.folder, deep=True)
    (alarm,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong ")]
    assert re.match(rf"wrong +{subject} ", alarm)
    subprocess.run(re.search(r"fix: (rm -rf .*); the workflow", alarm)[1], shell=True, check=True)
    assert alarms(workplace.folder, capsys, deep=True) == []


def test_what_was_deleted_as_a_whole_is_no_damage(workplace, capsys):
    workplace.archive.unlink()  # the data set is prepared
    shutil.rmtree(workplace.prediction / "masks")
    (workplace.run / "model.safetensors").unlink()
    assert alarms(workplace.folder, capsys, deep=True) == []
    shutil.rmtree(workplace.dataset)
    shutil.rmtree(workplace.folder / "data" / "tiny" / "archives")
    assert alarms(workplace.folder, capsys, deep=True) == []


def test_files_are_read_with_deep_alone(workplace, capsys):
    flip(workplace.image)
    flip(workplace.archive)
    assert alarms(workplace.folder, capsys) == []
    assert [line.split()[1:3] for line in alarms(workplace.folder, capsys, deep=True)] == [
        ["archives", "coco"],
        ["data", "set"],
    ]


def test_results_of_older_recipes_are_listed(workplace, monkeypatch, capsys):
    monkeypatch.setitem(recipes.RECIPES, "segment/hodor", 2)
    (alarm,) = alarms(workplace.folder, capsys)
    assert re.match(rf"warning +run {ROW} seed0 .*segment.json \(segment/hodor 1, now 2\)", alarm)


@pytest.mark.parametrize(
    "scale, dataset, mirror, level, text",
    [
        ("paper", "youtube-vos", None, "warning", "log-in.*train.zip.*by hand"),
        ("paper", "coco", None, "warning", "hodor fetch coco --scale paper"),
        ("paper", "swin-tiny-imagenet", None, "warning", "starting weights swin-tiny-imagenet"),
        ("paper", "coco", "https://mirror", "ok", "https://mirror"),
        ("subset", "davis", None, "wrong", "set `mirror`"),
        ("tiny", "coco", None, "ok", "the generator"),
    ],
)
def test_absent_data_say_how_to_get_them(root, tmp_path, scale, dataset, mirror, level, text):
    config = load(root / "config", {"scale": scale, "mirror": mirror})
    (finding,) = check_dataset(config, tmp_path, dataset, False)
    assert finding.level == level and re.search(text, str(finding))


def test_released_weights_are_compared_with_their_first_download(root, tmp_path):
    file = tmp_path / paths.weights() / "stm-released" / "STM_weights.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    config = load(root / "config", {"scale": "tiny"}, tmp_path)
    (absent,) = check_released(config, tmp_path, True)  # no checksum is recorded
    assert absent.level == "ok"
    assert "STM_weights.pth" not in absent.text and "stcn_s0.pth" in absent.text and "hodor fetch" in absent.text
    lock = tmp_path / paths.locks("official")
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"stm-released/STM_weights.pth": {"size": 7, "sha256": sha256_file(file)}}))
    assert len(list(check_released(config, tmp_path, False))) == 1
    assert [finding.level for finding in check_released(config, tmp_path, True)] == ["ok", "ok"]
    flip(file)
    wrong = next(check_released(config, tmp_path, True))
    assert wrong.level == "wrong" and wrong.fix.startswith(f"rm {file} &&"), "never the record of all checksums"
    lock.write_text("{")
    wrong = next(check_released(config, tmp_path, True))
    assert wrong.level == "wrong" and str(lock) in wrong.text


def test_packages_are_compared_with_pins_and_requirements(root, tmp_path, monkeypatch):
    (tmp_path / "r.txt").write_text("# pins\nNum_Py==2.4.6\ndvc[s3]==3.67.1 ; python_version > '3'\nother>=1\n")
    assert read_pins(tmp_path / "r.txt") == {"num-py": "2.4.6", "dvc": "3.67.1"}
    (finding,) = check_packages(root)
    assert finding.level == "ok" and "as pinned" in finding.text
    real, versions = metadata.version, {"numpy": "1.26.0", "pandas": "99.0"}

    def version(name: str) -> str:
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.subject: finding for finding in check_packages(root)}
    assert {subject: finding.level for subject, finding in found.items()} == {
        "package numpy": "wrong",
        "package matplotlib": "wrong",
        "package pandas": "warning",
    }
    assert ">=2.0 is needed" in found["package numpy"].text and "was tested" in found["package pandas"].text

    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    (finding,) = check_packages(root)
    assert finding.level == "warning" and "not installed" in finding.text and finding.fix == "make install"


def test_gpus_and_their_deformable_convolution_are_reported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(__import__("sys").modules, "torchvision.ops", None)
    assert [finding.level for finding in check_gpu(False)] == ["ok", "ok"]
    monkeypatch.setattr(torch.version, "cuda", None)
    gpu, torchvision = check_gpu(True)
    assert gpu.level == "wrong" and "built for the CPU" in gpu.text
    assert torchvision.level == "warning" and "plain PyTorch" in torchvision.text
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "driver" in next(check_gpu(True)).fix
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "A card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (140 * 10**9 if number else 10**9, 141 * 10**9))
    first, second, _ = check_gpu(True)
    assert first.level == "warning" and "1.0 GB of 141.0 GB" in first.text
    assert second.level == "ok" and "A card" in second.text


def test_disk_is_compared_with_what_is_to_be_written(root, workplace, tmp_path, monkeypatch):
    usage = namedtuple("Usage", "total used free")(0, 0, 10**9)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage)
    levels = [next(check_disk(tmp_path, {"archives": size}, [])).level for size in (10**8, 9 * 10**8, 2 * 10**9)]
    assert levels == ["ok", "warning", "wrong"]
    (finding,) = check_disk(tmp_path, {"archives": 3 * 10**9}, ["davis/a.zip"])
    assert "archives 3.0 GB" in finding.text and "davis/a.zip" in finding.text and "2.0 GB" in finding.fix
    paper = load(root / "config", {"rows": ROWS, "scale": "paper"})
    sizes, unknown = needed_space(paper, tmp_path / "empty")
    # train2017.zip alone has 19.3 GB; a run keeps weights and two checkpoints.
    assert sizes["archives"] == sizes["data sets"] > 20e9 and sizes["runs"] > 0.5e9
    assert any(name.startswith("davis/DAVIS-2017-test-dev") for name in unknown)
    sizes, unknown = needed_space(load(root / "config", {"rows": ROWS, "scale": "tiny"}), workplace.folder)
    assert set(sizes.values()) == {0} and not unknown
