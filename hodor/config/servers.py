"""Evaluation servers of the secret benchmarks (config/servers.yaml) and their answers (config/server_scores.yaml)."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hodor.config.benchmarks import BENCHMARKS, get_benchmark
from hodor.config.validation import Strict, none_of, read_yaml, validate
from hodor.errors import HodorError

PENDING = "server: pending"

# Points by which a server's mean may differ from the mean of its parts, each rounded to one decimal.
_ROUNDING = 0.11

_SECRET = tuple(id for id, benchmark in BENCHMARKS.items() if benchmark.secret)
SecretId = Literal[_SECRET]

_PARTS = {"J&F": ("J", "F"), "G": ("J_seen", "F_seen", "J_unseen", "F_unseen")}


def pending_text(closed: datetime.date | str | None = None) -> str:
    """Return the text of a table cell without a server score; `closed`: date of the server's closing."""
    return f"server closed since {closed}" if closed else PENDING


class ServerScore(Strict):
    """One answer of a server: J&F, J, F; or G, J_seen, F_seen, J_unseen, F_unseen."""

    scale: str = Field(description="scale of the run whose masks were sent")
    row: str = Field(description="row whose masks were sent")
    seed: int = Field(0, ge=0, description="its seed")
    benchmark: SecretId = Field(description="benchmark of the server")
    submission: str = Field(
        pattern="^[0-9a-f]{64}$", description="sha256 of the zip that was sent, as score.json records it"
    )
    date: datetime.date = Field(description="date of the answer")
    unit: Literal["points", "fraction"] = Field(
        "points", description="points: 0..100; fraction: 0..1. A score of at most 1 needs it"
    )
    scores: dict[str, float] = Field(description="J&F, J, F; or G, J_seen, F_seen, J_unseen, F_unseen")
    note: str = Field("", description="a remark, shown nowhere")

    @model_validator(mode="after")
    def _consistent(self) -> "ServerScore":
        metric = get_benchmark(self.benchmark).metric
        parts = _PARTS[metric]
        if metric not in self.scores:
            raise ValueError(f"scores: {metric} is missing, the score of {self.benchmark}")
        top = 100 if self.unit == "points" else 1
        for name, value in self.scores.items():
            if name not in (metric, *parts):
                raise ValueError(f"scores: {none_of(name, [metric, *parts])}")
            if not 0 <= value <= top:
                raise ValueError(f"scores.{name}: {value} is not in 0..{top} ({self.unit})")
            # Some servers report 0.655 for 65.5.
            if value <= 1 and "unit" not in self.model_fields_set:
                raise ValueError(
                    f"scores.{name}: {value} looks like a fraction; give points (65.5), or state `unit: fraction` "
                    "or `unit: points`"
                )
        given = [self.scores[name] for name in parts if name in self.scores]
        if given and len(given) < len(parts):
            raise ValueError(f"scores: give all of {', '.join(parts)}, or {metric} alone")
        if given and abs(sum(given) / len(given) - self.scores[metric]) > _ROUNDING * top / 100:
            raise ValueError(f"scores: {metric} {self.scores[metric]} is not the mean of {', '.join(parts)}: {given}")
        return self

    def overall(self) -> dict[str, float]:
        """Return the scores as columns of global.csv (0..1); J and F of G are means over seen and unseen categories."""
        top = 100 if self.unit == "points" else 1
        values = {name: value / top for name, value in self.scores.items()}
        if get_benchmark(self.benchmark).metric == "J&F":
            return {f"{name}-Mean": value for name, value in values.items()}
        found = {"G": values["G"], "J&F-Mean": values["G"]}
        if len(values) > 1:
            found |= {name.replace("_", "-"): value for name, value in values.items() if name != "G"}
            found |= {f"{name}-Mean": (values[f"{name}_seen"] + values[f"{name}_unseen"]) / 2 for name in ("J", "F")}
        return found


class ServerScores(Strict):
    """config/server_scores.yaml."""

    scores: list[ServerScore] = Field([], description="answers of servers")

    @model_validator(mode="after")
    def _once(self) -> "ServerScores":
        keys = [(entry.scale, entry.row, entry.seed, entry.benchmark) for entry in self.scores]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"scores: {', '.join(map(str, key))} is given twice; remove one entry")
        return self


class Server(Strict):
    """The server that scores a benchmark."""

    name: str = Field(description="name of the server")
    address: str = Field(pattern="^https://", description="where to submit")
    form: str = Field(description="content of the zip")
    last_checked: datetime.date = Field(description="date of the last check of the address")
    how: str = Field(description="how the address was checked")
    closed: datetime.date | None = Field(None, description="date since which it accepts no submissions; null: open")
    source: str = Field("", description="announcement of the closing; needed with `closed`")

    @model_validator(mode="after")
    def _sourced(self) -> "Server":
        if (self.closed is None) != (not self.source):
            raise ValueError("closed and source: give both, or neither")
        return self


class Servers(Strict):
    """config/servers.yaml: benchmark id -> server."""

    servers: dict[SecretId, Server] = Field(description="benchmark -> its server")

    @model_validator(mode="after")
    def _all(self) -> "Servers":
        if missing := [id for id in _SECRET if id not in self.servers]:
            raise ValueError(f"servers: {missing[0]} is missing")
        return self


def load_servers(folder: Path) -> dict[str, Server]:
    """Read config/servers.yaml; HodorError names every fault."""
    name = f"{folder.name}/servers.yaml"
    return validate(Servers, read_yaml(folder / "servers.yaml", name), name).servers


def load_server_scores(folder: Path, scale: str, scales: Sequence[str], rows: Sequence[str]) -> tuple[ServerScore, ...]:
    """Read the entries of config/server_scores.yaml for a scale; HodorError names every fault."""
    name = f"{folder.name}/server_scores.yaml"
    entries = validate(ServerScores, read_yaml(folder / "server_scores.yaml", name), name).scores
    for i, entry in enumerate(entries):
        if entry.scale not in scales:
            raise HodorError(f"{name}: scores.{i}.scale: {none_of(entry.scale, scales)}")
        if entry.row not in rows:
            raise HodorError(f"{name}: scores.{i}.row: {none_of(entry.row, rows)}")
    return tuple(entry for entry in entries if entry.scale == scale)


def server_overall(entry: dict[str, Any], submission: str, where: Path) -> dict[str, float]:
    """Return a server's scores (a `ServerScore` as a dict) as columns of global.csv.

    Raises:
        HodorError: they belong to another zip than the current one, whose sha256 is `submission`, recorded in `where`.
    """
    found = ServerScore(**entry)
    if found.submission != submission:
        raise HodorError(
            f"config/server_scores.yaml: {found.row}, seed {found.seed}, {found.benchmark}: the score is of the zip "
            f"{found.submission[:12]}..., the current one is {submission[:12]}... ({where}); send that and enter its "
            "score, or remove the entry"
        )
    return found.overall()
