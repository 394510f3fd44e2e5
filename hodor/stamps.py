"""Stamps, which decide whether a step of the workflow runs again.

The stamp of a step is a small JSON file with the part of the configuration that the step uses and the versions of its
recipes (`hodor.config.recipes`). It is an input of the step's rule, and the step reads its settings from it alone.
Snakemake compares small inputs by content, so that a step runs again exactly if its stamp has changed.

The stamp of a step that reads a data set holds a hash of the data set's sources and of the recipe that prepares it
(`data`). The step therefore does not run again if the same data set is made again.
"""

import csv
import os
from functools import cache
from pathlib import Path
from typing import Any

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.loading import Config
from hodor.config.own_datasets import PLACE, SHOWN
from hodor.config.recipes import layout_of, versions
from hodor.config.schema import TABLES
from hodor.config.servers import pending_text
from hodor.config.validation import read_yaml
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
    """All stamps of a configuration.

    Attributes:
        contents: name of a stamp -> its content.

    Args:
        config: the configuration.
        root: folder of the repository.
    """

    def __init__(self, config: Config, root: Path) -> None:
        self.config = config
        self.root = root
        self.scale = config.scale.name
        self._data = cache(self._hash_data)
        self.contents: dict[str, dict[str, Any]] = {}
        # sha256 of a stamp's canonical content, which is in every record made with it.
        self.digest = cache(lambda name: sha256_json(self.contents[name]))
        self._fill()

    def _fill(self) -> None:
        """Add all stamps to `contents`, those of tables last, because they hold digests of others."""
        stamps = self.contents
        for dataset in self.config.scale.datasets:
            stamps[f"fetch-{dataset}"] = self.fetch(dataset)
            stamps[f"prepare-{dataset}"] = self.prepare(dataset)
        for row, seed in self.config.runs(self.config.needed()):
            if not self.config.rows[row].masks:
                stamps[f"train-{row}-seed{seed}"] = self.train(row, seed)
            # A row that is needed only because another one starts from it is not scored.
            for benchmark in self.config.benchmarks(row) if row in self.config.selected else ():
                stamps[f"segment-{row}-seed{seed}-{benchmark}"] = self.segment(row, seed, benchmark)
        for benchmark in self.config.scale.benchmarks:
            stamps[f"score-{benchmark}"] = self.score(benchmark)
        for table in TABLES:
            stamps[f"tabulate-{table}"] = self.tabulate(table)
        stamps["tabulate-costs"] = self.tabulate_costs()
        stamps["claims"] = self.claims()
        if (self.root / "CITATION.cff").is_file():  # only a checkout has pages to make
            stamps["render"] = self.render()

    def path(self, name: str) -> Path:
        """Return the file of a stamp. Its name contains the digest, so that other settings have another file."""
        return paths.stamp(self.scale, name, self.digest(name))

    def write(self, folder: Path = Path(), *, present: bool = True) -> None:
        """Write the missing stamps.

        A stamp that replaces another one gets the current time, so that Snakemake finds the results of the other one out
        of date.

        Args:
            folder: working directory.
            present: whether a run with these settings starts, not a dry run or a job of a run.
        """
        at = folder / paths.present(self.scale)
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
        """Return the stamp of a data set's archives, without the mirror, which changes no archive."""
        return self._stamp("fetch", self._origin(dataset))

    def prepare(self, dataset: str) -> dict[str, Any]:
        """Return the stamp of an extracted data set."""
        settings = {"dataset": dataset, "edition": self.config.edition(dataset), "origin": self._identity(dataset)}
        return self._stamp("prepare", settings, f"prepare/{layout_of(dataset)}")

    def train(self, row: str, seed: int) -> dict[str, Any]:
        """Return the stamp of a row's training, or of the conversion of its released weights."""
        entry, stage, datasets = self.config.rows[row], self.config.stage(row), self.config.datasets(row)
        settings: dict[str, Any] = {"row": row, "method": entry.method}
        settings["options"] = self.config.options[row]
        if entry.weights is not None:
            return self._stamp("train", settings | {"weights": entry.weights}, "convert") | {"row": row, "seed": seed}
        settings |= {
            "stage": stage.model_dump(mode="json") if stage else None,
            "init": {"row": entry.init} if entry.init else None,
            "seed": seed,
            **self.config.scale.model_dump(include={"device", "threads", "precision"}),
            "datasets": list(datasets),
            "data": {dataset: self._data(dataset) for dataset in datasets},
        }
        return self._stamp("train", settings, "clips", f"train/{entry.method}") | {"row": row, "seed": seed}

    def segment(self, row: str, seed: int, benchmark: str) -> dict[str, Any]:
        """Return the stamp of a row's masks on a benchmark; that of external masks contains their digest."""
        entry, of = self.config.rows[row], _benchmark(benchmark)
        if entry.masks:
            path, data = self.config.masks[row][benchmark], self._data(of["dataset"])
            assert path is not None, "benchmarks of absent masks have no stamp"
            digest = sha256_files(path, cache=paths.runs(self.scale) / "external_masks.json")
            settings: dict[str, Any] = {"masks": path.as_posix(), "sha256": digest, "benchmark": of, "data": data}
            # Masks are read as by `score`.
            return self._stamp("segment", settings, f"score/{layout_of(of['dataset'])}") | {"row": row, "seed": seed}
        settings = {
            "method": entry.method,
            "benchmark": of,
            "inference": self.config.inference(row, benchmark).model_dump(mode="json"),
            **self.config.scale.model_dump(include={"device", "threads", "precision"}),
            "data": self._data(of["dataset"]),
        }
        return self._stamp("segment", settings, f"segment/{entry.method}") | {"row": row, "seed": seed}

    def score(self, benchmark: str) -> dict[str, Any]:
        """Return the stamp of a benchmark's scoring, or packing for its server, the same for every row."""
        dataset = get_benchmark(benchmark).dataset
        settings: dict[str, Any] = {"benchmark": _benchmark(benchmark), "data": self._data(dataset)}
        step = "submit" if benchmark in self.config.secret() else "score"
        return self._stamp(step, settings, f"score/{layout_of(dataset)}")

    def tabulate(self, table: str) -> dict[str, Any]:
        """Return the stamp of one of TABLES, which depends on its rows and those that they start from."""
        scale, rows = self.config.scale, [row for row, entry in self.config.rows.items() if table in entry.tables]
        compared = {self.config.rows[row].compare for row in rows}
        settings = self._tabulated(table) | {
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

    def tabulate_costs(self) -> dict[str, Any]:
        """Return the stamp of the table of costs: the selected rows with costs, and their notes."""
        shown = self.config.tabulated("costs")
        rows = {row: {"note": self.config.rows[row].note, "selected": True} for row in shown}
        return self._stamp("tabulate", self._tabulated("costs") | {"rows": rows}, "tables")

    def claims(self) -> dict[str, Any]:
        """Return the stamp of the verdicts: the claims, the rule, and the runs of their rows."""
        scale, claims = self.config.scale, self.config.claims
        settings = self._tabulated("claims") | {
            "rows": {
                row: {"selected": row in self.config.selected} for row in self.config.rows if row in claims.rows()
            },
            "claims": [entry | {"substitutes": self.config.substitutes(*entry["rows"])} for entry in claims.entries()],
            "absent": self.config.absent_benchmarks(),
            "evidence": claims.evidence[scale.edition],
            "rule": claims.rule.model_dump(mode="json"),
            "bootstrap": claims.bootstrap.model_dump(mode="json"),
            "title": scale.title,
            "caption": scale.caption,
        }
        return self._stamp("claims", settings, "tables")

    def _tabulated(self, table: str) -> dict[str, Any]:
        """Return the settings of any table: its name, its runs, and the digests of their stamps."""
        rows = self.config.tabulated(table)
        init = {of: self.config.rows[of].init for row in rows for of in self.config.lineage(row)}
        digests: dict[str, str] = {}
        for row, seed in self.config.runs(rows):
            for benchmark in self.config.benchmarks(row):
                run = f"{row}/seed{seed}/{benchmark}"
                digests[f"{run}/segment"] = self.digest(f"segment-{row}-seed{seed}-{benchmark}")
                digests[f"{run}/score"] = self.digest(f"score-{benchmark}")
        for row, seed in self.config.runs(init):
            if not self.config.rows[row].masks:
                digests[f"{row}/seed{seed}/train"] = self.digest(f"train-{row}-seed{seed}")
        return {
            "table": table,
            "seeds": list(self.config.seeds),
            "seeds_of": {row: list(self.config.seeds_of(row)) for row in rows},
            "benchmarks": list(self.config.scale.benchmarks),
            "scored": {row: list(self.config.benchmarks(row)) for row in rows},
            "server_scores": [
                entry.model_dump(mode="json") for entry in self.config.server_scores if entry.row in rows
            ],
            "pending": {id: pending_text(self.config.servers[id].closed) for id in self.config.secret()},
            "scale": self.scale,
            "init": init,
            "stamps": digests,
            **self._closed(),
        }

    def render(self) -> dict[str, Any]:
        """Return the stamp of the pages."""
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
            "citation": read_yaml(self.root / "CITATION.cff", "CITATION.cff"),
            **self._closed(),
        }
        if "title" not in settings["citation"]:
            raise HodorError("CITATION.cff: no title; write it in the Citation File Format")
        return self._stamp("render", settings)

    def _stamp(self, step: str, settings: dict[str, Any], *recipes: str) -> dict[str, Any]:
        """Return a stamp, with what the step uses of the entries of the user's data sets."""
        names = {settings.get("dataset"), settings.get("benchmark", {}).get("dataset")}
        names |= {source["dataset"] for source in (settings.get("stage") or {}).get("sources", ())}
        names |= {get_benchmark(id).dataset for id in settings.get("benchmarks", ())}
        unused = {*(() if "benchmarks" in settings else SHOWN), *(() if "dataset" in settings else PLACE)}
        if own := {name: entry.model_dump(exclude=unused) for name, entry in self.config.own.items() if name in names}:
            settings["own"] = own
        return {"step": step, "scale": self.scale, "settings": settings, "recipes": versions(*recipes)}

    def _closed(self) -> dict[str, str]:
        """Return what tables and pages state on closed servers of the scale's benchmarks."""
        servers = [self.config.servers[id] for id in self.config.secret()]
        texts = dict.fromkeys(f"Server closed since {of.closed}: {of.source}." for of in servers if of.closed)
        return {"closed": " ".join(texts)} if texts else {}

    def _origin(self, dataset: str) -> dict[str, Any]:
        edition, generated = self.config.edition(dataset), self.config.scale.generated
        return {
            "dataset": dataset,
            "edition": edition,
            "archives": self.config.archives(dataset),
            "generated": generated.model_dump(mode="json") if generated and edition == "generated" else None,
        }

    def _identity(self, dataset: str) -> str:
        """Return a hash of what determines the archives' content: the generator's options, or the listed sources."""
        origin = self._origin(dataset)
        if origin["edition"] == "generated":
            return sha256_json(origin | {"recipes": versions("generate")})
        if dataset in self.config.own:
            return self.config.own[dataset].identity()
        # Without address and terms, which change no archive.
        keys = ("archive", "size", "sha256")
        return sha256_json(origin | {"archives": [{key: entry[key] for key in keys} for entry in origin["archives"]]})

    def _hash_data(self, dataset: str) -> str:
        """Return a hash of what determines an extracted data set: its archives and the recipe that prepares them."""
        recipes = versions(f"prepare/{layout_of(dataset)}")
        return sha256_json({"origin": self._identity(dataset), "recipes": recipes})


def write_if_changed(path: Path, text: str) -> bool:
    """Write a text file unless it has this content already; return whether it was written."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass  # missing or broken: write it
    write_text_atomic(path, text)
    return True


def _published(path: Path) -> list[dict[str, str]]:
    """Read config/published.csv, the paper's numbers, as a dict for each line."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "row" not in (reader.fieldnames or ()):
                raise csv.Error("no column row")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HodorError(f"{path.parent.name}/{path.name}: cannot be read ({error}); restore it from git") from error


def _benchmark(id: str) -> dict[str, str]:
    benchmark = get_benchmark(id)
    return {"id": benchmark.id, "dataset": benchmark.dataset, "split": benchmark.split}
