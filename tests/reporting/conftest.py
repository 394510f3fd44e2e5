"""A small project with made-up runs: real files in their places, scored by the real scorer."""

import csv
import json
import re
import shutil
import zlib
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from hodor.data.images import write_labels
from hodor.provenance import sha256_file, sha256_json, write_manifest
from hodor.reporting.tables import TABLES, tabulate
from hodor.scoring.score import score
from tests.data.datasets import write_davis
from tests.narrow import NARROW

OUT = Path("results/tiny")
VAL = "davis2017-val"
SEQUENCES = {"walk": (6, 2), "run": (5, 1), "swim": (5, 1)}
MACHINE = {"processor": "Abacus 9", "cores": 2, "memory_mib": 2048, "system": "Linux", "gpu": None}
START = (32, 16, 8, 4)
# The smallest network with the alphas of `_train`.
NETWORK = NARROW | {"drop_path": 0.0, "heads": 4, "encoder_layers": 2}
CITATION = {
    "message": "Please cite the paper.",
    "title": "some-software",
    "type": "software",
    "version": "1.0",
    "authors": [{"name": "Its authors"}],
    "preferred-citation": {
        "type": "conference-paper",
        "title": "A Paper about Masks",
        "authors": [{"family-names": "Doe", "given-names": "Jane"}, {"family-names": "Roe", "given-names": "R. & R."}],
        "year": 2022,
        "collection-title": "Some Conference",
    },
}
_POSTER = {"table": "comparison", "benchmark": VAL, "metric": "J&F", "source": "poster", "note": ""}
PUBLISHED = [
    _POSTER | {"table": "ablation", "row": "hodor-soft-coco", "value": "77.5", "note": "of the ablation"},
    _POSTER | {"row": "hodor-soft-coco", "value": "77.5"},
    _POSTER | {"row": "hodor-soft-coco", "value": "65.0", "benchmark": "davis2017-test-dev"},
    _POSTER | {"row": "dmn-aoa", "value": "67.9", "note": "no code released"},
]
NOTE = "re-interpretation from the abstract; 67.9 not reproduced"


@dataclass
class Project:
    """A working directory. `rows`: as in config/rows.yaml, with what the stamps add; `stamps`: "<row>/seed<k>/<step>" -> digest."""

    folder: Path
    rows: dict[str, dict] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    scale: str = "tiny"

    @property
    def runs(self) -> Path:
        return Path("runs") / self.scale

    def run(self, row: str, seed: int = 0) -> Path:
        return self.runs / row / f"seed{seed}"

    def add(
        self,
        row,
        attention=None,
        tables=("ablation",),
        init=None,
        selected=True,
        shift=2,
        method=None,
        note="",
        released=None,
    ) -> None:
        """Add a row and, where selected, its runs.

        Args:
            shift: Distance of its masks from the ground truth in pixels.
            released: "weights" and "compare" of a row of released weights.
        """
        method = method or ("hodor" if attention else "copy")
        trained_on = {"hodor": "COCO", "copy": "nothing"}.get(method, "static images")
        self.rows[row] = {
            "tables": list(tables),
            "label": row.title(),
            "method": method,
            "options": {"attention": attention} if attention else {},
            "init": init,
            "note": note,
            "trained_on": "video" if init else trained_on,
            "selected": selected,
            "absent": ""
            if selected or not released
            else f"get it by: hodor fetch weights, or place {released['weights']}",
            **dict.fromkeys(("weights", "compare", "source", "licence")),
            **(released or {}),
        }
        for seed in self.seeds if selected else ():
            self._train(row, seed)
            self._segment(row, seed, shift + seed)
            stamp = self._stamp(row, seed, f"{VAL}/score", "score")
            folder = self.run(row, seed) / VAL
            score(folder / "masks", self.data / "davis", VAL, folder, stamp, official=False)
            # Of a made-up checkout and machine, like the other steps.
            record = json.loads((folder / "score.json").read_text())
            (folder / "score.json").write_text(json.dumps(record | {"commit": "abc123", "machine": MACHINE}))
            write_manifest(self.run(row, seed), row, seed)

    @property
    def data(self) -> Path:
        return Path("data") / self.scale

    def settings(self, table: str = "ablation", **changed) -> dict:
        """Those of the stamp of a table or of the claims."""
        costs = table == "costs"
        rows = {row: e for row, e in self.rows.items() if table in ("claims", *e["tables"]) or costs and e["selected"]}
        init: dict[str, str | None] = {}
        for row, entry in rows.items():
            at = row if entry["selected"] else None
            while at is not None:
                init[at] = self.rows[at]["init"]
                at = init[at]
        shown = ["note", "selected"]
        if not costs:
            shown += ["label", "options", "trained_on", "absent", "weights", "compare", "source", "licence"]
        return {
            "table": table,
            "rows": {row: {key: entry[key] for key in shown} for row, entry in rows.items()},
            "init": init,
            "seeds": self.seeds,
            "seeds_of": dict.fromkeys(init, self.seeds),
            "benchmarks": [VAL],
            "scored": dict.fromkeys(init, [VAL]),
            "server_scores": [],
            "scale": self.scale,
            "title": "tiny, made up",
            "caption": "Numbers without meaning, on generated data.",
            "published": PUBLISHED,
            "bootstrap": {"resamples": 1000, "seed": 0},
            "citation": CITATION,
            "stamps": {step: digest for step, digest in self.stamps.items() if step.partition("/")[0] in init},
        } | changed

    def tabulate(self, out: Path, **changed) -> None:
        """Write every table and the costs."""
        for table in (*TABLES, "costs"):
            tabulate({"settings": self.settings(table, **changed)}, self.runs, out)

    def _stamp(self, row: str, seed: int, step: str, verb: str) -> dict:
        content = {
            "step": verb,
            "scale": self.scale,
            "settings": {"of": row} | ({"inference": {"short_side": 64}} if verb == "segment" else {}),
            "recipes": {},
            "row": row,
            "seed": seed,
        }
        self.stamps[f"{row}/seed{seed}/{step}"] = sha256_json(content)
        return content | {"sha256": sha256_json(content)}

    def _train(self, row: str, seed: int) -> None:
        stamp, folder = self._stamp(row, seed, "train", "train"), self.run(row, seed)
        folder.mkdir(parents=True)
        self._weights(row, seed, folder / "model.safetensors")
        inputs = {"coco": "1" * 64}
        if self.rows[row]["weights"]:
            inputs = {"checkpoint": "ab" * 32}
        if init := self.rows[row]["init"]:
            inputs["init"] = sha256_file(self.run(init, seed) / "model.safetensors")
        attention, trains = self.rows[row]["options"].get("attention"), self.rows[row]["method"] != "copy"
        record = {
            "stamp": stamp["sha256"],
            "stamp_content": {key: stamp[key] for key in stamp if key != "sha256"},
            "inputs": inputs,
            "model": sha256_file(folder / "model.safetensors"),
            "parameters": 123456 if trains else 0,
            "time_s": 12.5,
            "peak_memory_mib": 300.25,
            "machine": MACHINE,
            "versions": {"torch": "2.13.0", "hodor": "0.1.0"},
            "commit": "abc123",
            "steps": 200 if trains else 0,
        }
        (folder / "train.json").write_text(json.dumps(record))
        lines = [{"event": "start", "row": row}]
        for step in range(20, 220, 20) if trains else ():
            loss = 2.0 / (1 + step / (50 if attention == "soft" else 80)) + 0.03 * (step % 3)
            line = {"step": step, "steps": 200, "loss": loss, "cross_entropy": loss * 0.6, "dice": loss * 0.4}
            if attention == "soft":
                line["alpha"] = [[a + (layer + 1) * step / 800 for a in START] for layer in range(2)]
            lines.append(line)
        (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _weights(self, row: str, seed: int, path: Path) -> None:
        """An untrained network for a row of HODOR, a placeholder for any other."""
        if self.rows[row]["method"] != "hodor":
            path.write_bytes(f"weights of {row} {seed}".encode())
            return
        import torch

        from hodor.models.base import build_method, save_model

        options = NETWORK | self.rows[row]["options"]
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(f"{row} {seed}".encode()))
            method = build_method("hodor", options)
        if options["attention"] == "soft":  # as after a training: a little beyond their starting values
            for layer, of in enumerate(method.network.encoder.layers):
                start = torch.tensor(START, dtype=torch.float32)
                of.cross_attention.alpha.data.copy_(start + (layer + 1) * 0.25 + 0.05 * seed)
        save_model(path, method, name="hodor", options=options)

    def _segment(self, row: str, seed: int, shift: int) -> None:
        stamp, folder = self._stamp(row, seed, f"{VAL}/segment", "segment"), self.run(row, seed) / VAL
        masks = {}
        for name, (frames, objects) in SEQUENCES.items():
            for frame in range(frames):
                path = folder / "masks" / name / f"{frame:05d}.png"
                # Not all sequences fare alike: in `run`, the masks lie further off.
                write_labels(path, np.roll(labels(frame, objects), shift * (2 if name == "run" else 1), axis=0))
                masks[f"{name}/{frame:05d}.png"] = sha256_file(path)
        chain = {
            "stamp": stamp["sha256"],
            "weights": sha256_file(self.run(row, seed) / "model.safetensors"),
            "data": sha256_file(self.data / "davis.json"),
        }
        (folder / "masks.json").write_text(json.dumps(chain | {"masks": masks}))
        record = {"frames": 16, "time_s": 2.0, "fps": 8.0, "peak_memory_mib": 200, "machine": MACHINE}
        record |= {"versions": {"torch": "2.13.0"}, "commit": "abc123"}
        record["stamp_content"] = {key: stamp[key] for key in stamp if key != "sha256"}
        (folder / "segment.json").write_text(json.dumps(record))


def labels(frame: int, objects: int) -> np.ndarray:
    """uint8 (54, 96): object k is a square that moves right with the frames."""
    found = np.zeros((54, 96), np.uint8)
    for k in range(objects):
        found[6 + 22 * k : 22 + 22 * k, 8 + 6 * frame : 30 + 6 * frame] = k + 1
    return found


def write_val(root: Path) -> None:
    """Val of DAVIS, with its manifest beside it."""
    masks = {name: [labels(frame, of) for frame in range(frames)] for name, (frames, of) in SEQUENCES.items()}
    write_davis(root, "val", masks)
    root.with_suffix(".json").write_text("{}")


def tables() -> dict[str, list[dict[str, str]]]:
    """The lines of every table of the project in the current directory."""
    return {path.stem: read(path) for path in OUT.glob("*.csv")}


def make(project, **changed) -> dict[str, list[dict[str, str]]]:
    project.tabulate(OUT, **changed)
    return tables()


def make_one(project, table: str) -> None:
    tabulate({"settings": project.settings(table)}, project.runs, OUT)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def cells(line: str) -> list[str]:
    """Cells of a line of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def markdown(name: str, part: int = 0) -> list[list[str]]:
    """The cells of a table of a Markdown page, the head first."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", (OUT / f"{name}_table.md").read_text(), re.MULTILINE)
    head, _, *rows = map(cells, blocks[part].splitlines())
    return [head, *rows]


@pytest.fixture
def empty_project(tmp_path, monkeypatch) -> Project:
    """Data, no rows."""
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    write_val(project.data / "davis")
    return project


@pytest.fixture(scope="session")
def made_project(tmp_path_factory) -> Project:
    """Rows of all tables that were run, one that was not, and a baseline, with their tables; made once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("project")
        monkeypatch.chdir(folder)
        project = Project(folder)
        write_val(project.data / "davis")
        project.add("hodor-none-coco", "none", shift=3)
        project.add("hodor-soft-coco", "soft", tables=["ablation", "comparison"], shift=2)
        project.add("hodor-hard-coco", "hard", selected=False)
        project.add("hodor-soft-cyclic", "soft", init="hodor-soft-coco", shift=1)
        project.add("dmn-aoa", method="dmn-aoa", tables=["comparison", "extended"], shift=4, note=NOTE)
        project.add("copy-first-mask", tables=["extended"], shift=6)
        project.tabulate(OUT)
    return project


@pytest.fixture
def tabulated(made_project, tmp_path, monkeypatch) -> Project:
    """A copy of `made_project` to damage."""
    folder = tmp_path / "project"
    shutil.copytree(made_project.folder, folder)
    monkeypatch.chdir(folder)
    return replace(made_project, folder=folder, rows=deepcopy(made_project.rows), stamps=dict(made_project.stamps))


@pytest.fixture
def project(tabulated) -> Project:
    """The same without tables."""
    shutil.rmtree("results")
    return tabulated
