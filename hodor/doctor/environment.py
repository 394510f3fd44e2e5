"""Packages, GPU and disk."""

import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from hodor.data.progress import format_bytes
from hodor.doctor.findings import Finding, Findings

PROJECT = "hodor-repro"


def check_packages(root: Path) -> Findings:
    """Installed versions against what is expected to work (the project's metadata) and what was tested (the pins).

    `root`: the repository, whose requirements.txt is read if it is there.
    """
    pins, checked, faults = read_pins(root / "requirements.txt"), 0, 0
    install = "make install" if pins else "pip install --upgrade hodor-repro"
    try:
        needed = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        text = f"{PROJECT} itself is not installed, so that its needs are not known here"
        yield Finding("warning", "packages", text, install)
        return
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        checked += 1
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            faults += 1
            yield Finding("wrong", f"package {requirement.name}", "not installed", install)
            continue
        pin = pins.get(normal(requirement.name))
        # A local part (2.13.0+cpu) names a build, not a version.
        if not requirement.specifier.contains(found.partition("+")[0], prereleases=True):
            faults += 1
            text = f"{found} is installed, {requirement.specifier} is needed"
            yield Finding("wrong", f"package {requirement.name}", text, install)
        elif pin is not None and found.partition("+")[0] != pin:
            faults += 1
            text = f"{found} is installed, {pin} was tested; numbers may differ in the last digits"
            yield Finding("warning", f"package {requirement.name}", text, install)
    if not faults:
        what = "as pinned" if pins else "recent enough (no requirements.txt here to compare with)"
        yield Finding("ok", "packages", f"{checked} {what}, Python {platform.python_version()}")


def read_pins(path: Path) -> dict[str, str]:
    """Normal name -> version of the lines `name==version`; empty where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = (re.match(r"([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;]+)", line) for line in lines)
    return {normal(match[1]): match[2] for match in found if match}


def normal(name: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_gpu(wanted: bool) -> Findings:
    """Whether torch sees a GPU, its memory and driver. `wanted`: the scale trains on one."""
    import torch

    if not torch.cuda.is_available():
        if not wanted:
            yield Finding("ok", "gpu", "none seen and none needed: the scale trains on the CPU")
        elif torch.version.cuda is None:
            text = f"torch {torch.__version__} is built for the CPU, the scale trains on a GPU"
            yield Finding("wrong", "gpu", text, "pip install torch from the default index, or `device: cpu`")
        else:
            text = f"torch (CUDA {torch.version.cuda}) sees none; driver: {driver() or 'none found'}"
            yield Finding("wrong", "gpu", text, "install or update the NVIDIA driver (nvidia-smi must work)")
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        text = (
            f"{name}, {format_bytes(free)} of {format_bytes(total)} free, CUDA {torch.version.cuda}, driver {driver()}"
        )
        if free < 0.9 * total:
            yield Finding("warning", f"gpu {number}", text, "another process uses it: see nvidia-smi")
        else:
            yield Finding("ok", f"gpu {number}", text)


def driver() -> str:
    """Version of the NVIDIA driver; empty where nvidia-smi does not answer."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


def check_disk(folder: Path, needs: dict[str, int], unknown: list[str]) -> Findings:
    """Free space of the working directory against what is still to be written.

    Args:
        needs: what for -> bytes.
        unknown: what needs room of a size that nobody states.
    """
    free, needed = shutil.disk_usage(folder).free, sum(needs.values())
    parts = [f"{what} {format_bytes(size)}" for what, size in needs.items() if size]
    text = f"{format_bytes(free)} free, about {format_bytes(needed)} still to be written"
    text += f" ({', '.join(parts)})" if parts else ""
    text += f"; unknown sizes: {', '.join(unknown)}" if unknown else ""
    if needed > free:
        mend = f"free {format_bytes(needed - free)}, or work in a folder on a larger disk; fewer rows need less"
        yield Finding("wrong", "disk", text, mend)
    elif needed > 0.8 * free:
        yield Finding("warning", "disk", text, "estimates are rough: free some room before a long run")
    else:
        yield Finding("ok", "disk", text)
