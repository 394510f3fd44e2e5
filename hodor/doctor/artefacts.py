"""Checks of archives, data sets, weights and results: what is absent, made by older recipes or, on request, damaged."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hodor import paths
from hodor.config.datasets import RELEASED, WEIGHT_SETS
from hodor.config.loading import Config
from hodor.config.recipes import RECIPES
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_file
from hodor.records import Fault, run_faults

_DELETE = "rm -rf {path} {record}; the workflow makes it again"


@dataclass(frozen=True)
class Finding:
    """Result of one check. `fix`: what to do, unless it is `ok`."""

    level: Literal["ok", "warning", "wrong"]
    subject: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.subject:<28} {self.text}" + (f"; fix: {self.fix}" if self.fix else "")


def check_dataset(config: Config, folder: Path, dataset: str, deep: bool) -> Iterator[Finding]:
    """Report how to get a data set that is absent. `deep`: compare it and its archives with their recorded digests."""
    scale, subject = config.scale.name, f"{'starting weights' if dataset in WEIGHT_SETS else 'data set'} {dataset}"
    manifest, root = folder / paths.manifest(scale, dataset), folder / paths.dataset(scale, dataset)
    record = folder / paths.fetched(scale, dataset)
    if deep and record.is_file():

        def recorded(content: dict) -> dict[Path, str]:
            return _present(record.parent, {name: entry["sha256"] for name, entry in content.items()})

        yield from compare(f"archives {dataset}", record, recorded)
    if not manifest.is_file():
        yield _how_to_get(config, subject, dataset, fetched=record.is_file())
    elif not root.is_dir():
        yield Finding("ok", subject, "deleted; prepared again where a step needs it")
    elif deep:
        yield from compare(subject, manifest, lambda content: {root: content["sha256"]})
    else:
        yield Finding("ok", subject, "prepared")


def check_released(config: Config, folder: Path, deep: bool) -> Iterator[Finding]:
    """Report absent checkpoints of the authors and external masks. `deep`: compare checkpoints with their first download."""
    lock = folder / paths.locks("official")
    for row, file in config.checkpoints.items() if deep and lock.is_file() else ():
        name = next((f"{owner}/{file.name}" for owner, files in RELEASED.items() if file.name in files), "")

        def recorded(content: dict, file: Path = folder / file, name: str = name) -> dict[Path, str]:
            return {file: content[name]["sha256"]} if name in content else {}

        fix = f"rm {folder / file} && hodor fetch weights; or correct {lock} if the file is right"
        yield from compare(f"released weights {row}", lock, recorded, fix)
    if absent := [e.weights for row, e in config.rows.items() if e.weights and row not in config.checkpoints]:
        text = f"absent: {', '.join(absent)}; `hodor fetch weights`, or by hand into {paths.weights()}"
        yield Finding("ok", "released weights", text)
    for row, entry in config.rows.items():
        if entry.masks and (how := config.how_to_get(row)):
            yield Finding("ok", f"external masks {row}", f"absent; {how}")


def check_run(run: Path, submissions: Path, deep: bool) -> Iterator[Finding]:
    """Compare the recipe versions of a run with the current ones. `deep`: compare its files with its records too.

    Args:
        run: folder of the run, `<row>/seed<k>`.
        submissions: folder of the zips for servers.
        deep: compare weights, masks and scores.
    """
    subject, records = f"run {run.parent.name} {run.name}", sorted([*run.glob("*.json"), *run.glob("*/*.json")])
    if deep:
        faults = read_faults(run)
        for fault in faults:
            yield Finding("wrong", subject, fault.text, _DELETE.format(path=" ".join(map(str, fault.files)), record=""))
        if not faults:
            yield Finding("ok", subject, "files as recorded")
    for score in run.glob("*/score.json") if deep else ():
        archive = submissions / run.parent.name / run.name / f"{score.parent.name}.zip"
        if archive.is_file():
            yield from compare(subject, score, lambda content, of=archive: {of: content["submission"]["sha256"]})
    stale = [text for record in records for text in _stale(record)]
    if stale:
        text = f"made by recipes that are no longer current: {', '.join(stale)}"
        yield Finding("warning", subject, text, "the next run of the workflow makes it again")
    else:
        yield Finding("ok", subject, "recipes current")


def read_faults(run: Path, *differs: Callable[[str, dict, dict], str]) -> list[Fault]:
    """Return the faults of all files of a run. `differs`: as of `hodor.records.run_faults`, if given."""
    records = (*run.glob("*.json"), *run.glob("*/*.json"))
    benchmarks = sorted({path.parent.name for path in records if path.parent != run})
    try:
        return list(run_faults(run, benchmarks, *differs, deep=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [Fault(f"{run}: its records are not of the workflow ({error!r})", records)]


def check_published(folder: Path) -> Iterator[Finding]:
    """Compare the tables or the pages of a scale with the records beside them."""
    for record in sorted(folder.glob("*.provenance.json")):
        subject = f"{folder.parent.name} {record.name.removesuffix('.provenance.json')}"
        yield from compare(subject, record, lambda content: _present(folder, content["files"]))


def compare(
    subject: str, record: Path, recorded: Callable[[dict], dict[Path, str]], fix: str = _DELETE
) -> Iterator[Finding]:
    """Compare files with a record.

    Args:
        subject: subject of the findings.
        record: JSON file.
        recorded: returns the files and digests in the record's content; a folder means all files in it.
        fix: how to fix a damaged file, with {path} and {record}.
    """
    try:
        digests = recorded(read_json(record))
    except (HodorError, KeyError, TypeError, ValueError, AttributeError) as error:
        text = str(error) if isinstance(error, HodorError) else f"{record}: not a record of the workflow ({error!r})"
        yield Finding("wrong", subject, text, fix.format(path="", record=record))
        return
    bad = [path for path, digest in digests.items() if not path.exists() or _digest(path) != digest]
    for path in bad:
        text = f"{path} is not what {record} records (sha256)" if path.exists() else f"{path} is missing"
        yield Finding("wrong", subject, text, fix.format(path=path, record=record))
    if digests and not bad:
        yield Finding("ok", subject, f"as recorded in {record.name}")


def _present(folder: Path, named: dict[str, str | None]) -> dict[Path, str]:
    """Return those of the named files that exist and have a digest."""
    return {folder / name: digest for name, digest in named.items() if digest and (folder / name).is_file()}


def _stale(record: Path) -> list[str]:
    """Return the recipes in the stamp of a record that have another version now."""
    try:
        stamp = read_json(record).get("stamp_content") or {"recipes": {}}
    except HodorError:
        return []  # the workflow makes it again
    name, versions = f"{record.parent.name}/{record.name}", stamp.get("recipes")
    if versions is None:
        return [f"{name} (older than recipe versions)"]
    now = {recipe: RECIPES.get(recipe, "none") for recipe in versions}
    return [f"{name} ({recipe} {v}, now {now[recipe]})" for recipe, v in versions.items() if v != now[recipe]]


def _how_to_get(config: Config, subject: str, dataset: str, fetched: bool) -> Finding:
    scale, place = config.scale.name, paths.archives(config.scale.name, dataset)
    if fetched or not (listed := config.archives(dataset)) or config.mirror is not None:
        source = config.mirror or ("its folder" if dataset in config.own else "the generator")
        source = "its archives" if fetched else source
        return Finding("ok", subject, f"not prepared yet; the workflow makes it from {source}")
    if any(entry["address"] is None for entry in listed):
        return Finding("wrong", subject, "not here, and no address is known", "set `mirror` in config/config.yaml")
    if by_hand := [entry["archive"] for entry in listed if entry["log_in"]]:
        fix = f"download {', '.join(by_hand)} by hand into {place}/ or a mirror; `hodor fetch` shows from where"
        return Finding("warning", subject, "not here, and behind a log-in", fix)
    return Finding(
        "warning", subject, "not here yet", f"hodor fetch {dataset} --scale {scale}; the workflow does it too"
    )


def _digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder as `prepare` records it: over "<sha256>  <relative path>" lines."""
    if path.is_file():
        return sha256_file(path)
    files = (file for file in path.rglob("*") if file.is_file() and file.name != paths.SNAKEMAKE_TIMESTAMP)
    named = sorted((file.relative_to(path).as_posix(), file) for file in files)
    return hashlib.sha256("".join(f"{sha256_file(file)}  {name}\n" for name, file in named).encode()).hexdigest()
