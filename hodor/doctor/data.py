"""Archives, data sets and packs against their records."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.datasets import ARCHIVES, RECORD, archives
from hodor.config.loading import Config
from hodor.config.packs import PackId
from hodor.data.progress import format_bytes
from hodor.doctor.findings import Finding, Findings
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_file
from hodor.records import Records

# Archives up to this size (bytes) are always read whole.
QUICK = 1 << 28


def needed_datasets(config: Config) -> list[str]:
    """Data sets that the selected rows and the scale's benchmarks read, in the scale's order."""
    wanted = {dataset for row in config.needed() for dataset in config.datasets(row)}
    wanted |= {get_benchmark(benchmark).dataset for benchmark in config.scale.benchmarks}
    return [dataset for dataset in config.scale.datasets if dataset in wanted]


def check_archives(config: Config, folder: Path, dataset: str, deep: bool) -> Findings:
    """Whether the archives of a data set are there, with the size and checksum that were recorded.

    `folder`: working directory. `deep`: every checksum, not only those of small archives.
    """
    scale, subject = config.scale.name, f"archives {dataset}"
    place = folder / paths.archives(scale, dataset)
    fetch = f"snakemake --cores all --config scale={scale} -- {paths.fetched(scale, dataset)}"
    if not (place / RECORD).is_file():
        yield _not_fetched(config, folder, dataset, subject, fetch)
        return
    try:
        recorded = read_json(place / RECORD)
        sizes = sum(record["size"] for record in recorded.values() if record["sha256"])
    except (HodorError, KeyError, TypeError) as error:
        yield Finding("wrong", subject, _broken(place / RECORD, error), f"rm {place / RECORD} && {fetch}")
        return
    read, faults = 0, 0
    for name in [*ARCHIVES[dataset], *sorted(set(recorded) - set(ARCHIVES[dataset]))]:
        path, record = place / name, recorded.get(name, {})
        again = f"rm -f {path} {place / RECORD} && {fetch}"
        fault = _archive_fault(path, record, deep)
        if fault:
            faults += 1
            yield Finding("wrong", subject, fault, again)
        else:
            read += deep or record["size"] <= QUICK
    if not faults:
        text = f"{len(recorded)} of {format_bytes(sizes)}, sizes as recorded, {read} checksums compared"
        yield Finding("ok", subject, text + ("" if read == len(recorded) else " (--deep: all)"))


def _archive_fault(path: Path, record: dict, deep: bool) -> str:
    if not record:
        return f"{path} is not in the record"
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != record["size"]:
        return f"{path} has {size} bytes, recorded are {record['size']}"
    if (deep or size <= QUICK) and sha256_file(path) != record["sha256"]:
        return f"{path} differs from what was fetched (sha256)"
    return ""


def _not_fetched(config: Config, folder: Path, dataset: str, subject: str, fetch: str) -> Finding:
    if (folder / paths.manifest(config.scale.name, dataset)).is_file():
        return Finding("ok", subject, "not there, and not needed: the data set is prepared")
    listed = archives(config.folder / "datasets.csv", dataset, config.scale.edition)
    by_hand = [entry["archive"] for entry in listed if entry["log_in"]]
    if config.mirror is None and any(entry["address"] is None for entry in listed):
        return Finding("wrong", subject, "not fetched, and no address is known", "set `mirror` in config/config.yaml")
    if by_hand and config.mirror is None:
        place = paths.archives(config.scale.name, dataset)
        mend = f"download {', '.join(by_hand)} by hand into {place}/ or a mirror; `hodor fetch` says from where"
        return Finding("warning", subject, "not fetched, and behind a log-in", mend)
    return Finding("warning", subject, "not fetched yet", f"the workflow does it: {fetch}")


def check_dataset(config: Config, folder: Path, dataset: str, deep: bool) -> Findings:
    """Whether a prepared data set is what its manifest says: number of files, and with `deep` every checksum."""
    scale, subject = config.scale.name, f"data set {dataset}"
    path, root = folder / paths.manifest(scale, dataset), folder / paths.dataset(scale, dataset)
    again = f"snakemake --cores all --config scale={scale} --force -- {paths.manifest(scale, dataset)}"
    if not path.is_file():
        yield Finding("warning", subject, "not prepared yet", f"the workflow does it: {again.replace('--force ', '')}")
        return
    try:
        manifest = read_json(path)
        number, digest, origin = manifest["files"], manifest["sha256"], dict(manifest["archives"])
    except (HodorError, KeyError, TypeError, ValueError) as error:
        yield Finding("wrong", subject, _broken(path, error), again)
        return
    if not root.is_dir():
        text = f"{root} is missing; only its manifest is there"
        yield Finding("warning", subject, text, f"where a step asks for it: {again}")
        return
    files = list(_files(root))
    empty = [name for name, size in files if size == 0]
    record = folder / paths.fetched(scale, dataset)
    if len(files) != number:
        yield Finding("wrong", subject, f"{root} holds {len(files)} files, its manifest says {number}", again)
    elif empty and not deep:
        yield Finding("wrong", subject, f"{root / empty[0]} is empty ({len(empty)} such)", again)
    elif deep and _digest(root, files) != digest:
        yield Finding("wrong", subject, f"a file in {root} differs from what was prepared (sha256)", again)
    elif record.is_file() and _of_other_archives(origin, record):
        yield Finding("wrong", subject, f"{root} was prepared from other archives than those fetched last", again)
    else:
        kind = "every checksum compared" if deep else "as many as its manifest says (--deep: compares checksums)"
        yield Finding("ok", subject, f"{len(files)} files, {kind}")


def _files(root: Path) -> Iterable[tuple[str, int]]:
    """Relative path and size of every file, links not followed."""
    for place, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            yield path.relative_to(root).as_posix(), path.lstat().st_size


def _digest(root: Path, files: Iterable[tuple[str, int]]) -> str:
    """The checksum over all files, as `hodor.data.prepare.write_manifest` makes it."""
    lines = "".join(f"{sha256_file(root / name)}  {name}\n" for name in sorted(name for name, _ in files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _of_other_archives(origin: dict[str, str], record: Path) -> bool:
    try:
        recorded = {name: entry.get("sha256") for name, entry in read_json(record).items()}
    except (HodorError, AttributeError):
        return False  # told by the check of the archives
    return any(recorded.get(name) != sha256 for name, sha256 in origin.items())


def _broken(path: Path, error: Exception) -> str:
    """What is said of a record that cannot be used."""
    return str(error) if isinstance(error, HodorError) else f"{path}: not as the workflow writes it ({error!r})"


def check_pack(config: Config, records: Records, folder: Path, id: PackId, deep: bool) -> Findings:
    """Whether a pack is what its manifest says (sizes; with `deep` checksums), and of the present data and settings."""
    scale, subject = config.scale.name, f"pack {id.name}"
    path, root = folder / paths.packed_manifest(scale, id.name), folder / paths.packed(scale, id.name)
    again = f"snakemake --cores all --config scale={scale} --force -- {paths.packed_manifest(scale, id.name)}"
    if not path.is_file():
        yield Finding("warning", subject, "not packed yet", f"the workflow does it: {again.replace('--force ', '')}")
        return
    try:
        files = read_json(path)["files"]
        sizes = {name: entry["size"] for name, entry in files.items() if entry["sha256"]}
    except (HodorError, KeyError, TypeError, AttributeError) as error:
        yield Finding("wrong", subject, _broken(path, error), again)
        return
    for name, entry in files.items():
        file = root / name
        if not file.is_file() or file.stat().st_size != entry["size"]:
            yield Finding("wrong", subject, f"{file} is missing or has another size than recorded", again)
            return
        if deep and sha256_file(file) != entry["sha256"]:
            yield Finding("wrong", subject, f"{file} differs from what was packed (sha256)", again)
            return
    if records.pack_data(id.name):
        text = "made from other data or with other settings than the present ones"
        yield Finding("warning", subject, text, "the next training that reads it packs it again")
        return
    kind = "checksums" if deep else "sizes"
    yield Finding("ok", subject, f"{len(files)} files of {format_bytes(sum(sizes.values()))}, {kind} as recorded")
