"""Stamps: for each step of the workflow a small file with all that its result depends on.

A stamp holds the slice of the configuration that the step uses and the versions of its recipes
(`hodor.config.recipes`). It is an input of the step's rule, and the step reads its settings from it and from nowhere
else, so that what is compared is what is used. Snakemake compares small inputs by content: a step runs again exactly
when its stamp changed.

What a data set consists of is part of the stamps of the steps that read it (`data`), as a hash of where it comes from
and of the recipe that prepares it. Those steps therefore need not run again when the same data set is made again.
"""

import csv
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.datasets import archives
from hodor.config.loading import Config
from hodor.config.recipes import layout_of, versions
from hodor.config.schema import TABLES
from hodor.config.servers import pending_text
from hodor.config.stages import PackId
from hodor.errors import HodorError
from hodor.provenance import (
    json_text,
    read_json,
    sha256_file,
    sha256_files,
    sha256_json,
    write_json_atomic,
    write_text_atomic,
)


class Stamps:
    """All stamps of a configuration: those that its rows, seeds and benchmarks need.

    contents: name of a stamp -> its content. root: the repository, which holds workflow/notebooks.
    """

    def __init__(self, config: Config, root: Path) -> None:
        self.config = config
        self.root = root
        self.scale = config.scale.name
        self._data = cache(self._hash_data)
        self.contents = self._contents()
        self._digests: dict[str, str] = {}

    def _contents(self) -> dict[str, dict[str, Any]]:
        stamps: dict[str, dict[str, Any]] = {}
        for dataset in self.config.scale.datasets:
            stamps[f"fetch-{dataset}"] = self.fetch(dataset)
            stamps[f"prepare-{dataset}"] = self.prepare(dataset)
        for name, id in self.config.packs(*self.config.needed()).items():
            stamps[f"pack-{name}"] = self.pack(id)
        for row in self.config.needed():
            for seed in self.config.seeds_of(row):
                if not self.config.rows[row].masks:
                    stamps[f"train-{row}-seed{seed}"] = self.train(row, seed)
                # A row that only another one starts from is trained, not scored.
                for benchmark in self.config.benchmarks(row) if row in self.config.selected else ():
                    stamps[f"segment-{row}-seed{seed}-{benchmark}"] = self.segment(row, seed, benchmark)
        for benchmark in self.config.scale.benchmarks:
            stamps[f"score-{benchmark}"] = self.score(benchmark)
        for table in TABLES:
            stamps[f"tabulate-{table}"] = self.tabulate(table, stamps)
        stamps["tabulate-costs"] = self.tabulate_costs(stamps)
        stamps["claims"] = self.claims(stamps)
        if (self.root / "CITATION.cff").is_file():  # a checkout, which alone has pages to make
            stamps["render"] = self.render()
        return stamps

    def path(self, name: str) -> Path:
        """File of a stamp. Its name holds the digest, so that no run with other settings ever reads or changes it."""
        return paths.stamp(self.scale, name, self.digest(name))

    def digest(self, name: str) -> str:
        """sha256 of a stamp's canonical content, which every record made with it names."""
        if name not in self._digests:
            self._digests[name] = sha256_json(self.contents[name])
        return self._digests[name]

    def write(self, folder: Path = Path(), *, present: bool = True) -> None:
        """Write the stamps that are missing below the working directory `folder`.

        A stamp that takes the place of another one becomes newer than the results made with that one, by which
        Snakemake sees that they are out of date.

        Args:
            present: whether a run with these settings starts. False: a dry run, or a job of a run.
        """
        at = folder / paths.stamps(self.scale) / "present.json"
        try:
            before = read_json(at)
        except HodorError:
            before = {}
        digests = {name: self.digest(name) for name in self.contents}
        for name, digest in digests.items():
            path = folder / self.path(name)
            if write_if_changed(path, json_text(self.contents[name])) or before.get(name) == digest:
                continue
            os.utime(path)
        if present and before != digests:
            write_json_atomic(at, digests)

    def fetch(self, dataset: str) -> dict[str, Any]:
        """Where a data set's archives come from. The mirror is not part of it: moving it changes no archive."""
        return self._stamp("fetch", self._origin(dataset))

    def prepare(self, dataset: str) -> dict[str, Any]:
        """How the archives become a data set."""
        settings = {"dataset": dataset, "edition": self.config.scale.edition, "origin": self._identity(dataset)}
        return self._stamp("prepare", settings, f"prepare/{layout_of(dataset)}")

    def pack(self, id: PackId) -> dict[str, Any]:
        """How a split of a data set becomes a pack."""
        return self._stamp("pack", {**id._asdict(), "data": self._data(id.dataset)}, "pack")

    def train(self, row: str, seed: int) -> dict[str, Any]:
        """How a row is trained, or converted from its released weights."""
        entry, stage, packs = self.config.rows[row], self.config.stage(row), self.config.packs(row)
        datasets, settings = self.config.plain(row), {"row": row, "method": entry.method}
        settings["options"] = self.config.options[row]
        if entry.weights is not None:
            return self._stamp("train", settings | {"weights": entry.weights}, "convert") | {"row": row, "seed": seed}
        settings |= {
            "stage": stage.model_dump(mode="json") if stage else None,
            "init": {"row": entry.init} if entry.init else None,
            "seed": seed,
            "device": self.config.scale.device,
            "threads": self.config.scale.threads,
            "precision": self.config.scale.precision,
            "datasets": list(datasets),
            "packs": list(packs),
            "data": {dataset: self._data(dataset) for dataset in datasets}
            | {name: sha256_json(self.pack(id)) for name, id in packs.items()},
        }
        return self._stamp("train", settings, "clips", f"train/{entry.method}") | {"row": row, "seed": seed}

    def segment(self, row: str, seed: int, benchmark: str) -> dict[str, Any]:
        """How a trained row segments a benchmark, or which external masks are imported, by their content."""
        entry, of = self.config.rows[row], _benchmark(benchmark)
        if entry.masks:
            path, data = self.config.masks[row][benchmark], self._data(of["dataset"])
            settings = {"masks": path.as_posix(), "sha256": sha256_files(path), "benchmark": of, "data": data}
            # They are read as `score` reads them.
            return self._stamp("segment", settings, f"score/{layout_of(of['dataset'])}") | {"row": row, "seed": seed}
        settings = {
            "method": entry.method,
            "benchmark": of,
            "inference": self.config.inference(row, benchmark).model_dump(mode="json"),
            "device": self.config.scale.device,
            "threads": self.config.scale.threads,
            "precision": self.config.scale.precision,
            "data": self._data(of["dataset"]),
        }
        return self._stamp("segment", settings, f"segment/{entry.method}") | {"row": row, "seed": seed}

    def score(self, benchmark: str) -> dict[str, Any]:
        """How the masks of a benchmark are scored, or packed for its server: the same for every row."""
        settings = {"benchmark": _benchmark(benchmark), "data": self._data(_benchmark(benchmark)["dataset"])}
        step = "submit" if benchmark in self.config.secret() else "score"
        return self._stamp(step, settings, f"score/{layout_of(settings['benchmark']['dataset'])}")

    def tabulate(self, table: str, stamps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What one of TABLES shows. Nothing of a row that is not in it counts, unless a row in it starts from that."""
        scale, rows = self.config.scale, [row for row, entry in self.config.rows.items() if table in entry.tables]
        compared = {self.config.rows[row].compare for row in rows}
        settings = self._tabulated(table, stamps) | {
            "rows": {
                row: self.config.rows[row].shown()
                | {
                    "selected": row in self.config.selected,
                    "absent": self.config.how_to_get(row),
                    "trained_on": self.config.trained_on(row),
                }
                for row in rows
            },
            "title": scale.title,
            "caption": scale.caption,
            "bootstrap": self.config.claims.bootstrap.model_dump(mode="json"),
            "published": [
                line for line in _published(self.config.folder / "published.csv") if line["row"] in {*rows, *compared}
            ],
        }
        return self._stamp("tabulate", settings, "tables")

    def tabulate_costs(self, stamps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What the table of costs shows: every selected row that has costs, and what is to be said of it."""
        shown = self.config.tabulated("costs")
        rows = {row: {"note": self.config.rows[row].note, "selected": True} for row in shown}
        return self._stamp("tabulate", self._tabulated("costs", stamps) | {"rows": rows}, "tables")

    def claims(self, stamps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What the verdicts on the claims depend on: the claims, the rule, and the runs of their rows."""
        scale, claims = self.config.scale, self.config.claims
        settings = self._tabulated("claims", stamps) | {
            "rows": {
                row: {"selected": row in self.config.selected} for row in self.config.rows if row in claims.rows()
            },
            "claims": [entry | {"substitutes": self.config.substitutes(*entry["rows"])} for entry in claims.entries()],
            "absent": self.config.absent(),
            "evidence": claims.evidence[scale.edition],
            "rule": claims.rule.model_dump(mode="json"),
            "bootstrap": claims.bootstrap.model_dump(mode="json"),
            "title": scale.title,
            "caption": scale.caption,
        }
        return self._stamp("claims", settings, "tables")

    def _tabulated(self, table: str, stamps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What any table depends on: its name, the runs in it, and the digests of the stamps that they must carry."""
        init: dict[str, str | None] = {}
        digests: dict[str, str] = {}
        for row in self.config.tabulated(table):
            init |= {of: self.config.rows[of].init for of in self.config.lineage(row)}
            for seed in self.config.seeds_of(row):
                for benchmark in self.config.benchmarks(row):
                    run = f"{row}/seed{seed}/{benchmark}"
                    digests[f"{run}/segment"] = sha256_json(stamps[f"segment-{row}-seed{seed}-{benchmark}"])
                    digests[f"{run}/score"] = sha256_json(stamps[f"score-{benchmark}"])
        for row in init:
            for seed in self.config.seeds_of(row):
                if not self.config.rows[row].masks:
                    digests[f"{row}/seed{seed}/train"] = sha256_json(stamps[f"train-{row}-seed{seed}"])
        return {
            "table": table,
            "seeds": list(self.config.seeds),
            "seeds_of": {row: list(self.config.seeds_of(row)) for row in self.config.tabulated(table)},
            "benchmarks": list(self.config.scale.benchmarks),
            "scored": {row: list(self.config.benchmarks(row)) for row in self.config.tabulated(table)},
            "server_scores": [
                entry.model_dump(mode="json")
                for entry in self.config.server_scores
                if entry.row in self.config.tabulated(table)
            ],
            "pending": {id: pending_text(self.config.servers[id].closed) for id in self.config.secret()},
            "scale": self.scale,
            "init": init,
            "stamps": digests,
        }

    def render(self) -> dict[str, Any]:
        """What the pages show, besides the tables."""
        scale = self.config.scale
        notebooks = sorted((self.root / "workflow" / "notebooks").glob("*.py"))
        settings = {
            "scale": scale.name,
            "title": scale.title,
            "caption": scale.caption,
            "rows": list(self.config.selected),
            "seeds": list(self.config.seeds),
            "benchmarks": list(scale.benchmarks),
            "notebooks": {path.stem: sha256_file(path) for path in notebooks},
            "citation": _citation(self.root / "CITATION.cff"),
        }
        return self._stamp("render", settings)

    def _stamp(self, step: str, settings: dict[str, Any], *recipes: str) -> dict[str, Any]:
        return {"step": step, "scale": self.scale, "settings": settings, "recipes": versions(*recipes)}

    def _origin(self, dataset: str) -> dict[str, Any]:
        scale = self.config.scale
        return {
            "dataset": dataset,
            "edition": scale.edition,
            "archives": archives(self.config.folder / "datasets.csv", dataset, scale.edition),
            "generated": scale.generated.model_dump(mode="json") if scale.generated else None,
        }

    def _identity(self, dataset: str) -> str:
        """Hash of what determines the archives' content: the generator and its options, or the sources listed."""
        origin = self._origin(dataset)
        if origin["edition"] == "generated":
            return sha256_json(origin | {"recipes": versions("generate")})
        # Another address or other terms are no other archives.
        origin["archives"] = [
            {key: entry[key] for key in ("archive", "size", "sha256")} for entry in origin["archives"]
        ]
        return sha256_json(origin)

    def _hash_data(self, dataset: str) -> str:
        """Hash of what determines an extracted data set: its archives and the recipe that prepares them."""
        recipes = versions(f"prepare/{layout_of(dataset)}")
        return sha256_json({"origin": self._identity(dataset), "recipes": recipes})


def write_if_changed(path: Path, text: str) -> bool:
    """Write a text file unless it has this content already; returns whether it was written."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass  # missing or broken: write it
    write_text_atomic(path, text)
    return True


def _published(path: Path) -> list[dict[str, str]]:
    """config/published.csv as it stands: the paper's numbers, a dict for each line."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "row" not in (reader.fieldnames or ()):
                raise csv.Error("no column row")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HodorError(f"{path.parent.name}/{path.name}: cannot be read ({error})") from error


def _citation(path: Path) -> dict[str, Any]:
    """CITATION.cff: how to cite."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HodorError(f"{path.name}: cannot be read ({error})") from error
    if not isinstance(content, dict) or "title" not in content:
        raise HodorError(f"{path.name}: not a file of the Citation File Format, it has no title")
    return content


def _benchmark(id: str) -> dict[str, str]:
    benchmark = get_benchmark(id)
    return {"id": benchmark.id, "dataset": benchmark.dataset, "split": benchmark.split}
