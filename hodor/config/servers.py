"""Scores that a benchmark's server gave, typed into config/server_scores.yaml, and the servers of config/servers.yaml.

The workflow reads both at every start: no heavy imports here.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hodor.config.benchmarks import BENCHMARKS, get_benchmark
from hodor.config.reading import none_of, read_yaml, validate
from hodor.errors import HodorError

PENDING = "server: pending"
"""What a cell says until its server's score is typed in."""

_ROUNDING = 0.11
"""Servers round to a decimal or more: a mean may differ so much (points) from that of its rounded parts."""

_COLUMNS = {"J&F": ("J", "F"), "G": ("J_seen", "F_seen", "J_unseen", "F_unseen")}


class ServerScore(BaseModel):
    """One answer of a server. Scores in points (0..100): J&F, J, F; or G, J_seen, F_seen, J_unseen, F_unseen."""

    model_config = ConfigDict(extra="forbid")

    scale: str = Field(description="of the run whose masks were sent")
    row: str
    seed: int = Field(0, ge=0)
    benchmark: Literal[tuple(id for id, benchmark in BENCHMARKS.items() if benchmark.secret)]
    submission: str = Field(
        pattern="^[0-9a-f]{64}$", description="sha256 of the zip that was sent, as score.json names it"
    )
    date: datetime.date = Field(description="of the answer")
    scores: dict[str, float]
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "ServerScore":
        metric = get_benchmark(self.benchmark).metric
        parts = _COLUMNS[metric]
        if metric not in self.scores:
            raise ValueError(f"scores: {metric} is missing, the number of {self.benchmark}")
        for name, value in self.scores.items():
            if name not in (metric, *parts):
                raise ValueError(f"scores: {none_of(name, [metric, *parts])}")
            if not 0 <= value <= 100:
                raise ValueError(f"scores.{name}: {value} is not in 0..100 (points)")
        given = [self.scores[name] for name in parts if name in self.scores]
        if given and len(given) < len(parts):
            raise ValueError(f"scores: give all of {', '.join(parts)}, or {metric} alone")
        if given and abs(sum(given) / len(given) - self.scores[metric]) > _ROUNDING:
            raise ValueError(f"scores: {metric} {self.scores[metric]} is not the mean of {', '.join(parts)}: {given}")
        return self

    @property
    def key(self) -> tuple[str, int, str]:
        """Row, seed, benchmark."""
        return self.row, self.seed, self.benchmark

    def overall(self) -> dict[str, float]:
        """The scores as the columns of global.csv, in 0..1; J and F of G are means over the two kinds of categories."""
        values = {name: value / 100 for name, value in self.scores.items()}
        if get_benchmark(self.benchmark).metric == "J&F":
            return {f"{name}-Mean": value for name, value in values.items()}
        found = {"G": values["G"], "J&F-Mean": values["G"]}
        if len(values) > 1:
            found |= {name.replace("_", "-"): value for name, value in values.items() if name != "G"}
            found |= {f"{name}-Mean": (values[f"{name}_seen"] + values[f"{name}_unseen"]) / 2 for name in ("J", "F")}
        return found


class ServerScores(BaseModel):
    """config/server_scores.yaml."""

    model_config = ConfigDict(extra="forbid")

    scores: list[ServerScore] = []

    @model_validator(mode="after")
    def _once(self) -> "ServerScores":
        keys = [(entry.scale, *entry.key) for entry in self.scores]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"scores: {', '.join(map(str, key))} is given twice; remove one entry")
        return self


class Server(BaseModel):
    """Where masks of a benchmark are sent."""

    model_config = ConfigDict(extra="forbid")

    name: str
    address: str = Field(pattern="^https://")
    form: str = Field(description="what the zip holds")
    last_checked: datetime.date = Field(description="when the address was last looked up")
    how: str = Field(description="what that look was")


class Servers(BaseModel):
    """config/servers.yaml: benchmark id -> server."""

    model_config = ConfigDict(extra="forbid")

    servers: dict[str, Server]

    @model_validator(mode="after")
    def _all(self) -> "Servers":
        secret = [id for id, benchmark in BENCHMARKS.items() if benchmark.secret]
        for id in self.servers:
            if id not in secret:
                raise ValueError(f"servers: {none_of(id, secret)}")
        if missing := [id for id in secret if id not in self.servers]:
            raise ValueError(f"servers: {missing[0]} is missing")
        return self


def load_servers(folder: Path) -> dict[str, Server]:
    """config/servers.yaml; HodorError names every fault."""
    name = f"{folder.name}/servers.yaml"
    return validate(Servers, read_yaml(folder / "servers.yaml", name), name).servers


def load_server_scores(folder: Path, scale: str, scales: Sequence[str]) -> tuple[ServerScore, ...]:
    """The entries of config/server_scores.yaml for a scale; HodorError names every fault (rows: `hodor.stamps`).

    `scales`: those that there are. An entry for any other one would fill no cell, and nobody would know why.
    """
    name = f"{folder.name}/server_scores.yaml"
    entries = validate(ServerScores, read_yaml(folder / "server_scores.yaml", name), name).scores
    for i, entry in enumerate(entries):
        if entry.scale not in scales:
            raise HodorError(f"{name}: scores.{i}.scale: {none_of(entry.scale, scales)}")
    return tuple(entry for entry in entries if entry.scale == scale)


def server_overall(entry: dict[str, Any], submission: str, where: Path) -> dict[str, float]:
    """What the server said of a submission, as columns of global.csv.

    Args:
        entry: a `ServerScore` as a dict (from a stamp).
        submission: sha256 of the zip that was made. where: its score.json.

    Raises:
        HodorError: the score is of another zip.
    """
    found = ServerScore(**entry)
    if found.submission != submission:
        raise HodorError(
            f"config/server_scores.yaml: {found.row}, seed {found.seed}, {found.benchmark}: the score is of the zip "
            f"{found.submission[:12]}..., the present one is {submission[:12]}... ({where}); send that and type in its "
            "score, or remove the entry"
        )
    return found.overall()
