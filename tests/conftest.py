"""Fixtures for all tests."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

# Checkouts in which the whole workflow runs, for the folders workflow, faults and cluster.
pytest_plugins = ["tests.checkouts"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest folder first: a whole DAG at the end would leave the other processes idle."""
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "workflow"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A copy of the settings files, to be changed."""
    return Path(shutil.copytree(root / "config", tmp_path / "config"))


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


WORLD = {
    "coco_train": 8,
    "coco_val": 2,
    "davis_train": 2,
    "davis_val": 1,
    "davis_test_dev": 1,
    "youtube_train": 3,
    "youtube_valid": 1,
    "coco_sizes": [(72, 96), (96, 72)],
    "davis_size": (64, 112),
    "youtube_sizes": [(64, 112), (72, 96)],
    "davis_frames": 5,
    "youtube_frames": 6,
    "objects": (1, 2),
    "coco_objects": (1, 3),
}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Folder with coco/, davis/ and youtube-vos/ and a manifest of each, as a scale's data folder."""
    folder = tmp_path_factory.mktemp("world")
    from hodor.config.datasets import GeneratedOptions
    from hodor.data.synthetic import generate

    for dataset in ("coco", "davis", "youtube-vos"):
        archives = generate(dataset, GeneratedOptions(**WORLD), folder / "archives" / dataset)
        for archive in archives:
            if archive.name != "valid_truth.zip":
                zipfile.ZipFile(archive).extractall(folder / dataset)
        (folder / f"{dataset}.json").write_text(json.dumps({"dataset": dataset}))
    return folder
