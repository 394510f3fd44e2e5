"""What a row costs is counted: operations, memory, hours."""

import pytest
import torch

from hodor.errors import HodorError
from hodor.inference.options import InferenceOptions
from hodor.reporting.cost import GPUS, Operations, clip_of, cost, frame_operations, step_cost
from hodor.training.options import StageOptions


def stage(kind: str, **changes) -> StageOptions:
    base = {"sources": [{"dataset": "coco", "split": "train2017"}], "steps": 1, "batch": 8, "learning_rate": 1e-4}
    return StageOptions(kind=kind, **base | changes)


def test_operations_of_known_products():
    with Operations() as counter, torch.inference_mode():
        torch.nn.Linear(30, 20)(torch.zeros(7, 30))
        torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(5, 3, 3, 3), padding=1)
    assert counter.total == 2 * 7 * 30 * 20 + 2 * 5 * 3 * 9 * 64


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


def test_the_table_lists_every_row_and_hours_follow_the_speed(root):
    settings = {"scale": "tiny", "rows": "ablation"}
    text = cost(root / "config", settings, "h200", frames=True)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("hodor-")}
    assert len(rows) == 6 and all(len(cells) == 8 for cells in rows.values())
    assert float(rows["hodor-soft-coco"][3]) > float(rows["hodor-none-coco"][3]) * 0.9 > 0
    assert f"{GPUS['h200']:g} TFLOP/s" in text and "GPU hours" in text
    slower = cost(root / "config", settings, "mine", 1.0)
    assert slower != text and "GFLOP/frame" in text and "GFLOP/frame" not in slower
    with pytest.raises(HodorError, match="--gpu mine: known are"):
        cost(root / "config", settings, "mine")
    for speed in (0.0, -1.0, float("nan")):
        with pytest.raises(HodorError, match=f"--speed {speed:g}: must be above 0"):
            cost(root / "config", settings, "h200", speed)
