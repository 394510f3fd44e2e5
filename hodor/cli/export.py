"""The verb `export`: results and their provenance as an RO-Crate, one zip to archive or to publish.

Written with `rocrate` from the records that docs/records.md lists, as a Process Run Crate (w3id.org/ro/wfrun/process): every
step is an action with its software, inputs and outputs. Inputs are found by their digest, never by their name.
"""

import mimetypes
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from hodor import paths
from hodor.config.loading import load
from hodor.doctor.artefacts import check_published, check_run
from hodor.errors import HodorError
from hodor.provenance import read_json, read_training, scored_benchmarks, sha256_file

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_LEFT_OUT = {"masks", "checkpoints", "tensorboard"}  # made again from weights, data and logs


def export(out: Path, config: Path, scale: str | None = None, runs: Sequence[str] = ()) -> int:
    """Write runs, or all results of a scale, with their records, settings and data manifests to a zip.

    Args:
        out: zip to write; must not exist.
        config: folder of the configuration.
        scale: scale of the results. None: that of config.yaml.
        runs: runs as `<row>/seed<k>`. None given: all runs, tables and pages of the scale.

    Returns:
        The number of files.

    Raises:
        HodorError: no such run, nothing to export, or a file that is not what its record says; nothing is written.
    """
    scale = scale or load(config).scale.name
    folder, results, reports = paths.runs(scale), paths.results(scale), paths.reports(scale)
    chosen = [folder / run for run in runs] or sorted(path.parent for path in folder.glob("*/seed*/manifest.json"))
    if absent := [str(run) for run in chosen if not (run / "manifest.json").is_file()]:
        raise HodorError(f"{', '.join(absent)}: no finished run; name runs of {folder} as ROW/seedK")
    if not chosen:
        raise HodorError(f"{folder}: no finished run; run the workflow first")
    if out.exists():
        raise HodorError(f"{out}: exists; give a new file")
    if not config.is_dir():
        raise HodorError(f"{config}: no such folder; give that of the configuration")
    published = [] if runs else [results, reports]
    findings = [finding for run in chosen for finding in check_run(run, results / "submissions", deep=True)]
    findings += [finding for place in published for finding in check_published(place)]
    for finding in findings:
        if finding.level == "wrong":
            raise HodorError(f"{finding.text}; {finding.fix}")

    crate = _Crate(", ".join(runs) if runs else f"results of scale {scale}")
    crate.add_files(config.rglob("*.*"), config)
    crate.add_files([*paths.data(scale).glob("*.json"), Path("CITATION.cff"), Path("LICENSE")])
    for place in [*chosen, *published]:
        crate.add_files(place.rglob("*"))
    for run in chosen:
        crate.add_run(run)
    for record in (record for place in published for record in sorted(place.glob("*.provenance.json"))):
        content = read_json(record)
        made = [record, *(record.parent / name for name in content["files"])]
        text = "".join(file.read_text() for file in made if file.suffix == ".csv")
        named = set(re.findall(r"runs/[^\s;,\"]+/manifest\.json", text))
        inputs: dict[str, str | None] = {str(name): sha256_file(name) for name in sorted(named) if Path(name).is_file()}
        crate.add_step(f"make {record.name.split('.')[0]} of scale {scale}", content, inputs, made)
    partial = out.with_name(f".{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        crate.crate.write_zip(partial)
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    return len(crate.files)


class _Crate:
    """An RO-Crate, its files by path and by digest."""

    def __init__(self, content: str) -> None:
        self.crate = ROCrate(version="1.1")
        self.files: dict[Path, Any] = {}
        self.digests: dict[str, Any] = {}
        root, entity = self.crate.root_dataset, self.entity
        root["name"] = f"Differentiable soft-masked attention, reproduced: {content}"
        root["description"] = "Weights, logs, scores, tables and records; actions name commit, versions and data."
        root["license"] = entity("https://spdx.org/licenses/MIT", "CreativeWork", "MIT")
        root["author"] = root["publisher"] = entity("#authors", "Organization", "The hodor-repro authors")
        paper = "Differentiable Soft-Masked Attention"
        root["citation"] = entity("https://arxiv.org/abs/2206.00182", "CreativeWork", paper)
        root["conformsTo"] = entity(PROFILE, "CreativeWork", "Process Run Crate", version="0.5")
        self.crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"

    def entity(self, id: str, kind: str, name: str, **properties: Any) -> Any:
        """Return the entity `id`, which is made once."""
        found = self.crate.get(id)
        properties |= {"@type": kind, "name": name}
        return found or self.crate.add(ContextEntity(self.crate, id, properties=properties))

    def add_files(self, candidates: Iterable[Path], config: Path | None = None) -> None:
        """Add the files of the folder `config`, or of the working directory, but hidden ones and those left out."""
        for path in sorted(set(candidates)):
            if not path.is_file() or path.name.startswith(".") or _LEFT_OUT & set(path.parts):
                continue
            place = Path("config", path.relative_to(config)) if config else path
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            properties = {"name": path.name, "encodingFormat": kind, "sha256": sha256_file(path)}
            file = self.crate.add_file(path, place.as_posix(), properties=properties, record_size=True)
            self.files[path] = self.digests[properties["sha256"]] = file

    def add_run(self, run: Path) -> None:
        """Add the steps of a run from its records."""
        name, benchmarks = f"{run.parent.name} {run.name}", scored_benchmarks(run)
        masks = {benchmark: read_json(run / benchmark / "masks.json") for benchmark in benchmarks}
        if train := read_training(run, masks.values()):
            made = [run / file for file in ("train.json", "model.safetensors", "train.jsonl")]
            self.add_step(f"train {name}", train, train.get("inputs", {}), made)
        for benchmark, record in masks.items():
            folder, score = run / benchmark, read_json(run / benchmark / "score.json")
            inputs = {"weights": record.get("weights"), f"data of {benchmark}": record.get("data")}
            segment = [folder / "masks.json", folder / "segment.json"]
            self.add_step(f"segment {benchmark} with {name}", read_json(segment[1]), inputs, segment)
            inputs = {"masks": score["masks"], f"ground truth of {benchmark}": score.get("truth")}
            made = [folder / "score.json", *(folder / file for file in score.get("files", {}))]
            self.add_step(f"score {benchmark} of {name}", score, inputs, made)

    def add_step(self, name: str, record: dict, inputs: dict[str, str | None], made: Iterable[Path]) -> None:
        """Add an action. `inputs`: name -> digest of what the step read."""
        kind, versions, commit = "SoftwareApplication", record["versions"], record["commit"]
        software = self.entity(f"#{commit}", kind, f"hodor {versions.get('hodor')}", softwareVersion=commit)
        packages = [self.entity(f"#{p}-{v}", kind, p, softwareVersion=v) for p, v in versions.items()]
        software["softwareRequirements"] = packages
        read = [self._input(name, digest) for name, digest in inputs.items() if digest]
        machine = ", ".join(f"{key} {value}" for key, value in record["machine"].items() if value is not None)
        seconds = f"{record['time_s']} s on " if "time_s" in record else ""
        properties = {"name": name, "description": seconds + machine, "agent": self.crate.get("#authors")}
        results = [self.files[path] for path in made if path in self.files]
        objects = read[0] if len(read) == 1 else read
        action = self.crate.add_action(software, f"#{name.replace(' ', '-')}", objects, results, properties)
        self.crate.root_dataset.append_to("mentions", action)

    def _input(self, name: str, digest: str) -> Any:
        absent = f"#sha256-{digest}"  # data that may not be published, or masks
        return self.digests.get(digest) or self.entity(absent, "CreativeWork", name, identifier=f"sha256:{digest}")
