"""The verb `doctor`: check packages, machine, data and results, and print a line per check."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hodor import paths
from hodor.config.loading import Config, load
from hodor.data.progress import format_bytes
from hodor.doctor.artefacts import Finding, check_dataset, check_published, check_released, check_run
from hodor.doctor.cost import archive_bytes, parameters, run_bytes
from hodor.errors import HodorError

PROJECT = "hodor-repro"


def doctor(config_folder: Path, overrides: dict[str, Any], folder: Path = Path(), *, deep: bool = False) -> None:
    """Print a line per check.

    Args:
        config_folder: configuration folder.
        overrides: keys of config.yaml (`scale`, `rows`, `mirror`).
        folder: working directory of the workflow.
        deep: compare files with their recorded checksums.

    Raises:
        HodorError: a check has found something wrong (after all checks), or a fault in the configuration.
    """
    config, levels = load(config_folder, overrides, folder), []
    for finding in _findings(config, config_folder.resolve().parent, folder, deep):
        print(finding, flush=True)
        levels.append(finding.level)
    wrong = levels.count("wrong")
    print(f"{len(levels)} checks: {levels.count('ok')} ok, {levels.count('warning')} with a warning, {wrong} wrong")
    if wrong:
        raise HodorError(f"{wrong} of {len(levels)} checks found something wrong; fix it as the lines above show")


def needed_space(config: Config, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Return kind of file -> bytes still to be written below `folder`, and files of unknown size."""
    scale, sizes, unknown = config.scale.name, dict.fromkeys(("archives", "data sets", "runs"), 0), []
    for dataset in config.needed_datasets():
        if not (folder / paths.manifest(scale, dataset)).is_file():
            known, without = archive_bytes(config, dataset)
            there = (folder / paths.archives(scale, dataset)).glob("*")
            sizes["archives"] += max(known - sum(path.stat().st_size for path in there), 0)
            sizes["data sets"] += known  # images hardly compress
            unknown += without
    for row in (row for row in config.needed() if not config.rows[row].masks):
        left = sum(not (folder / paths.run(scale, row, seed) / "train.json").is_file() for seed in config.seeds_of(row))
        if left:
            sizes["runs"] += left * run_bytes(parameters(config, row), config.stage(row) is not None)
    return sizes, unknown


def _findings(config: Config, root: Path, folder: Path, deep: bool) -> Iterator[Finding]:
    scale = config.scale.name
    yield from check_packages(root)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("ok", "machine", f"{format_bytes(memory)}, {os.cpu_count()} cores")
    yield from check_gpu(config.scale.device == "cuda")
    yield from check_disk(folder, *needed_space(config, folder))
    for dataset in config.needed_datasets():
        yield from check_dataset(config, folder, dataset, deep)
    yield from check_released(config, folder, deep)
    for run in sorted((folder / paths.runs(scale)).glob("*/seed*")):
        yield from check_run(run, folder / paths.results(scale) / "submissions", deep)
    for published in (paths.results(scale), paths.reports(scale)) if deep else ():
        yield from check_published(folder / published)


def check_packages(root: Path) -> Iterator[Finding]:
    """Compare installed versions with the requirements and with the tested pins of requirements.txt."""
    pins = read_pins(root / "requirements.txt")
    install = "make install" if pins else f"pip install --upgrade '{PROJECT}[pipeline,track]'"
    try:
        requirements = [Requirement(text) for text in metadata.requires(PROJECT) or []]
    except metadata.PackageNotFoundError:
        yield Finding("warning", "packages", f"{PROJECT} is not installed, so its requirements are not known", install)
        return
    extras = ({"extra": extra} for extra in ("pipeline", "track"))
    known = {r.name: r for extra in extras for r in requirements if r.marker is None or r.marker.evaluate(extra)}
    faults, needed = 0, list(known.values())
    for requirement in needed:
        subject = f"package {requirement.name}"
        try:
            # A local part (2.13.0+cpu) names a build, not a version.
            found = metadata.version(requirement.name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found = None
        pin = pins.get(canonicalize_name(requirement.name), found)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            text = f"{found or 'nothing'} is installed, {requirement.specifier} is needed"
            yield Finding("wrong", subject, text, install)
        elif found != pin:
            text = f"{found} is installed, {pin} was tested; numbers may differ in the last digits"
            yield Finding("warning", subject, text, install)
        else:
            continue
        faults += 1
    if not faults:
        what = "as pinned" if pins else "recent enough (no requirements.txt to compare with)"
        yield Finding("ok", "packages", f"{len(needed)} {what}, Python {platform.python_version()}")


def read_pins(path: Path) -> dict[str, str]:
    """Return canonical name -> version of the lines `name==version`; empty if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pins = [Requirement(line) for line in lines if "==" in line and not line.startswith(("#", "-"))]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def check_gpu(wanted: bool) -> Iterator[Finding]:
    """Report GPUs with their memory, and which deformable convolution they run; `wanted`: the scale needs one."""
    import torch

    if not torch.cuda.is_available():
        if not wanted:
            yield Finding("ok", "gpu", "none found and none needed: the scale trains on the CPU")
        elif torch.version.cuda is None:
            text = f"torch {torch.__version__} is built for the CPU, the scale trains on a GPU"
            yield Finding("wrong", "gpu", text, "pip install torch from the default index, or `device: cpu`")
        else:
            text = f"torch (CUDA {torch.version.cuda}) finds none"
            yield Finding("wrong", "gpu", text, "install or update the NVIDIA driver (nvidia-smi must work)")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        memory = f"{format_bytes(free)} of {format_bytes(total)} free"
        text = f"{torch.cuda.get_device_name(number)}, {memory}, CUDA {torch.version.cuda}"
        busy = free < 0.9 * total
        fix = "another process uses it: see nvidia-smi" if busy else ""
        yield Finding("warning" if busy else "ok", f"gpu {number}", text, fix)
    try:
        from torchvision.ops import deform_conv2d  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # the last two: a build for another torch
        text = f"cannot be imported ({str(error).splitlines()[0]}): a GPU runs deformable convolutions in plain PyTorch"
        fix = "pip install the torchvision that belongs to this torch, for speed" if wanted else ""
        yield Finding("warning" if wanted else "ok", "torchvision", text, fix)
    else:
        text = f"{metadata.version('torchvision')}: a GPU runs its deformable convolution"
        yield Finding("ok", "torchvision", text)


def check_disk(folder: Path, needs: dict[str, int], unknown: list[str]) -> Iterator[Finding]:
    """Compare the free space of the working directory with what is still to be written.

    Args:
        folder: the working directory.
        needs: kind of file -> bytes.
        unknown: files of unknown size.
    """
    free, needed = shutil.disk_usage(folder).free, sum(needs.values())
    parts = ", ".join(f"{what} {format_bytes(size)}" for what, size in needs.items() if size)
    text = f"{format_bytes(free)} free, about {format_bytes(needed)} still to be written"
    text += f" ({parts})" if parts else ""
    text += f"; unknown sizes: {', '.join(unknown)}" if unknown else ""
    if needed > free:
        fix = f"free {format_bytes(needed - free)}, or work on a larger disk; fewer rows need less"
        yield Finding("wrong", "disk", text, fix)
    elif needed > 0.8 * free:
        yield Finding("warning", "disk", text, "estimates are rough: free some space before a long run")
    else:
        yield Finding("ok", "disk", text)
