"""Sentences that tables and pages share: what a number means, where it was measured and with what."""

from collections.abc import Iterable

from hodor.reporting.runs import Run

# The packages that compute the numbers; the manifests list more.
_NAMED = (
    "hodor",
    "python",
    "torch",
    "numpy",
    "opencv-python",
    "pycocotools",
    "scikit-image",
)


def scale_statement(settings: dict) -> str:
    """What the numbers of this scale say and do not say, for the head of every table and page.

    Args:
        settings: those of the stamp: scale, caption.
    """
    text = f"Measured at {settings['scale']} scale. {settings['caption'].strip()}"
    # Whoever writes a caption may forget the one thing that no reader may miss.
    if settings["scale"] != "paper" and "nothing about the paper's numbers" not in text:
        text += " These numbers say nothing about the paper's numbers."
    return text


def provenance_lines(runs: list[Run], seeds: Iterable[int]) -> list[tuple[str, str]]:
    """(what, value) pairs: seeds, code, machine, versions and metric of all steps of these runs; no times.

    More than one value of a thing is shown as such: a table whose rows come from two commits says so.
    """
    steps = [step for run in runs for step in _steps(run)]
    metrics = [p.score.get("metric") for run in runs for p in run.predictions.values()]
    versions = [
        f"{name} {version}"
        for name in _NAMED
        for version in _unique(step.get("versions", {}).get(name) for step in steps)
    ]
    return [
        ("seeds", ", ".join(map(str, seeds))),
        ("commit", "; ".join(_unique(step.get("commit") for step in steps)) or "unknown"),
        ("machine", "; ".join(_unique(machine_line(step.get("machine")) for step in steps)) or "unknown"),
        ("versions", ", ".join(versions) or "unknown"),
        ("metric", "; ".join(_unique(metrics)) or "nothing was scored"),
    ]


def machine_line(machine: dict | None) -> str | None:
    """A machine (see `hodor.provenance.machine`) in one line."""
    if not machine:
        return None
    parts = [machine.get("processor") or "unknown processor", f"{machine.get('cores', '?')} cores"]
    if machine.get("memory_mib"):
        parts.append(f"{machine['memory_mib'] / 1024:.0f} GiB")
    return ", ".join([*parts, machine.get("gpu") or "no GPU"])


def _steps(run: Run) -> list[dict]:
    return [run.train, *(step for p in run.predictions.values() for step in (p.segment, p.score))]


def _unique(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
