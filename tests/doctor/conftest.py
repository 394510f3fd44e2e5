"""A copy of what the doctor reads in a folder that Snakemake made, to be damaged."""

import shutil
from types import SimpleNamespace

import pytest

from hodor import paths

ROW = "hodor-soft-coco"


@pytest.fixture
def workplace(finished, tmp_path) -> SimpleNamespace:
    """A working directory at scale tiny with two finished rows, and paths in it."""
    runs = [f"runs/tiny/{row}" for row in (ROW, "copy-first-mask")]
    for part in ("config", "requirements.txt", "data", "results/tiny", "reports/tiny", *runs):
        source = finished.path / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part)
    record, dataset = (tmp_path / of("tiny", "coco") for of in (paths.fetched, paths.dataset))
    prediction = tmp_path / paths.prediction("tiny", ROW, 0, "davis2017-val")
    return SimpleNamespace(
        folder=tmp_path,
        record=record,
        archive=record.with_name("train2017.zip"),
        dataset=dataset,
        image=sorted((dataset / "train2017").glob("*.jpg"))[0],
        run=prediction.parent,
        prediction=prediction,
        mask=sorted((prediction / "masks").glob("*/*.png"))[0],
        results=tmp_path / paths.results("tiny"),
        pages=tmp_path / paths.reports("tiny"),
    )
