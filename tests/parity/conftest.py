"""The folder of parity cases: what the authors' code computes on given weights and inputs."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

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
def hodor_case(parity_dir) -> dict[str, np.ndarray]:
    """Expected outputs of HODOR."""
    return dict(np.load(parity_dir / "hodor.npz"))
