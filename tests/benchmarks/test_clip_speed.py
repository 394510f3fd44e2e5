"""The benchmarks of clips and of the loader: they run, the two ways make the same clips, and the result is written."""

import os
import subprocess
import sys

import pytest


def run(root, script: str, out, *arguments: str) -> str:
    """The result that a small run writes."""
    command = [sys.executable, str(root / "benchmarks" / script), "--tiny", "--rounds", "1", "--seconds", "0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*command, "--out", str(out), *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (written,) = out.iterdir()
    return written.read_text()


def test_clip_speed_compares_equal_clips_of_every_kind(root, tmp_path):
    stages = ["images", "cyclic", "dense", "static-kmn", "static-stcn"]
    text = run(root, "clip_speed.py", tmp_path, "--batches", "1", "--stages", *stages)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == stages
    for row in rows:
        assert float(row[2]) > 0 and float(row[6].removesuffix(" %")) > 97 and float(row[7]) > 0
    assert "- commit:" in text and "no measurement" in text


def test_loader_speed_writes_each_stage(root, tmp_path):
    text = run(root, "loader_speed.py", tmp_path, "--stages", "images", "cyclic")
    rows = [line for line in text.splitlines() if line.startswith(("| images", "| cyclic"))]
    assert len(rows) == 6 and "- machine:" in text


@pytest.fixture
def stepwise(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from stepwise_clips import stepwise

    return stepwise


def test_straightforward_clips_take_each_warp_by_itself(stepwise):
    """The factors of a composed homography are kept in their order, and applied one by one they give the same labels."""
    import numpy as np

    from hodor.data import transforms as warps

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
