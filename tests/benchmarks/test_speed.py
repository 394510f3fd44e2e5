"""The measurements of speed run at a small size: what they compare is equal, and every part of it is written down."""

import re
from collections import defaultdict

import numpy as np
import pytest
import torch

from hodor.data import transforms as warps
from hodor.models.base import build_method, save_model
from tests.benchmarks.conftest import cells
from tests.narrow import NARROW

FRAME = "--small --height 48 --width 80 --short-side 96 --objects 2 --rounds 1 --threads 1 --device cpu"


@pytest.mark.long
def test_both_forms_of_the_attention(benchmark, tmp_path):
    page = benchmark("attention_speed.py", "--queries 3 9 --pixels 500 --channels 32 --rounds 2 --device cpu")
    (path,) = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"attention_speed_[a-z0-9-]+-\d+core\.md", path.name)
    rows = [row for row in cells(page) if row[0] in ("3", "9")]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        ("3", "forward", "folded"),
        ("3", "forward and backward", "folded"),
        ("9", "forward", "plain"),
        ("9", "forward and backward", "plain"),
    ]
    assert all(float(row[7].split()[0]) > 0 for row in rows)
    assert "second call: plain yes, folded yes, auto yes, sdpa yes" in page
    worst = re.search(r"in float32: (.*)", page)[1]
    assert max(float(part.split()[-1]) for part in worst.split(", ")) < 1e-3


def test_clips_of_every_kind_are_equal(benchmark):
    stages = ["images", "cyclic", "dense", "static-kmn", "static-stcn"]
    flags = f"--tiny --rounds 1 --seconds 0.1 --batches 1 --stages {' '.join(stages)}"
    page = benchmark("clip_speed.py", flags)
    rows = [row for row in cells(page) if row[0] in stages]
    assert [row[0] for row in rows] == stages
    for row in rows:
        assert float(row[2]) > 0 and float(row[6].removesuffix(" %")) > 97 and float(row[7]) > 0
    assert "no measurement" in page


def test_straightforward_clips_take_each_warp_by_itself(script):
    """The factors of a composed homography are kept in their order, and applied one by one they give the same labels."""
    stepwise = script("stepwise_clips").stepwise
    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 20:50] = 1
    image = np.repeat(labels[..., None] * np.uint8(200), 3, -1)
    size = (30, 40)

    def made() -> tuple[np.ndarray, np.ndarray]:
        turned = warps.affine((60, 80), shift=(0.1, 0), rotation=15, shear=5) @ warps.crop((60, 80), 5, 8, 48, 64)
        matrix = warps.scaling((60, 80), size) @ turned
        return matrix, warps.apply(image, labels, matrix, size)

    matrix, composed = made()
    with stepwise():
        stepped_matrix, stepped = made()
    assert np.allclose(matrix, stepped_matrix) and [canvas for _, canvas in stepped_matrix.parts] == [None, None, size]
    assert np.mean(composed[1] == stepped[1]) > 0.97
    # What one warp moves off the canvas the next cannot bring back: pixels are lost, none are gained.
    assert 0.5 < stepped[2].mean() < composed[2].mean() and np.mean(composed[2] | ~stepped[2]) > 0.99
    assert not np.array_equal(composed[0], stepped[0])  # resampled more often
    assert made()[0].__class__ is np.ndarray  # nothing stays patched


def test_both_precisions_are_scored(benchmark, world, tmp_path):
    torch.manual_seed(0)
    method = build_method("hodor", NARROW)
    save_model(tmp_path / "model.safetensors", method, name="hodor", options=method.options.model_dump(mode="json"))
    (tmp_path / "config.json").write_text('{"inference": {"short_side": 96}}')
    page = benchmark("half_precision.py", f"--data {world} --weights {tmp_path} --frames 4 --threads 1")
    scores = [float(re.search(rf"\| {name} \| ([\d.]+) \|", page)[1]) for name in ("float32", "bfloat16")]
    assert all(0 <= score <= 100 for score in scores)
    assert abs(scores[1] - scores[0] - float(re.search(r"changes by ([+-][\d.]+)", page)[1])) < 0.011
    assert float(re.search(r"equal pixels: ([\d.]+)", page)[1]) > 80


def test_both_forms_of_the_deformable_convolution_are_equal(benchmark):
    rows = cells(benchmark("deformable_speed.py", "--divide 8 --calls 1 --rounds 1 --threads 1"))[2:]
    assert len(rows) == 4
    for name, *_, faster, difference in rows:
        assert float(faster.split()[0]) > 0 and float(difference) < (0.02 if "bfloat16" in name else 1e-5)


def test_masks_of_a_frame_are_equal(benchmark):
    page = benchmark("inference_speed.py", FRAME)
    assert float(re.search(r"least of a frame ([\d.]+)", page)[1]) >= 0.999
    assert float(re.search(r"ours is faster: ([\d.]+)", page)[1]) > 0
    assert "| baseline |" in page and "| ours |" in page


@pytest.mark.long
def test_the_profile_of_a_frame_names_every_part(benchmark):
    page = benchmark("inference_speed.py", f"{FRAME} --profile")
    lines = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert [name for name, _, _ in lines][:4] == ["backbone", "pyramid", "encoder", "decoder"]
    assert len(lines) == 12 and all(int(a) < 60_000 for _, *times in lines for a in times)


def test_every_part_of_a_memory_methods_frame_is_timed(benchmark):
    size = "--methods stcn stm --small --height 48 --width 64 --objects 2 --frames 3 --threads 1"
    parts = defaultdict(dict)
    for method, *row in cells(benchmark("memory_frame.py", size, "--results")):
        if method in ("stcn", "stm"):
            parts[method][row[0]] = row[2]
    assert set(parts) == {"stcn", "stm"}
    for timed in parts.values():
        assert set(timed) == {"frame", "encode the frame", "read the memory", "decode", "encode what is remembered"}
        assert sum(int(share.strip("%")) for share in timed.values() if share) <= 104


def test_both_readouts_read_the_same(benchmark, monkeypatch):
    import harness

    # In this process: six others would start. The attention's test starts them.
    monkeypatch.setattr(harness, "extra_memory_mib", lambda *call: harness._extra_memory(1, *call))
    # 8 frames of 70 cells: 35 groups, so that top-k 3 takes the way by groups.
    size = "--frames 8 --height 7 --width 10 --objects 2 --top-k 3 --rounds 2 --threads 1"
    rows = cells(benchmark("readout_speed.py", size, "--results"))[2:]
    assert [row[0] for row in rows] == ["top-k", "softmax", "kernel"]
    assert all(float(row[7]) < 1e-5 and row[8] == "0 of 70" for row in rows)


def test_a_difference_of_readouts_that_no_tie_explains_ends_it(script, monkeypatch, tmp_path):
    readout_speed = script("readout_speed")
    dense, size = readout_speed.dense, "--frames 2 --height 3 --width 4 --objects 1 --top-k 2 --rounds 1 --threads 1"
    monkeypatch.setattr(readout_speed, "dense", lambda *inputs: dense(*inputs) * 1.001)
    monkeypatch.setattr("sys.argv", ["readout_speed.py", *size.split(), "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no tie explains it"):
        readout_speed.main()
    assert not list(tmp_path.iterdir())


def test_both_ways_of_a_training_step_take_the_same_first_step(benchmark):
    page = benchmark("step_speed.py", "--scale tiny --device cpu --steps 2 --rounds 1 --pictures 6 --threads 1")
    head, _, *rows = cells(page)
    eager, tuned = (dict(zip(head, row, strict=True)) for row in rows)
    assert (eager["variant"], tuned["variant"], tuned["row"]) == ("eager", "tuned", "hodor-soft-coco")
    assert eager["first_loss"] == tuned["first_loss"]
    assert 0 <= float(tuned["waiting"]) < 1 and eager["utilisation"] == tuned["utilisation"] == "n/a"
    assert float(eager["ratio"].split()[0]) == 1 and float(tuned["steps_per_second"]) > 0
