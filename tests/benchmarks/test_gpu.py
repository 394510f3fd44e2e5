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


def test_every_part_is_measured_and_none_twice(benchmark, root, world, tmp_path):
    flags = f"--device cpu --small --rows hodor-soft-coco --data {world} --runs {tmp_path / 'runs'}"
    page, folder = benchmark("gpu.py", flags), tmp_path / "results"
    parts = json.loads(only(folder, "gpu_*_small.json"))["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "done")
    assert list(parts) == "correctness attention steps inference determinism loader training".split()
    lines = {name: list(part["results"].values()) for name, part in parts.items()}
    assert all(line["float32: loss differs by"] == 0 for line in lines["correctness"])
    assert all(line["same gradients"] == line["same labels (expected)"] == "yes" for line in lines["determinism"])
    assert [line["frames/s"] > 0 for line in lines["inference"]] == [True] * 3
    assert [line["steps"] for line in lines["training"]] == [3, 3, 3]
    assert all(0 <= line["J&F"] <= 100 for line in lines["training"])
    assert 0 <= lines["loader"][0]["part of the time"] <= 1
    (path,) = folder.glob("*.json")
    machine = path.stem.removeprefix("gpu_").removesuffix("_small")
    measured = read_measured(folder, load(root / "config", {"scale": "tiny"}).scale, machine)
    assert set(measured) == {"hodor-soft-coco"}
    assert "## training: done" in page and "| hodor-hard-coco, seed 0 |" in page
    assert benchmark("gpu.py", flags) == page


@pytest.fixture
def gpu(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import gpu

    return gpu


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
