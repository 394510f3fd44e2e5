"""Packages, GPU, memory and disk of this machine."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hodor.data.progress import format_bytes

PROJECT = "hodor-repro"


@dataclass(frozen=True)
class Finding:
    """Result of one check. `fix`: what to do, for everything but `ok`."""

    level: Literal["ok", "warning", "wrong"]
    subject: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.subject:<28} {self.text}" + (f"; fix: {self.fix}" if self.fix else "")


def check_packages(root: Path) -> Iterator[Finding]:
    """Compare installed versions with the project's requirements and with the tested pins of requirements.txt."""
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
    """Return canonical name -> version of the lines `name==version`; empty where there is no file."""
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


def check_machine() -> Iterator[Finding]:
    """Report memory and cores."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("ok", "machine", f"{format_bytes(total)}, {os.cpu_count()} cores")


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
