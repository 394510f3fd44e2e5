"""A working directory at scale tiny in which COCO is prepared and packed and one row is trained."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from hodor import paths
from hodor.config import loading as config
from hodor.data.fetch import fetch
from hodor.data.packing import pack
from hodor.data.prepare import prepare
from hodor.provenance import sha256_json
from hodor.records import Records
from hodor.stamps import Stamps
from hodor.training.run import train

ROW = "hodor-soft-coco"
OVERRIDES = {"scale": "tiny", "rows": f"{ROW},copy-first-mask", "overrides": {"stages.images.packed": {}}}


@dataclass(frozen=True)
class Workplace:
    """folder: the working directory. Paths of what checks look at, and the findings of a check."""

    folder: Path
    stamps: Stamps

    @property
    def config(self) -> config.Config:
        return self.stamps.config

    @property
    def records(self) -> Records:
        return Records(self.stamps, self.folder)

    @property
    def archive(self) -> Path:
        return self.folder / paths.archives("tiny", "coco") / "train2017.zip"

    @property
    def dataset(self) -> Path:
        return self.folder / paths.dataset("tiny", "coco")

    @property
    def pack(self) -> Path:
        return self.folder / paths.packed("tiny", "coco-train2017-whole")

    @property
    def run(self) -> Path:
        return self.folder / paths.run("tiny", ROW, 0)


def stamped(stamps: Stamps, name: str) -> dict:
    content = stamps.contents[name]
    return content | {"sha256": sha256_json(content)}


@pytest.fixture(scope="session")
def finished_workplace(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    stamps = Stamps(config.load(root / "config", OVERRIDES), root)
    for dataset in ("coco", "davis"):
        archives = folder / paths.archives("tiny", dataset)
        fetch(stamped(stamps, f"fetch-{dataset}"), archives)
        manifest, out = folder / paths.manifest("tiny", dataset), folder / paths.dataset("tiny", dataset)
        prepare(stamped(stamps, f"prepare-{dataset}"), archives, out, manifest)
    name, data = "coco-train2017-whole", folder / paths.data("tiny")
    manifest, out = folder / paths.packed_manifest("tiny", name), folder / paths.packed("tiny", name)
    pack(stamped(stamps, f"pack-{name}"), data, out, manifest)
    for row in (ROW, "copy-first-mask"):
        train(stamped(stamps, f"train-{row}-seed0"), data, folder / paths.run("tiny", row, 0))
    return folder


@pytest.fixture
def workplace(finished_workplace, root, tmp_path) -> Workplace:
    shutil.copytree(finished_workplace, tmp_path / "workplace")
    return Workplace(tmp_path / "workplace", Stamps(config.load(root / "config", OVERRIDES), root))
