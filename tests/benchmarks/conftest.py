"""Scripts of benchmarks/, run in this process at a small size."""

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture
def script(root, monkeypatch) -> Callable[[str], ModuleType]:
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def study(script, request) -> ModuleType:
    """The script that a file of tests is named after."""
    return script(request.module.__name__.rpartition("test_")[2])


@pytest.fixture
def benchmark(root, tmp_path, monkeypatch) -> Callable[..., str]:
    """Runs a script with flags, the last of which names the folder of its results; returns the page that it writes."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    monkeypatch.chdir(root)
    threads = torch.get_num_threads()

    def run(script: str, flags: str, out: str = "--out") -> str:
        folder = tmp_path / "results"
        monkeypatch.setattr(sys, "argv", [script, *flags.split(), out, str(folder)])
        folder.mkdir(exist_ok=True)
        try:
            runpy.run_path(str(root / "benchmarks" / script), run_name="__main__")
        except SystemExit as end:
            assert not end.code, end.code
        page = only(folder, "*.md")
        assert "commit: " in page
        return page

    yield run
    torch.set_num_threads(threads)


class FindsTheFirst:
    """Predicts the first object where it was given, and no other."""

    def start(self, frame, masks):
        return masks

    def step(self, masks, frame):
        found = np.stack([~masks[1], masks[1], *[np.zeros_like(masks[1])] * (len(masks) - 1)])
        return found.astype(float)


def only(folder: Path, pattern: str) -> str:
    """The text of the one file of a pattern."""
    (path,) = folder.glob(pattern)
    return path.read_text()


def cells(page: str) -> list[list[str]]:
    """The cells of every line of the tables of a page."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
