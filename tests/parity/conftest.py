"""The folder of parity cases: what the authors' code computes on given weights and inputs."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from hodor.models.frames import Geometry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """PARITY_DIR, or ../shared/parity; where PARITY_DIR is set a missing folder is a failure, else a skip."""
    given = os.environ.get("PARITY_DIR")
    folder = Path(given) if given else ROOT.parent / "shared" / "parity"
    if not folder.is_dir():
        if given:
            pytest.fail(f"PARITY_DIR is {folder}, which is no folder")
        pytest.skip(f"no parity cases: {folder} is absent (PARITY_DIR names another folder)")
    return folder


@pytest.fixture(scope="session")
def recipe(parity_dir) -> ModuleType:
    """Weights from original parameter names, and inputs."""
    spec = importlib.util.spec_from_file_location("parity_recipe", parity_dir / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def read_case(parity_dir):
    """Reads the expected outputs of one system; where PARITY_DIR is set a missing file is a failure, else a skip."""

    def read(system: str) -> dict[str, np.ndarray]:
        path = parity_dir / f"{system}.npz"
        if not path.is_file():
            (pytest.fail if os.environ.get("PARITY_DIR") else pytest.skip)(f"no parity case: {path} is absent")
        return dict(np.load(path))

    return read


@pytest.fixture(scope="session")
def filled(recipe):
    """Fills a method with the recipe's weights, by the original names of its release's format."""

    def fill(method, format, seed: int) -> None:
        own = method.state_dict()
        entries = {}
        for name, value in format.to_original(own).items():
            constant = name.endswith((".mean", ".std", "relative_position_index"))
            entries[name] = value if constant else torch.from_numpy(recipe.fill(name, tuple(value.shape), seed))
        method.load_state_dict(format.to_ours(entries, own))

    return fill


@pytest.fixture
def given_frames(monkeypatch):
    """Makes a memory method read frames of floats: a frame is its own number, and its pixels are looked up."""

    def give(method, video: torch.Tensor) -> tuple[list[np.ndarray], Geometry]:
        def fit(frames, geometry, device, **settings):
            numbers = [int(frame[0, 0, 0]) for frame in frames]
            out = torch.zeros(len(frames), 3, *geometry.padded)
            valid = torch.zeros(len(frames), *geometry.padded, dtype=torch.bool)
            out[(..., *geometry.window)] = video[numbers]
            valid[(..., *geometry.window)] = True
            return out, valid

        monkeypatch.setattr("hodor.models.propagation.fit_frames", fit)
        frames = [np.full((*video.shape[2:], 3), t, np.uint8) for t in range(len(video))]
        return frames, method._geometry(frames[0])

    return give


@pytest.fixture(scope="session")
def run_video():
    """Segments a whole video whose objects are all given on frame 0: labels, and probabilities from frame 1 on."""

    def run(method, frames, labels, objects) -> tuple[np.ndarray, list[torch.Tensor]]:
        state = method.start(frames[0], {i: labels[0] == i for i in range(1, objects + 1)})
        probabilities = [method.step(state, frame) for frame in frames[1:]]
        ids = np.array([0, *state.ids], np.uint8)
        return np.stack([labels[0], *(ids[p.argmax(0).numpy()] for p in probabilities)]), probabilities

    return run


@pytest.fixture(scope="session")
def binary():
    """Labels (H, W) -> (1, K, H, W) float."""

    def masks(labels: np.ndarray, objects: int) -> torch.Tensor:
        return torch.stack([torch.from_numpy(labels == i + 1) for i in range(objects)])[None].float()

    return masks


@pytest.fixture(scope="session")
def relative():
    """Largest difference in parts of the largest value."""

    def difference(ours: torch.Tensor, theirs: np.ndarray) -> float:
        theirs = torch.from_numpy(theirs)
        return ((ours.detach().reshape(theirs.shape) - theirs).abs().max() / theirs.abs().max()).item()

    return difference
