"""The doctor finds each fault, names the file and the mend, and is silent about what is in order."""

import json
import multiprocessing
import shutil
import threading
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hodor import paths
from hodor.cli import main as cli
from hodor.doctor import rows as doctor_rows
from hodor.doctor import trial
from hodor.doctor.command import doctor
from hodor.doctor.cost import StepCost
from hodor.doctor.data import check_archives, check_dataset, check_pack
from hodor.doctor.environment import check_disk, check_gpu, check_packages, read_pins
from hodor.doctor.released import check_released
from hodor.doctor.rows import Counted, count, fitting_batch, try_row
from hodor.doctor.runs import check_run
from hodor.doctor.space import needs, pack_bytes
from hodor.doctor.trial import Wanted, attempt
from hodor.errors import HodorError
from hodor.provenance import sha256_file

ROW = "hodor-soft-coco"


def found(workplace, deep: bool = False) -> dict[str, tuple[str, str]]:
    """Subject -> level and line, of all checks of data and weights."""
    config, folder = workplace.config, workplace.folder
    findings = [
        *check_archives(config, folder, "coco", deep),
        *check_dataset(config, folder, "coco", deep),
        *[
            item
            for id in config.packs(ROW).values()
            for item in check_pack(config, workplace.records, folder, id, deep)
        ],
        *check_run(workplace.stamps, folder, ROW, 0),
    ]
    return {finding.subject: (finding.level, finding.line()) for finding in findings}


def test_what_is_in_order_is_ok(workplace):
    for deep in (False, True):
        result = found(workplace, deep)
        assert list(result) == ["archives coco", "data set coco", "pack coco-train2017-whole", f"weights {ROW}"]
        assert {level for level, _ in result.values()} == {"ok"}, result


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def image(workplace) -> Path:
    return sorted((workplace.dataset / "train2017").iterdir())[0]


def relabel(workplace) -> None:
    """Weights of another training, with a file of the same size."""
    other = workplace.folder / paths.run("tiny", "copy-first-mask", 0) / "model.safetensors"
    shutil.copy(other, workplace.run / "model.safetensors")


def fetch_anew(workplace) -> None:
    record = workplace.archive.with_name("archives.json")
    content = json.loads(record.read_text())
    flip(workplace.archive)
    from hodor.provenance import sha256_file

    content["train2017.zip"]["sha256"] = sha256_file(workplace.archive)
    record.write_text(json.dumps(content))


def restamp(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stamp": "0" * 64}))


FAULTS = {
    "archive cut": (lambda w: cut(w.archive), "archives coco", "wrong", "recorded are"),
    "archive changed": (lambda w: flip(w.archive), "archives coco", "wrong", "sha256"),
    "archive gone": (lambda w: w.archive.unlink(), "archives coco", "wrong", "is missing"),
    "record broken": (
        lambda w: w.archive.with_name("archives.json").write_text("{"),
        "archives coco",
        "wrong",
        "archives.json",
    ),
    "image gone": (lambda w: image(w).unlink(), "data set coco", "wrong", "its manifest says"),
    "image empty": (lambda w: image(w).write_bytes(b""), "data set coco", "wrong", "is empty"),
    "other archives": (fetch_anew, "data set coco", "wrong", "prepared from other archives"),
    "data set gone": (lambda w: shutil.rmtree(w.dataset), "data set coco", "warning", "only its manifest is there"),
    "shard cut": (lambda w: cut(w.pack / "shard-00000.bin"), "pack coco-train2017-whole", "wrong", "another size"),
    "other pack": (
        lambda w: restamp(w.pack.with_name("coco-train2017-whole.json")),
        "pack coco-train2017-whole",
        "warning",
        "other data or with other settings",
    ),
    "weights cut": (lambda w: cut(w.run / "model.safetensors"), f"weights {ROW}", "wrong", "model.safetensors"),
    "weights changed": (lambda w: flip(w.run / "model.safetensors"), f"weights {ROW}", "wrong", "sha256"),
    "other weights": (relabel, f"weights {ROW}", "wrong", "is not the file that"),
    "no record": (lambda w: (w.run / "train.json").unlink(), f"weights {ROW}", "wrong", "train.json"),
    "other settings": (lambda w: restamp(w.run / "train.json"), f"weights {ROW}", "warning", "other settings"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_with_its_mend(workplace, fault):
    damage, subject, level, text = FAULTS[fault]
    damage(workplace)
    result = found(workplace)
    assert result[subject][0] == level and text in result[subject][1] and "; mend: " in result[subject][1]
    others = {name: what for name, (what, _) in result.items() if name != subject}
    assert set(others.values()) == {"ok"}, result


@pytest.mark.parametrize(("subject", "place"), [("data set coco", image), ("pack coco-train2017-whole", None)])
def test_a_changed_byte_is_found_by_reading_all(workplace, subject, place):
    flip(place(workplace) if place else workplace.pack / "shard-00000.bin")
    assert found(workplace)[subject][0] == "ok"
    level, line = found(workplace, deep=True)[subject]
    assert level == "wrong" and "(sha256)" in line


def test_what_was_not_made_yet_is_no_fault(workplace):
    assert {finding.level for finding in check_dataset(workplace.config, workplace.folder, "youtube-vos", False)} == {
        "warning"
    }
    # Archives of a prepared data set may be deleted.
    shutil.rmtree(workplace.archive.parent)
    (finding,) = check_archives(workplace.config, workplace.folder, "coco", False)
    assert finding.level == "ok" and "not needed" in finding.text
    shutil.rmtree(workplace.run)
    (finding,) = check_run(workplace.stamps, workplace.folder, ROW, 0)
    assert finding.level == "ok" and "not trained yet" in finding.text
    (workplace.run / "checkpoints").mkdir(parents=True)
    (workplace.run / "checkpoints" / "step-00000002.pt").touch()
    (finding,) = check_run(workplace.stamps, workplace.folder, ROW, 0)
    assert finding.level == "warning" and "a checkpoint of step 2 of 3" in finding.text


def test_archives_behind_a_log_in_are_told(root, tmp_path):
    from hodor.config.loading import load

    config = load(root / "config", {"scale": "paper", "rows": "hodor-soft-cyclic"})
    (finding,) = check_archives(config, tmp_path, "youtube-vos", False)
    assert finding.level == "warning" and "log-in" in finding.text and "train.zip" in finding.mend


@pytest.mark.parametrize(
    "content", ["{}", '{"x": {}}', '{"x": 3}', '{"files": {"x": {}}}', "[]", '{"files": 1, "sha256": 2}']
)
def test_records_of_another_shape_are_wrong_and_no_traceback(workplace, content):
    config, folder = workplace.config, workplace.folder
    (id,) = config.packs(ROW).values()
    record = workplace.archive.with_name("archives.json")
    for path in (record, folder / paths.manifest("tiny", "coco"), folder / paths.packed_manifest("tiny", id.name)):
        path.write_text(content)
    found = [
        *check_archives(config, folder, "coco", False),
        *check_dataset(config, folder, "coco", False),
        *check_pack(config, workplace.records, folder, id, False),
    ]
    assert {finding.level for finding in found} == {"wrong"} and all(finding.mend for finding in found)
    assert len({finding.subject for finding in found}) == 3


# The authors' checkpoints


def test_released_weights_are_compared_with_their_first_fetch(root, tmp_path):
    from hodor.config.loading import load

    config = load(root / "config", {"scale": "tiny"})
    (finding,) = check_released(config, tmp_path)
    assert finding.level == "ok" and "static_image.pth" in finding.text and "hodor fetch weights" in finding.text
    file = tmp_path / paths.weights() / "stm-released" / "STM_weights.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    by_hand, absent = check_released(config, tmp_path)
    assert by_hand.level == "ok" and "no checksum is recorded" in by_hand.text
    assert "STM_weights.pth" not in absent.text and "stcn_s0.pth" in absent.text
    lock = tmp_path / paths.locks("official")
    lock.parent.mkdir(parents=True)
    recorded = {"stm-released/STM_weights.pth": {"size": 7, "sha256": sha256_file(file)}}
    lock.write_text(json.dumps(recorded))
    assert "checksum as recorded" in next(check_released(config, tmp_path)).text
    file.write_bytes(b"weightz")
    wrong = next(check_released(config, tmp_path))
    assert wrong.level == "wrong" and str(file) in wrong.text and f"rm {file}" in wrong.mend
    lock.write_text("{")
    assert next(check_released(config, tmp_path)).level == "wrong"


# Packages, GPU, disk


def test_packages_are_compared_with_pins_and_minimums(root, monkeypatch):
    (finding,) = check_packages(root)
    assert finding.level == "ok" and "as pinned" in finding.text
    real = metadata.version
    versions = {"numpy": "1.26.0", "pandas": "99.0"}

    def version(name: str) -> str:
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    told = {finding.subject: finding for finding in check_packages(root)}
    assert told["package numpy"].level == "wrong" and ">=2.0 is needed" in told["package numpy"].text
    assert told["package matplotlib"].level == "wrong" and "not installed" in told["package matplotlib"].text
    assert told["package pandas"].level == "warning" and "was tested" in told["package pandas"].text
    assert len(told) == 3 and all(finding.mend == "make install" for finding in told.values())


def test_a_checkout_that_is_not_installed(root, monkeypatch):
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    (finding,) = check_packages(root)
    assert finding.level == "warning" and "itself is not installed" in finding.text and finding.mend == "make install"


def test_pins_are_read_with_extras_and_markers(tmp_path):
    (tmp_path / "r.txt").write_text("# pins\nNum_Py==2.4.6\ndvc[s3]==3.67.1 ; python_version > '3'\nother>=1\n")
    assert read_pins(tmp_path / "r.txt") == {"num-py": "2.4.6", "dvc": "3.67.1"}
    assert read_pins(tmp_path / "none.txt") == {}


def test_gpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [finding.level for finding in check_gpu(False)] == ["ok"]
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = check_gpu(True)
    assert finding.level == "wrong" and "built for the CPU" in finding.text
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (finding,) = check_gpu(True)
    assert finding.level == "wrong" and "driver" in finding.mend
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "A card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (140 * 10**9 if number else 10**9, 141 * 10**9))
    first, second = check_gpu(True)
    assert first.level == "warning" and "another process" in first.mend and "1.0 GB of 141.0 GB" in first.text
    assert second.level == "ok" and "A card" in second.text


def test_disk_is_compared_with_what_is_to_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(0, 0, 10**9))
    levels = [next(check_disk(tmp_path, {"archives": size}, [])).level for size in (10**8, 9 * 10**8, 2 * 10**9)]
    assert levels == ["ok", "warning", "wrong"]
    (finding,) = check_disk(tmp_path, {"packs": 3 * 10**9}, ["davis/a.zip"])
    assert "packs 3.0 GB" in finding.text and "unknown sizes: davis/a.zip" in finding.text and "2.0 GB" in finding.mend


def test_disk_of_paper_counts_archives_data_packs_and_runs(root, tmp_path):
    from hodor.config.loading import load
    from hodor.records import Records
    from hodor.stamps import Stamps

    settings = {"scale": "paper", "rows": "hodor-soft-coco", "overrides": {"stages.images.packed": {}}}
    config = load(root / "config", settings)
    sizes, unknown = needs(config, Records(Stamps(config, root), tmp_path), tmp_path, {"hodor-soft-coco": 10**9})
    # train2017.zip alone has 19.3 GB; 118,287 images of 480x640 make a pack.
    assert sizes["archives"] == sizes["data sets"] > 20e9
    assert sizes["packs"] == pytest.approx(118_287 * 480 * 640 * 3) and sizes["runs"] == 10**9
    assert any(name.startswith("davis/DAVIS-2017-test-dev") for name in unknown)


def test_what_is_there_needs_no_more_room(workplace):
    sizes, unknown = needs(workplace.config, workplace.records, workplace.folder, {ROW: 10**9})
    assert set(sizes.values()) == {0} and not unknown
    shutil.rmtree(workplace.pack)
    (workplace.run / "train.json").unlink()
    sizes, _ = needs(workplace.config, workplace.records, workplace.folder, {ROW: 10**9})
    assert sizes["runs"] == 10**9 and sizes["packs"] > 0
    # Six images at most, of 72 x 96; the estimate takes COCO's usual size.
    (id,) = workplace.config.packs(ROW).values()
    assert pack_bytes(workplace.config, workplace.folder, id) == 6 * 480 * 640 * 3


# Trials


def trial_of(workplace, steps: int, seconds: float = 60.0) -> str:
    counted = count(workplace.config, ROW)
    (finding,) = try_row(workplace.config, ROW, counted, workplace.folder, steps, seconds)
    return finding


def test_a_row_is_tried_on_its_data_and_projected(workplace, monkeypatch):
    finding = trial_of(workplace, 3)
    assert finding.level in ("ok", "warning"), finding
    assert "3 steps of 2 clips of real data on the cpu" in finding.text and "waiting for clips" in finding.text
    assert "GiB of memory" in finding.text and "GB on the disk" in finding.text
    # Nothing of a trial stays.
    assert not list(workplace.folder.rglob("checkpoints"))


def test_a_row_is_tried_without_data_within_the_time(workplace):
    shutil.rmtree(workplace.folder / "data")
    finding = trial_of(workplace, 1000, seconds=1.0)
    assert finding.level == "ok" and "clips without content" in finding.text
    assert 1 <= int(finding.text.split()[0]) < 200


def test_damaged_data_end_the_trial_with_their_name(workplace):
    flip(workplace.pack / "shard-00000.bin")
    cut(workplace.pack / "shard-00000.bin")
    finding = trial_of(workplace, 2)
    assert finding.level == "wrong" and "shard-00000.bin" in finding.text and "counted:" in finding.text


def test_a_row_that_does_not_fit_is_counted_instead(workplace, monkeypatch):
    counted = Counted(10**6, StepCost(10**12, 10**9))
    assert [fitting_batch(counted, 8, free) for free in (10**9, 2 * 10**9, 7 * 10**9, 10**12)] == [0, 1, 4, 8]
    monkeypatch.setattr(doctor_rows, "free_memory", lambda device: 10**6)
    finding = trial_of(workplace, 2)
    assert (
        finding.level == "wrong" and finding.text.startswith("not tried: one clip needs") and "counted:" in finding.text
    )


def wanted(workplace, seconds: float) -> Wanted:
    stage = workplace.config.stage(ROW).model_copy(update={"steps": 10**6, "checkpoint_every": 10**7})
    options = workplace.config.options[ROW]
    return Wanted("a row", "hodor", options, stage, None, "cpu", 1, "float32", seconds)


def test_a_trial_without_end_is_stopped(workplace, monkeypatch):
    monkeypatch.setattr(trial, "START_UP", 0.2)
    started = time.monotonic()
    tried = attempt(wanted(workplace, 0.0))
    assert "no step ended within" in tried.error and time.monotonic() - started < 30
    assert not multiprocessing.active_children()


def test_a_trial_whose_process_dies_is_told(workplace):
    """As one whose memory the system takes away."""
    results = []
    thread = threading.Thread(target=lambda: results.append(attempt(wanted(workplace, 600.0))))
    thread.start()
    deadline = time.monotonic() + 60
    while not (children := multiprocessing.active_children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    children[0].kill()
    thread.join(60)
    assert "killed for its memory?" in results[0].error


# The verb


def test_the_verb_prints_a_line_a_check_and_its_status_says_whether_something_is_wrong(
    workplace, root, monkeypatch, capsys
):
    monkeypatch.chdir(workplace.folder)
    arguments = ["doctor", "--scale", "tiny", "--rows", f"{ROW},copy-first-mask", "--config", str(root / "config")]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warning") for line in lines[:-1]) and "0 wrong" in lines[-1]
    assert [line for line in lines if line.startswith("ok       data set davis")]
    cut(workplace.archive)
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert "1 of " in said.err and [line for line in said.out.splitlines() if line.startswith("wrong    archives coco")]


def test_trials_are_the_default_at_scale_paper_alone(workplace, root, monkeypatch):
    asked = []
    monkeypatch.setattr("hodor.doctor.command.try_row", lambda *arguments: asked.append(arguments[4:]) or iter(()))
    monkeypatch.setattr("hodor.doctor.command.check_gpu", lambda wanted: iter(()))
    settings = {"scale": "tiny", "rows": ROW}
    doctor(root / "config", settings, workplace.folder)
    assert asked == []
    monkeypatch.setattr("hodor.doctor.command.count", lambda config, row: Counted(0, StepCost(0, 0)))
    monkeypatch.setattr("hodor.doctor.command.needs", lambda *_: ({}, []))
    doctor(root / "config", settings | {"scale": "paper"}, workplace.folder)
    assert asked == [(20, 60.0)]
    with pytest.raises(HodorError, match="--seconds -1"):
        doctor(root / "config", settings, workplace.folder, seconds=-1)
