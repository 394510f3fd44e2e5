"""Models of config/claims.yaml: the poster's claims and the numbers in the rule of a verdict (`hodor.reporting.claims`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hodor.config.benchmarks import BenchmarkId
from hodor.config.datasets import EDITIONS
from hodor.config.validation import Strict, none_of, read_yaml, validate
from hodor.errors import HodorError


class Claim(Strict):
    """One claim, with a verdict on each of its benchmarks."""

    claim: str = Field(min_length=1, description="a sentence that is true or not")
    kind: Literal["better", "at-least", "alphas-move"] = Field(
        description="better: the first row scores above the second; at-least: on par with or above it; alphas-move: "
        "the row's learned alphas leave their starting values by more than the spread over seeds"
    )
    rows: list[str] = Field(min_length=1, max_length=2, description="ids of rows.yaml: two to compare, or one")
    benchmarks: list[BenchmarkId] = Field([], description="where two rows are compared")
    source: str = Field(min_length=1, description="where the claim is made")
    note: str = Field("", description="shown with the verdict")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Claim":
        if self.kind == "alphas-move":
            if len(self.rows) != 1 or self.benchmarks:
                raise ValueError("kind alphas-move needs one row and no benchmark")
        elif len(set(self.rows)) != 2 or not self.benchmarks:
            raise ValueError(f"kind {self.kind} needs two different rows and at least one benchmark")
        if len(set(self.benchmarks)) != len(self.benchmarks):
            raise ValueError("benchmarks: an entry is given twice")
        return self


class BootstrapSettings(Strict):
    """Settings of the bootstrap intervals in tables and claims."""

    resamples: int = Field(10_000, ge=100, le=1_000_000, description="number of resamples")
    seed: int = Field(0, ge=0, description="start of the random generator")


class Rule(Strict):
    """Numbers in the rule of a verdict."""

    on_par: float = Field(0.5, gt=0, lt=100, description="points within which two rows are on par")
    fewest_sequences: int = Field(10, ge=2, description="with fewer sequences nothing is decided")
    fewest_seeds: int = Field(3, ge=2, description="with fewer seeds of a row nothing is decided")


class Claims(Strict):
    """config/claims.yaml."""

    bootstrap: BootstrapSettings = Field(BootstrapSettings(), description="intervals in tables and claims")
    rule: Rule = Field(Rule(), description="numbers in the rule of a verdict")
    evidence: dict[Literal[EDITIONS], str] = Field(description="edition of the data -> what its verdicts are about")
    claims: dict[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")], Claim] = Field(description="id -> claim")

    @model_validator(mode="after")
    def _complete(self) -> "Claims":
        if missing := [edition for edition in EDITIONS if not self.evidence.get(edition, "").strip()]:
            raise ValueError(f"evidence: missing for edition {', '.join(missing)}")
        return self

    def rows(self) -> set[str]:
        """Return the ids of the rows in all claims."""
        return {row for claim in self.claims.values() for row in claim.rows}

    def entries(self) -> list[dict]:
        """Return a dict for each claim and benchmark: id, claim, kind, benchmark (or None), rows, source, note."""
        return [
            {"id": id if len(claim.benchmarks) < 2 else f"{id}-{benchmark}", "benchmark": benchmark}
            | claim.model_dump(mode="json", exclude={"benchmarks"})
            for id, claim in self.claims.items()
            for benchmark in claim.benchmarks or [None]
        ]


def load_claims(folder: Path, options: Mapping[str, Mapping[str, Any]]) -> Claims:
    """Read claims.yaml in `folder`; HodorError for any fault.

    Args:
        folder: configuration folder.
        options: row id -> its method options.
    """
    name = f"{folder.name}/claims.yaml"
    claims = validate(Claims, read_yaml(folder / "claims.yaml", name), name)
    for id, claim in claims.claims.items():
        for row in claim.rows:
            if row not in options:
                raise HodorError(f"{name}: claims.{id}.rows: {none_of(row, list(options))}")
            if claim.kind == "alphas-move" and options[row].get("attention") != "soft":
                raise HodorError(f"{name}: claims.{id}.rows: {row} has no alphas: its attention is not soft")
    return claims
