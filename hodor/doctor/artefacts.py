"""Checks of archives, data sets, weights and results against their recorded digests and the current recipes."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hodor import paths
from hodor.config.datasets import RELEASED, WEIGHT_SETS, Source
from hodor.config.loading import Config
from hodor.config.recipes import RECIPES
from hodor.data.checksums import LockFile
from hodor.data.progress import format_bytes
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_file

# Archives, data sets and packs up to this size (bytes) are always read completely.
QUICK = 1 << 30
# How to fix a damaged file of a record.
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
    """Check a data set and its archives, or report how to get them. `deep`: read even large ones."""
    scale, subject = config.scale.name, f"{'starting weights' if dataset in WEIGHT_SETS else 'data set'} {dataset}"
    manifest, root = folder / paths.manifest(scale, dataset), folder / paths.dataset(scale, dataset)
    record, prepared = folder / paths.fetched(scale, dataset), manifest.is_file()
    if record.is_file():

        def recorded(content: dict) -> dict[Path, str]:
            found = {record.parent / name: entry["sha256"] for name, entry in content.items()}
            # Archives of a prepared data set may have been deleted.
            return {path: digest for path, digest in found.items() if path.is_file() or not prepared}

        yield from check_files(f"archives {dataset}", record, recorded, deep)
    if prepared and root.is_dir():
        yield from check_files(subject, manifest, lambda content: _tree(root, content), deep)
    elif prepared:
        yield Finding("ok", subject, "deleted; prepared again where a step needs it")
    else:
        yield _how_to_get(config, subject, dataset, fetched=record.is_file())


def check_pack(config: Config, folder: Path, name: str, deep: bool) -> Iterator[Finding]:
    """Check a pack of training data."""
    manifest, root = (folder / of(config.scale.name, name) for of in (paths.packed_manifest, paths.packed))
    if manifest.is_file() and root.is_dir():

        def recorded(content: dict) -> dict[Path, str]:
            return {root / file: entry["sha256"] for file, entry in content["files"].items()}

        yield from check_files(f"pack {name}", manifest, recorded, deep)
    else:
        yield Finding("ok", f"pack {name}", "not here; packed where a training needs it")


def check_released(config: Config, folder: Path) -> Iterator[Finding]:
    """Check the authors' checkpoints against the lock of their first download; report absent ones and external masks."""
    lock = LockFile(folder / paths.locks("official"))
    for row, file in config.checkpoints.items():
        owner = next((owner for owner, files in RELEASED.items() if file.name in files), "")
        try:
            recorded, _ = lock.apply(Source(owner, "official", file.name))
        except HodorError as error:
            yield Finding("wrong", f"released weights {row}", str(error), f"git checkout {lock.path}")
            continue
        if recorded.sha256 is None:
            yield Finding("ok", f"released weights {row}", f"{file}, no checksum is recorded")
        else:
            digests = {folder / file: recorded.sha256}
            fix = "rm {path} && hodor fetch weights; or remove its entry from {record} if the file is right"
            yield from check_files(f"released weights {row}", lock.path, lambda _, of=digests: of, True, fix)
    if absent := [e.weights for row, e in config.rows.items() if e.weights and row not in config.checkpoints]:
        text = f"absent: {', '.join(absent)}; `hodor fetch weights`, or by hand into {paths.weights()}"
        yield Finding("ok", "released weights", text)
    for row, entry in config.rows.items():
        if entry.masks and (how := config.how_to_get(row)):
            yield Finding("ok", f"external masks {row}", f"absent; {how}")


def check_run(run: Path, submissions: Path) -> Iterator[Finding]:
    """Check weights, masks and scores of one run against its records, and these against the current recipes.

    Args:
        run: folder of the run, `<row>/seed<k>`.
        submissions: folder of the zips for servers.
    """
    subject, ok, stale = f"run {run.parent.name} {run.name}", [], []
    if not (run / "train.json").is_file() and (kept := sorted((run / "checkpoints").glob("step-*.pt"))):
        yield Finding("warning", subject, f"not trained to the end; {kept[-1]} is kept", "the workflow continues there")
    for record in sorted([*run.glob("*.json"), *run.glob("*/*.json")]):
        archive = submissions / run.parent.name / run.name / f"{record.parent.name}.zip"
        files = partial(_of_run, record, archive)
        for finding in check_files(subject, record, files, True, f"{_DELETE} (or get it back: dvc checkout)"):
            if finding.level == "ok":
                ok.append(finding)
            else:
                yield finding
        stale += _stale(record)
    if stale:
        text = f"made by recipes that are no longer current: {', '.join(stale)}"
        yield Finding("warning", subject, text, "the next run of the workflow makes it again")
    elif ok:
        yield Finding("ok", subject, f"files as in its {len(ok)} records, recipes current")


def check_published(folder: Path) -> Iterator[Finding]:
    """Check the tables or the pages of a scale against the records beside them."""
    for record in sorted(folder.glob("*.provenance.json")):
        subject = f"{folder.parent.name} {record.name.removesuffix('.provenance.json')}"
        yield from check_files(subject, record, lambda content: _present(folder, content["files"]), True)


def check_files(
    subject: str, record: Path, recorded: Callable[[dict], dict[Path, str]], deep: bool, fix: str = _DELETE
) -> Iterator[Finding]:
    """Compare files with a record.

    Args:
        subject: subject of the findings.
        record: JSON file.
        recorded: returns the files and digests in the record's content; a folder means all files in it.
        deep: compare the digests of large files too, not only their presence.
        fix: how to fix a damaged file, with {path} and {record}.
    """
    try:
        digests = recorded(read_json(record))
    except HodorError as error:
        yield Finding("wrong", subject, str(error), _DELETE.format(path="", record=record))
        return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"{record}: not a record of the workflow ({error!r})"
        yield Finding("wrong", subject, text, _DELETE.format(path="", record=record))
        return
    files = {path: _files(path) if path.is_dir() else [path] for path in digests if path.exists()}
    size = sum(file.stat().st_size for found in files.values() for file in found)
    whole = deep or size <= QUICK
    found = _digests(files) if whole else {path: digests[path] for path in files}
    bad = [path for path, digest in digests.items() if found.get(path) != digest]
    for path in bad:
        text = f"{path} is missing" if path not in files else f"{path} is not what {record} records (sha256)"
        yield Finding("wrong", subject, text, fix.format(path=path, record=record))
    if digests and not bad:
        checked = "as recorded" if whole else "present (--deep: compares checksums)"
        yield Finding("ok", subject, f"{sum(map(len, files.values()))} files of {format_bytes(size)}, {checked}")


def _tree(root: Path, content: dict) -> dict[Path, str]:
    if (number := len(_files(root))) != content["files"]:
        raise ValueError(f"{root} holds {number} files, recorded are {content['files']}; remove it too")
    return {root: content["sha256"]}


def _of_run(record: Path, archive: Path, content: dict) -> dict[Path, str]:
    """Return the files in a record of a run, without outputs that were deleted completely."""
    folder = record.parent
    if record.name == "train.json":  # results of earlier versions have no `log`
        return _present(folder, {"model.safetensors": content["model"], "train.jsonl": content.get("log")})
    if record.name == "masks.json" and (folder / "masks").is_dir():
        return {folder / "masks" / name: digest for name, digest in content["masks"].items()}
    if record.name == "score.json":
        scores = {folder / name: digest for name, digest in content["files"].items()}
        scores |= _present(folder, {"masks.json": content["masks"]})
        return scores | ({archive: content["submission"]["sha256"]} if archive.is_file() else {})
    return {}


def _present(folder: Path, named: dict[str, str | None]) -> dict[Path, str]:
    """Return those of the named files that exist and have a digest."""
    return {folder / name: digest for name, digest in named.items() if digest and (folder / name).is_file()}


def _stale(record: Path) -> list[str]:
    """Return the recipes in the stamp of a record that have another version now."""
    try:
        stamp = read_json(record).get("stamp_content") or {"recipes": {}}
    except HodorError:
        return []  # reported by `check_files`
    name, versions = f"{record.parent.name}/{record.name}", stamp.get("recipes")
    if versions is None:
        return [f"{name} (older than recipe versions)"]
    now = {recipe: RECIPES.get(recipe, "none") for recipe in versions}
    return [f"{name} ({recipe} {v}, now {now[recipe]})" for recipe, v in versions.items() if v != now[recipe]]


def _how_to_get(config: Config, subject: str, dataset: str, fetched: bool) -> Finding:
    scale, place = config.scale.name, paths.archives(config.scale.name, dataset)
    if fetched or not (listed := config.archives(dataset)) or config.mirror is not None:
        source = "its archives" if fetched else config.mirror or "the generator, or its folder"
        return Finding("ok", subject, f"not prepared yet; the workflow makes it from {source}")
    if any(entry["address"] is None for entry in listed):
        return Finding("wrong", subject, "not here, and no address is known", "set `mirror` in config/config.yaml")
    if by_hand := [entry["archive"] for entry in listed if entry["log_in"]]:
        fix = f"download {', '.join(by_hand)} by hand into {place}/ or a mirror; `hodor fetch` shows from where"
        return Finding("warning", subject, "not here, and behind a log-in", fix)
    return Finding(
        "warning", subject, "not here yet", f"hodor fetch {dataset} --scale {scale}; the workflow does it too"
    )


def _files(root: Path) -> list[Path]:
    """Return the files below a folder without Snakemake's time stamp of the folder."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != ".snakemake_timestamp")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _digests(files: dict[Path, list[Path]]) -> dict[Path, str]:
    """Return the sha256 of files, and of folders as `prepare` computes it: over "<sha256>  <relative path>" lines."""
    inside = [file for found in files.values() for file in found]
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        digests = dict(zip(inside, pool.map(sha256_file, inside), strict=True))
    for folder, found in ((path, found) for path, found in files.items() if path not in digests):
        lines = "".join(f"{digests[file]}  {file.relative_to(folder).as_posix()}\n" for file in found)
        digests[folder] = hashlib.sha256(lines.encode()).hexdigest()
    return digests
