"""The comparison of precisions runs on a narrow network and generated videos."""

import re
import subprocess
import sys

import torch

from hodor.models.base import build_method, save_model
from tests.narrow import NARROW


def test_both_precisions_are_scored(root, world, tmp_path):
    torch.manual_seed(0)
    method = build_method("hodor", NARROW)
    run = tmp_path / "runs/tiny/hodor-soft-coco/seed0"
    run.mkdir(parents=True)
    save_model(run / "model.safetensors", method, name="hodor", options=method.options.model_dump(mode="json"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tiny").symlink_to(world)
    script = root / "benchmarks" / "half_precision.py"
    flags = ["--scale", "tiny", "--root", tmp_path, "--frames", "4", "--threads", "1", "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").iterdir()
    text = path.read_text()
    scores = [float(re.search(rf"\| {name} \| ([\d.]+) \|", text)[1]) for name in ("float32", "bfloat16")]
    assert all(0 <= score <= 100 for score in scores)
    assert abs(scores[1] - scores[0] - float(re.search(r"changes by ([+-][\d.]+)", text)[1])) < 0.011
    assert float(re.search(r"equal pixels: ([\d.]+)", text)[1]) > 80
