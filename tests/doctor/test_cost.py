"""What a row costs is counted: operations, memory, hours."""

import json
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hodor import paths
from hodor.config.loading import load
from hodor.config.stages import InferenceOptions, StageOptions
from hodor.doctor import cost as counting
from hodor.doctor.cost import GPUS, clip_of, cost, frame_operations, step_cost
from tests.refused import refused


def stage(kind: str, **changes) -> StageOptions:
    base = {"sources": [{"dataset": "coco", "split": "train2017"}], "steps": 1, "batch": 8, "learning_rate": 1e-4}
    return StageOptions(kind=kind, **base | changes)


def test_operations_of_known_products():
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        torch.nn.Linear(30, 20)(torch.zeros(7, 30))
        torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(5, 3, 3, 3), padding=1)
    assert counter.get_total_flops() == 2 * 7 * 30 * 20 + 2 * 5 * 3 * 9 * 64


def test_clips_have_the_published_sizes():
    image = clip_of(stage("images", pixels=300_000))
    assert image.frames.shape == (1, 3, 3, 480, 640) and image.annotated == (True, True, True)
    video = clip_of(stage("sparse-video", short_side=576, long_side=1200))
    assert video.frames.shape == (1, 3, 3, 576, 1024) and video.annotated == (True, False, False)


def test_a_published_training_step_takes_what_was_measured_of_the_release():
    """0.75 TFLOP forward for three frames of 480x640, three times that with the backward pass; 2 clips in 24 GB."""
    one = step_cost("hodor", {}, stage("images", pixels=300_000))
    assert one.operations / 1e12 == pytest.approx(3 * 0.75, rel=0.05)
    assert 2 * one.kept_bytes < 24e9


def test_a_frame_of_a_narrow_network_is_counted_once_it_is_segmented():
    narrow = {"backbone": "convnet", "backbone_width": 8, "dim": 32, "encoder_layers": 1, "decoder_layers": 1}
    small, large = (frame_operations("hodor", narrow, InferenceOptions(short_side=side)) for side in (64, 128))
    assert 3 < large / small < 5


SETTINGS = {"scale": "tiny", "rows": "hodor-soft-coco,hodor-hard-coco,stm"}


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Count each row once: the tables below have the same rows."""
    known, count = {}, counting.step_cost

    def step_cost(method, options, stage):
        key = repr((method, options, stage))
        known[key] = known.get(key) or count(method, options, stage)
        return known[key]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(counting, "step_cost", step_cost)
        yield


def rows_of(text: str) -> dict[str, list[str]]:
    return {cells[0]: cells for cells in (re.split(" {2,}", line) for line in text.splitlines()) if len(cells) > 6}


def test_the_table_lists_every_row_and_hours_follow_the_speed(root):
    text = cost(root / "config", SETTINGS, "h200", frames=True)
    head, *rows = rows_of(text).values()
    assert [cells[0] for cells in rows] == ["hodor-hard-coco", "hodor-soft-coco", "stm"]
    assert all(len(cells) == 11 and "not measured" == cells[5] == cells[8] and float(cells[3]) > 0 for cells in rows)
    assert f"{GPUS['h200']:g} TFLOP/s" in text and "GPU hours" in text
    slower = cost(root / "config", SETTINGS, "mine", 1.0)
    assert slower != text and "GFLOP/frame" in text and "GFLOP/frame" not in slower
    refused("--gpu mine: known are", cost, root / "config", SETTINGS, "mine")
    for speed in (0.0, -1.0, float("nan")):
        refused(f"--speed {speed:g}: must be above 0", cost, root / "config", SETTINGS, "h200", speed)


def test_the_largest_micro_batch_leaves_a_third_for_temporary_buffers(root, monkeypatch):
    monkeypatch.setattr(counting, "step_cost", lambda *_: counting.StepCost(10**12, 7 * 10**9))
    settings = SETTINGS | {"rows": "hodor-soft-coco", "overrides": {"stages.images.batch": 6}}
    head, row = rows_of(cost(root / "config", settings, "h200")).values()
    assert dict(zip(head, row, strict=True))["clips in 24/40/80 GB"] == "2/3/6"


def test_measured_hours_are_those_of_the_same_step_on_the_same_gpu(root, folder, tmp_path):
    found = load(root / "config", SETTINGS)
    stage = found.stage("hodor-soft-coco")
    tera = counting.step_cost("hodor", found.options["hodor-soft-coco"], stage).operations * stage.batch / 1e12
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    file = results / "gpu_nvidia-geforce-rtx-3090.json"

    def write(*lines: tuple) -> None:
        names = ("scale", "row", "variant", "batch", "seconds_per_step", "tflop_per_step", "peak_mib")
        found = {str(i): dict(zip(names, line, strict=True)) for i, line in enumerate(lines)}
        parts = {"steps": {"status": "done", "results": found | {"compiled": {"error": "no compiler"}}}}
        file.write_text(json.dumps({"parts": parts}))

    write(
        ("tiny", "hodor-soft-coco", "bfloat16", stage.batch, "9000", tera, "1024"),
        ("tiny", "hodor-soft-coco", "float32", stage.batch, "3600", tera, "2560"),
        ("tiny", "hodor-hard-coco", "float32", stage.batch, "3600", 1.1 * tera, "512"),  # of another network or size
        ("paper", "stm", "float32", 1, "3600", tera, "512"),
    )
    text = cost(folder, SETTINGS, "rtx3090")
    rows = {row: [cells[5], cells[8]] for row, cells in rows_of(text).items()}
    assert rows["hodor-soft-coco"] == [f"{stage.steps:.1f}", "2.5"]
    assert rows["hodor-hard-coco"] == rows["stm"] == 2 * ["not measured"] and file.name in text
    assert file.name not in cost(folder, SETTINGS, "h200")
    write(("tiny", "hodor-soft-coco", "float32", 2, "fast", 1, "1"))
    refused("rtx-3090.json: cannot be read", cost, folder, SETTINGS, "rtx3090")


def test_the_peak_of_a_training_with_these_settings_is_shown(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, row = load(root / "config", SETTINGS), "stm"
    settings = {"stage": found.stage(row).model_dump(mode="json"), "options": found.options[row], "device": "cpu"}
    path = paths.run("tiny", row, 0) / "train.json"
    path.parent.mkdir(parents=True)

    def shown(**changed) -> str:
        record = {"stamp_content": {"settings": settings | changed}, "peak_memory_mib": 512.0}
        path.write_text(json.dumps(record | {"execution": {"processes": 1, "micro_batch": None}} | changed))
        return rows_of(cost(root / "config", SETTINGS | {"rows": row}, "h200"))[row][8]

    assert shown() == "0.5 (CPU)" and shown(device="cuda", gpu_peak_memory_mib=3072) == "3.0"
    assert {shown(options={}), shown(device="cuda"), shown(execution={"processes": 2})} == {"not measured"}
