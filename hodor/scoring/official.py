"""The official DAVIS toolkit (davis2017-evaluation): the number of record wherever it is installed.

Its `DAVISEvaluation` runs beside our own scoring; every number of every object must agree, and where it does the tables
carry the toolkit's. What it is known for is kept out here: every fatal error of it ends with exit status 0, so
that only a complete result counts; it prefers old CSV files in the results folder to scoring, and rounds the new ones,
so that it gets a folder of its own and its numbers are taken from memory; its default task is the unsupervised one.

The package is the extra `official`, which is on no package index. It scores DAVIS-2017 and nothing else.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hodor.errors import HodorError
from hodor.provenance import sha256_file, sha256_json
from hodor.scoring.jf import statistics
from hodor.scoring.sequences import SequenceScores

PACKAGE = "davis2017"

TOLERANCE = 1e-9
"""Largest difference of two numbers (0..1) that are taken for the same."""

STATISTICS = ("J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""Names of an object's six numbers, in the order in which this module and the CSV files hold them."""

_BENCHMARKS = ("davis2017-val", "davis2017-test-dev")
# The toolkit's decay is wrong for more scored frames, see `hodor.scoring.jf.statistics`.
_LONGEST_DECAY = 255
_MEND = "install it with: pip install '.[official]'"


@dataclass(frozen=True)
class OfficialScores:
    """What the toolkit found.

    objects: "<sequence>_<id>" -> STATISTICS of the object, unrounded, in the order of the sequences.
    toolkit: which toolkit it was and how far it lay from ours, for provenance files.
    metric: which code computed the numbers, in one line for provenance files and tables.
    """

    objects: dict[str, tuple[float, ...]]
    toolkit: dict[str, Any]
    metric: str


def installed() -> bool:
    """Whether the toolkit can be imported; it is not imported."""
    return find_spec(PACKAGE) is not None


def use_official(benchmark: str, wanted: bool | None) -> bool:
    """Whether the toolkit is to score a benchmark.

    Args:
        benchmark: its id.
        wanted: True: it must; False: it must not; None: it does where it is installed and knows the benchmark.

    Raises:
        HodorError: it must, but it is not installed or does not know the benchmark.
    """
    known = benchmark in _BENCHMARKS
    if wanted and not known:
        raise HodorError(
            f"benchmark '{benchmark}': the official DAVIS toolkit scores {' and '.join(_BENCHMARKS)} only; "
            "leave --official out"
        )
    if wanted and not installed():
        raise HodorError(f"the official DAVIS toolkit (package {PACKAGE}) is not installed; {_MEND}")
    return known and wanted is not False and installed()


def official_scores(root: Path, split: str, pred: Path, scores: Sequence[SequenceScores]) -> OfficialScores:
    """Scores masks with the toolkit and compares with ours.

    Args:
        root: folder that holds DAVIS/.
        split: "val" or "test-dev".
        pred: folder that holds <sequence>/<frame>.png.
        scores: ours, of all sequences of the split.

    Raises:
        HodorError: the toolkit failed, left an object out, or differs from ours by more than TOLERANCE.
    """
    result = _run(root / "DAVIS", split, pred, [sequence.name for sequence in scores])
    objects = _objects(result["metrics"])
    ours = {
        f"{sequence.name}_{found.id}": (*statistics(found.j), *statistics(found.f))
        for sequence in scores
        for found in sequence.objects
    }
    for problem, names in (("left out", set(ours) - set(objects)), ("scored unasked", set(objects) - set(ours))):
        if names:
            raise HodorError(
                f"{pred}: the official DAVIS toolkit {problem} {len(names)} object(s), {sorted(names)[0]} first; "
                "its scores are not used: install it anew at the commit that pyproject.toml names"
            )
    long = {
        f"{sequence.name}_{found.id}"
        for sequence in scores
        for found in sequence.objects
        if len(found.frames) > _LONGEST_DECAY
    }
    # There ours is the number of record.
    objects = {name: _with_decay_of(objects[name], ours[name]) if name in long else objects[name] for name in ours}
    difference = max(_difference(pred, name, objects[name], ours[name]) for name in ours)
    overall = [tuple(np.mean(list(numbers.values()), axis=0)) for numbers in (objects, ours)]
    difference = max(difference, _difference(pred, "the mean over objects", *overall))
    toolkit = _describe(Path(result["package"])) | {"largest_difference": difference}
    if long:
        toolkit["decay_of_hodor"] = sorted(long)
    name = f"{PACKAGE} {toolkit['version']}, commit {toolkit['commit'] or 'unknown'}"
    return OfficialScores(
        objects,
        toolkit,
        f"official DAVIS toolkit ({name}, code {toolkit['code'][:12]}); hodor.scoring agrees within {TOLERANCE:g}",
    )


def _run(davis: Path, split: str, pred: Path, sequences: Sequence[str]) -> dict[str, Any]:
    """The toolkit's answer, from a process of its own that works in a fresh folder."""
    with TemporaryDirectory(prefix="hodor-official-") as temporary:
        fresh = Path(temporary)
        masks, answer, words = fresh / "masks", fresh / "answer.json", fresh / "words.txt"
        masks.mkdir()
        for sequence in sequences:
            (masks / sequence).symlink_to((pred / sequence).resolve(), target_is_directory=True)
        # The same modules as here, though the working directory is another.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with open(words, "wb") as file:
            status = subprocess.run(
                [sys.executable, "-m", __name__, davis.resolve(), split, masks, answer],
                cwd=fresh,
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        # A fatal error of the toolkit is an exit with status 0 and a remark; the answer is written last.
        if status or not answer.is_file():
            said = [line for line in words.read_text(errors="replace").replace("\r", "\n").split("\n") if line.strip()]
            raise HodorError(
                f"{pred}: the official DAVIS toolkit ended without scores (exit status {status}); it said: "
                f"{' / '.join(said[-3:]) or 'nothing'}. Install it anew at the commit that pyproject.toml names, or score "
                "with --no-official"
            )
        return json.loads(answer.read_text())


def _evaluate(davis: str, split: str, masks: str, answer: str) -> None:
    """What the other process does: calls the toolkit and writes its unrounded numbers."""
    from davis2017 import evaluation

    found = evaluation.DAVISEvaluation(davis_root=davis, task="semi-supervised", gt_set=split).evaluate(masks)
    metrics = {
        metric: {
            "M_per_object": {name: float(value) for name, value in found[metric]["M_per_object"].items()},
            **{letter: [float(value) for value in found[metric][letter]] for letter in ("M", "R", "D")},
        }
        for metric in ("J", "F")
    }
    package = str(Path(evaluation.__file__).resolve().parent)
    Path(answer).write_text(json.dumps({"metrics": metrics, "package": package}))


def _objects(metrics: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """STATISTICS of each object. The toolkit names the means alone; the other lists are in the same order."""
    names = list(metrics["J"]["M_per_object"])
    for metric in ("J", "F"):
        found = metrics[metric]
        lengths = {len(found[letter]) for letter in ("M", "R", "D")}
        if list(found["M_per_object"]) != names or lengths != {len(names)}:
            raise HodorError("the official DAVIS toolkit names other objects than it scores; install it anew")
        if not np.array_equal(list(found["M_per_object"].values()), found["M"], equal_nan=True):
            raise HodorError("the official DAVIS toolkit gives two means of one object; install it anew")
    columns = [metrics[metric][letter] for metric in ("J", "F") for letter in ("M", "R", "D")]
    return dict(zip(names, zip(*columns, strict=True), strict=True))


def _with_decay_of(numbers: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    return tuple(other[i] if statistic.endswith("Decay") else numbers[i] for i, statistic in enumerate(STATISTICS))


def _difference(pred: Path, what: str, official: Sequence[float], ours: Sequence[float]) -> float:
    """Largest difference of two times STATISTICS; HodorError where it is too large."""
    for statistic, theirs, mine in zip(STATISTICS, official, ours, strict=True):
        if not abs(theirs - mine) <= TOLERANCE:  # a NaN is no agreement
            raise HodorError(
                f"{pred}: {statistic} of {what} is {float(theirs)!r} by the official DAVIS toolkit and "
                f"{float(mine)!r} by hodor.scoring; nothing was scored: one of the two is damaged, or this is an "
                "error to report; install both anew"
            )
    return max(abs(float(theirs) - float(mine)) for theirs, mine in zip(official, ours, strict=True))


def _describe(package: Path) -> dict[str, Any]:
    """Version and commit as its installer recorded them, where it did, and a digest of the code that ran."""
    version = commit = None
    for name in metadata.packages_distributions().get(PACKAGE, ()):
        distribution = metadata.distribution(name)
        version = distribution.version
        commit = json.loads(distribution.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    files = {path.relative_to(package).as_posix(): sha256_file(path) for path in sorted(package.rglob("*.py"))}
    return {"package": PACKAGE, "version": version or "unknown", "commit": commit, "code": sha256_json(files)}


if __name__ == "__main__":
    _evaluate(*sys.argv[1:])
