"""The authors' released checkpoints as settings: config/released.yaml, and which of them lie in data/weights.

A checkpoint that is there becomes a run `runs/<scale>/released-<id>/seed0`, segmented with the network and the
inference settings that its row has at scale `paper`, on the benchmarks of the configured scale.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.holdout import HOLDOUT
from hodor.config.inference import InferenceOptions
from hodor.config.loading import Config, load, scale_names
from hodor.config.reading import none_of, read_yaml, validate
from hodor.errors import HodorError

SEED = 0
"""A checkpoint has no seed; its run stands under this one."""


class Released(BaseModel):
    """One checkpoint."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(description="its name in the table")
    file: str = Field(description="name in data/weights/ or in a folder of that")
    row: str = Field(description="the row that it is compared with")
    inference: dict[str, Any] = Field({}, description="inference settings that differ from the row's at scale paper")
    source: str = Field(description="where it is to be had")
    licence: str
    note: str = ""

    @field_validator("file")
    @classmethod
    def _plain(cls, value: str) -> str:
        if Path(value).name != value:
            raise ValueError("must be the name of a file, without folders")
        return value


class ReleasedFile(BaseModel):
    """config/released.yaml."""

    model_config = ConfigDict(extra="forbid")

    released: dict[str, Released]


def load_released(config: Config) -> dict[str, Released]:
    """The entries of config/released.yaml; none where there is no such file.

    Raises:
        HodorError: a fault in it, a row that is not there, or two checkpoints for one row.
    """
    path = config.folder / "released.yaml"
    name = f"{config.folder.name}/released.yaml"
    if not path.is_file():
        return {}
    entries = validate(ReleasedFile, read_yaml(path, name), name).released
    rows: set[str] = set()
    for id, entry in entries.items():
        if entry.row not in config.rows:
            raise HodorError(f"{name}: released.{id}.row: {none_of(entry.row, list(config.rows))}")
        if entry.row in rows:
            raise HodorError(f"{name}: released.{id}.row: {entry.row} has another checkpoint; one row, one number")
        rows.add(entry.row)
    return entries


def inference(config: Config, entry: Released, benchmark: str) -> InferenceOptions:
    """How a checkpoint segments a benchmark: as its row does at scale `paper`, whatever the configured scale."""
    name = f"{config.folder.name}/released.yaml"
    if config.scale.name != "paper":
        if "paper" not in scale_names(config.folder):
            raise HodorError(
                f"{config.folder.name}/scales/paper.yaml: no such file; released weights take its settings"
            )
        config = load(config.folder, {"scale": "paper", "rows": "all", "seeds": None, "mirror": None, "overrides": {}})
    settings = config.inference(entry.row, benchmark).model_dump()
    return validate(InferenceOptions, settings | entry.inference, name, f"{entry.row}.inference")


def benchmarks(config: Config) -> list[str]:
    """The scale's benchmarks that checkpoints are scored on: no hold-out, for some were trained on its videos."""
    return [id for id in config.scale.benchmarks if get_benchmark(id).split != HOLDOUT]


def run_name(id: str) -> str:
    """The name under which a checkpoint's run stands among the rows."""
    return f"released-{id}"


def locate(entry: Released, folder: Path = Path()) -> Path | None:
    """Where its file lies below the working directory `folder`: in data/weights or a folder of that; None if nowhere."""
    weights = paths.weights()
    places = [weights, *sorted(path.relative_to(folder) for path in (folder / weights).glob("*/"))]
    return next((place / entry.file for place in places if (folder / place / entry.file).is_file()), None)


def present(entries: dict[str, Released], folder: Path = Path()) -> dict[str, Released]:
    """The entries whose file is there."""
    return {id: entry for id, entry in entries.items() if locate(entry, folder)}
