"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the reference material; SHARED_DIR overrides `../shared` of the repository."""
    folder = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no reference material: {folder} is absent (SHARED_DIR names another folder)")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared) -> Path:
    """Folder with real archives, laid out as a mirror: `<dataset>/<archive>`."""
    if not (shared / "data").is_dir():
        pytest.skip(f"no real archives: {shared / 'data'} is absent (SHARED_DIR names another folder)")
    return shared / "data"
