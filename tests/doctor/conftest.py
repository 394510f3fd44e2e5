"""A copy of what the doctor reads in a folder that Snakemake made, to be damaged."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from hodor import paths
from hodor.config.loading import Config, load

ROW = "hodor-soft-coco"


@dataclass(frozen=True)
class Workplace:
    """A working directory at scale tiny with two finished rows, and paths in it."""

    folder: Path

    @property
    def config(self) -> Config:
        return load(self.folder / "config", {"scale": "tiny"}, self.folder)

    @property
    def record(self) -> Path:
        return self.folder / paths.fetched("tiny", "coco")

    @property
    def archive(self) -> Path:
        return self.record.with_name("train2017.zip")

    @property
    def dataset(self) -> Path:
        return self.folder / paths.dataset("tiny", "coco")

    @property
    def image(self) -> Path:
        return sorted((self.dataset / "train2017").glob("*.jpg"))[0]

    @property
    def run(self) -> Path:
        return self.folder / paths.run("tiny", ROW, 0)

    @property
    def prediction(self) -> Path:
        return self.run / "davis2017-val"

    @property
    def results(self) -> Path:
        return self.folder / paths.results("tiny")

    @property
    def pages(self) -> Path:
        return self.folder / paths.reports("tiny")

    @property
    def mask(self) -> Path:
        return sorted((self.prediction / "masks").glob("*/*.png"))[0]


@pytest.fixture
def workplace(finished, tmp_path) -> Workplace:
    runs = [f"runs/tiny/{row}" for row in (ROW, "copy-first-mask")]
    for part in ("config", "requirements.txt", "data", "results/tiny", "reports/tiny", *runs):
        source = finished.path / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part)
    return Workplace(tmp_path)
