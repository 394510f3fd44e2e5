"""Provenance of results: digests, stamps, manifests, machine, versions, commit.

A *stamp* is a small JSON file, written by `hodor.stamps`, from which a step of the workflow reads its settings: the part
of the configuration that it uses and the versions of its recipes. Every result records the digests of its stamp and of
its inputs, so that the table step can refuse a result of another configuration.
"""

import contextlib
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from hodor.errors import HodorError

IMPORTED = "imported.json"
"""Record of the import in a run folder (`record_making`)."""
_PACKAGES = (
    *("torch", "torchvision", "numpy", "pandas", "opencv-python", "pycocotools", "scikit-image", "safetensors"),
    *("pydantic", "snakemake", "dvc", "papermill", "matplotlib"),
)


def sha256_file(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes; HodorError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror}); run the step that writes it again") from error


def sha256_files(path: Path, cache: Path | None = None) -> str:
    """Return the hexadecimal sha256 of a file, or of the names and contents of the PNG files below a folder.

    Args:
        path: file or folder.
        cache: JSON file that keeps the digest, so that contents are read again only if a name, a size or a modification
            time has changed. None: contents are always read.
    """
    files: dict[str, os.DirEntry | Path] = {"": path}
    if path.is_dir():
        files = {entry.path[len(os.path.join(path, "")) :]: entry for entry in _png_files(path)}
    known, listing, newest = {}, "", float("inf")
    if cache:
        status = {name: file.stat() for name, file in files.items()}
        listing = sha256_json({name: [found.st_size, found.st_mtime_ns] for name, found in status.items()})
        newest = max((found.st_mtime for found in status.values()), default=0)
        with contextlib.suppress(HodorError):
            known = read_json(cache)
        if (entry := known.get(str(path), {})).get("listing") == listing:
            return entry["sha256"]
    digests = {name: sha256_file(os.fspath(file)) for name, file in files.items()}
    digest = sha256_json(digests) if path.is_dir() else digests[""]
    # The digest of the contents is the identity, because copies and clones have other times. A file of this very moment
    # may change again within the resolution of its time, so its digest is not kept yet.
    if cache and newest < time.time() - 2:
        with contextlib.suppress(OSError):
            write_json_atomic(cache, known | {str(path): {"listing": listing, "sha256": digest}})
    return digest


def _png_files(folder: str | Path) -> Iterator[os.DirEntry]:
    """Yield the PNG files below a folder; unlike `Path.rglob`, without a system call for each."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _png_files(entry.path)
        elif entry.name.endswith(".png") and entry.is_file():
            yield entry


def sha256_json(obj: object) -> str:
    """Return the hexadecimal sha256 of a value's canonical JSON text: sorted keys, no spaces, no NaN."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: str | Path) -> dict:
    """Read the JSON object in a file; HodorError names the file if it is missing, broken or not an object."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise HodorError(f"{path}: not valid JSON ({error}); delete it and run the workflow again") from error
    if not isinstance(content, dict):
        raise HodorError(f"{path}: holds {type(content).__name__}, not a JSON object")
    return content


def read_stamp(path: str | Path) -> dict:
    """Read a stamp and add the key `sha256`, the digest of its canonical content."""
    stamp = read_json(path)
    missing = [key for key in ("step", "scale", "settings", "recipes") if key not in stamp]
    if missing:
        raise HodorError(
            f"{path}: not a stamp of this version, no {', '.join(missing)}; run the workflow again, which writes stamps"
        )
    return stamp | {"sha256": sha256_json(stamp)}


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write a text file so that readers see either the old or the new content, even after a crash.

    Raises:
        OSError: no space or permission; its `filename` is `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_json_atomic(path: str | Path, obj: object) -> None:
    """Write `obj` as JSON atomically, keys in their order; ValueError for NaN and infinity."""
    write_text_atomic(path, json_text(obj))


def json_text(obj: object) -> str:
    """Return the text that `write_json_atomic` writes."""
    return json.dumps(obj, indent=1, allow_nan=False) + "\n"


def peak_memory_mib() -> float:
    """Return the peak resident memory of this process in MiB, without the GPU's memory."""
    # Linux passes ru_maxrss on through fork and exec, so that it may be the parent's.
    if found := _line_of("/proc/self/status", "VmHWM"):
        return int(found.split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def cost(seconds: float) -> dict:
    """Return the last keys of a step's record: its time and peak memory (on a GPU that of the GPU too), and what ran it."""
    torch = sys.modules.get("torch")
    on_gpu = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    return {
        "time_s": round(seconds, 3),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        **({"gpu_peak_memory_mib": round(on_gpu / 2**20, 1)} if on_gpu else {}),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
    }


def machine() -> dict:
    """Return processor, cores, memory (MiB), system and, if torch is loaded and finds one, the GPU."""
    torch = sys.modules.get("torch")  # a step without torch uses no GPU and should not wait for the import
    return {
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, of this project and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    from hodor import __version__

    return found | {"hodor": __version__}


def commit() -> str:
    """Return the git commit of this code, with `-dirty` if tracked files differ from it; `unknown` outside git."""
    head = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", "hodor/__init__.py") else None
    if head is None:
        return "unknown"
    return head + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def record_making(path: Path, files: Iterable[Path] = ()) -> None:
    """Write commit, versions and machine to a file beside an artefact whose own bytes must not depend on them.

    Archives, data sets, tables and pages are the same wherever they are made.

    Args:
        path: file to write.
        files: tables or pages, whose digests no other record holds.
    """
    making = {"commit": commit(), "versions": versions(), "machine": machine()}
    digests = {file.relative_to(path.parent).as_posix(): sha256_file(file) for file in files}
    write_json_atomic(path, making | ({"files": digests} if digests else {}))


def scored_benchmarks(folder: Path) -> list[str]:
    """Return the benchmarks that a run was scored on."""
    return sorted(path.parent.name for path in folder.glob("*/score.json"))


def is_imported(folder: Path) -> bool:
    """Return whether the training of a run is the one that `hodor import` copied, not a later one."""
    record = folder / IMPORTED
    return record.is_file() and read_json(record).get("files") == {"train.json": sha256_file(folder / "train.json")}


def read_training(folder: Path, masks: Iterable[dict]) -> dict:
    """Read train.json of a run; an empty dict for external masks, whose records (masks.json) name no weights."""
    weights = [record.get("weights") for record in masks]
    return {} if weights and not any(weights) else read_json(folder / "train.json")


def write_manifest(folder: Path, row: str, seed: int, benchmarks: Iterable[str] | None = None) -> None:
    """Write manifest.json of a run: its settings, data, versions, machine and cost.

    Keys: row, scale, seed, model (sha256), parameters, commit, versions, machine (of the training, or of the import of
    external masks), config (step -> stamp, with the resolved settings), data (name -> sha256 of a data manifest or of the
    starting weights), steps (step -> time_s, peak_memory_mib, commit, versions, machine), imported (of a training that was
    imported: its record).

    Args:
        folder: run folder.
        row, seed: row and seed of the run.
        benchmarks: benchmarks that must have been scored. None: all that were.

    Raises:
        HodorError: a record is missing or broken.
    """
    benchmarks = scored_benchmarks(folder) if benchmarks is None else benchmarks
    train = read_training(folder, [read_json(folder / benchmark / "masks.json") for benchmark in benchmarks])
    records, data = {"train": train} if train else {}, dict(train.get("inputs", {}))
    for benchmark in benchmarks:
        for step in ("segment", "score"):
            records[f"{benchmark}/{step}"] = read_json(folder / benchmark / f"{step}.json")
        data[f"truth of {benchmark}"] = records[f"{benchmark}/score"].get("truth")
    first = next(iter(records.values()), {})
    costs = ("time_s", "peak_memory_mib", "commit", "versions", "machine")
    content = {
        "row": row,
        "scale": (first.get("stamp_content") or {}).get("scale"),
        "seed": seed,
        **{key: first.get(key) for key in ("model", "parameters", "commit", "versions", "machine")},
        "config": {name: record.get("stamp_content") for name, record in records.items()},
        "data": data,
        "steps": {name: {key: record.get(key) for key in costs} for name, record in records.items()},
    }
    if train and is_imported(folder):
        content["imported"] = read_json(folder / IMPORTED)
    write_json_atomic(folder / "manifest.json", content)


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _line_of(path: str, name: str) -> str | None:
    """Return the value of the first line `name: value` in a file of Linux's /proc; None on other systems."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
