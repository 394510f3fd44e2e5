"""The GPU's script on a CPU: every part at a small size, and parts that end badly."""

import json
import os
import signal
import time
from argparse import Namespace

import pytest
import torch._dynamo  # noqa: F401  once here instead of in the process of each part

from hodor.config.loading import load
from hodor.doctor.cost import read_measured
from tests.benchmarks.conftest import only


@pytest.fixture
def gpu(script):
    return script("gpu")


def measure(gpu, monkeypatch, folder, *flags) -> tuple[dict[str, list[dict]], str]:
    """Return the lines of each part, all of which are done, and the page."""
    small = ["--device", "cpu", "--small", "--rows", "hodor-soft-coco", "--out", folder, "--runs", folder / "runs"]
    monkeypatch.setattr("sys.argv", ["gpu.py", *map(str, [*small, *flags])])
    before = signal.getsignal(signal.SIGTERM)
    gpu.main()
    signal.signal(signal.SIGTERM, before)
    parts = json.loads(only(folder, "gpu_*_small.json"))["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(gpu.PARTS, "done")
    return {name: list(part["results"].values()) for name, part in parts.items()}, only(folder, "gpu_*.md")


def test_a_part_is_measured_once(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "PARTS", {"determinism": gpu.PARTS["determinism"]})
    lines, page = measure(gpu, monkeypatch, tmp_path)
    assert all(line["same gradients"] == line["same labels (expected)"] == "yes" for line in lines["determinism"])
    assert "## determinism: done" in page and "| hodor-soft-coco, --deterministic | yes | yes |" in page
    assert measure(gpu, monkeypatch, tmp_path) == (lines, page)


@pytest.mark.long
def test_every_part(gpu, monkeypatch, root, world, tmp_path):
    lines, _ = measure(gpu, monkeypatch, tmp_path, "--data", world)
    assert list(lines) == "correctness attention steps inference determinism loader training".split()
    assert all(line["float32: loss differs by"] == 0 for line in lines["correctness"])
    assert [line["frames/s"] > 0 for line in lines["inference"]] == [True] * 3
    assert 0 <= lines["loader"][0]["part of the time"] <= 1
    assert [line["steps"] for line in lines["training"]] == [3, 3, 3]
    assert all(0 <= line["J&F"] <= 100 for line in lines["training"])
    machine = next(tmp_path.glob("*.json")).stem.removeprefix("gpu_").removesuffix("_small")
    measured = read_measured(tmp_path, load(root / "config", {"scale": "tiny"}).scale, machine)
    assert set(measured) == {"hodor-soft-coco"}


@pytest.mark.parametrize(
    ("end", "seconds", "status"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 60, "error: 1 of 2 lines, exit status -9"),
        (lambda: time.sleep(60), 3, "unfinished after 3 s"),
    ],
    ids=["killed", "too long"],
)
def test_what_ends_badly_keeps_its_lines(gpu, end, seconds, status):
    items = [("fails", lambda: 1 / 0), ("nan", lambda: {"x": float("nan")}), ("end", end)]
    entry, saved = {"results": {}}, []
    gpu.run_part("mine", lambda _: iter(items), entry, Namespace(), seconds, lambda: saved.append(json.dumps(entry)))
    assert entry["status"] == status and entry["results"]["fails"]["error"] == "ZeroDivisionError: division by zero"
    assert entry["results"]["nan"]["x"] == "nan" and len(saved) == 3


def test_a_training_without_data_says_how_to_prepare_them(gpu, tmp_path):
    options, entry = Namespace(device="cpu", small=True, rows="main", data=tmp_path, runs=tmp_path), {"results": {}}
    gpu.run_part("training", gpu.training, entry, options, 60, lambda: None)
    assert entry["status"].startswith(f"not run: {tmp_path}/coco.json: no such file; run `snakemake")
