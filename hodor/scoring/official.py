"""Scores by the official DAVIS toolkit (davis2017-evaluation), which are used if it is installed.

Its `DAVISEvaluation` runs beside our own scoring, and every number of every object must agree. The toolkit exits with
status 0 on fatal errors, so only a complete result counts. It reads old CSV files in the results folder instead of
scoring, and rounds new ones, so it runs in a fresh folder and its numbers are taken from memory.

The toolkit is on no package index; the extra `official` installs it. It scores DAVIS-2017 alone.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from hodor.data.images import write_labels
from hodor.errors import HodorError
from hodor.provenance import peak_memory_mib, sha256_file, sha256_json
from hodor.scoring.sequences import ObjectScores, Task, read_prediction

PACKAGE = "davis2017"

TOLERANCE = 1e-9
"""Largest difference at which two numbers (0..1) agree."""

STATISTICS = ("J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""Names of an object's six numbers, in the order of the CSV files."""

_BENCHMARKS = ("davis2017-val", "davis2017-test-dev")
# The toolkit's decay is wrong for more scored frames, see `hodor.scoring.jf.statistics`.
_LONGEST_DECAY = 255
_REINSTALL = "install it again at the commit that pyproject.toml names"


class OfficialScores(NamedTuple):
    """The toolkit's numbers with their provenance.

    Attributes:
        objects: `<sequence>_<id>` -> STATISTICS of the object, unrounded, in the order of the sequences.
        toolkit: version, commit, code and peak memory of the toolkit, and its largest difference from ours.
        metric: code that computed the scores, in one line.
    """

    objects: dict[str, tuple[float, ...]]
    toolkit: dict[str, Any]
    metric: str


def installed() -> bool:
    """Return whether the toolkit can be imported, without importing it."""
    return find_spec(PACKAGE) is not None


def use_official(benchmark: str | None, wanted: bool | None) -> bool:
    """Return whether the toolkit scores a benchmark.

    Args:
        benchmark: id; None for sequences of no benchmark.
        wanted: True requires the toolkit, False forbids it, None uses it if possible.

    Raises:
        HodorError: the toolkit is required, but not installed or not made for the benchmark.
    """
    known = benchmark in _BENCHMARKS
    if wanted and not known:
        raise HodorError(
            f"the official DAVIS toolkit scores {' and '.join(_BENCHMARKS)} only; give one of them as --benchmark, or omit "
            "--official"
        )
    if wanted and not installed():
        raise HodorError(f"the official DAVIS toolkit ({PACKAGE}) is not installed; run: pip install '.[official]'")
    return known and wanted is not False and installed()


def official_scores(
    root: Path, split: str, pred: Path, tasks: Sequence[Task], scores: Sequence[ObjectScores]
) -> OfficialScores:
    """Score masks with the toolkit and compare its numbers with ours.

    Args:
        root: folder that holds DAVIS/.
        split: "val" or "test-dev".
        pred: folder that holds <sequence>/<frame>.png.
        tasks: the sequences of the split, with the frames in `pred`.
        scores: ours, of all objects of the split.

    Raises:
        HodorError: the toolkit failed, left an object out, or differs from ours by more than TOLERANCE.
    """
    result = _run(root / "DAVIS", split, pred, tasks)
    objects = {name: tuple(numbers) for name, numbers in result["objects"].items()}
    ours = {found.name: found.statistics() for found in scores}
    for problem, names in (("left out", set(ours) - set(objects)), ("added", set(objects) - set(ours))):
        if names:
            raise HodorError(
                f"{pred}: the official DAVIS toolkit {problem} {len(names)} object(s), {sorted(names)[0]} first; "
                f"its scores are not used: {_REINSTALL}"
            )
    long = sorted(found.name for found in scores if len(found.frames) > _LONGEST_DECAY)
    for name in long:
        pairs = zip(STATISTICS, objects[name], ours[name], strict=True)
        objects[name] = tuple(mine if statistic.endswith("Decay") else theirs for statistic, theirs, mine in pairs)
    objects = {name: objects[name] for name in ours}
    toolkit = _describe(Path(result["package"])) | {
        "largest_difference": _compare(pred, objects, ours),
        "peak_memory_mib": result["peak_memory_mib"],
    }
    if long:
        toolkit["decay_of_hodor"] = long
    name = f"{PACKAGE} {toolkit['version']}, commit {toolkit['commit'] or 'unknown'}"
    return OfficialScores(
        objects,
        toolkit,
        f"official DAVIS toolkit ({name}, code {toolkit['code'][:12]}); hodor.scoring agrees within {TOLERANCE:g}",
    )


def _run(davis: Path, split: str, pred: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    """Run the toolkit in a new process and a fresh folder; return its numbers."""
    with TemporaryDirectory(prefix="hodor-official-") as temporary:
        masks, answer, output = (Path(temporary) / name for name in ("masks", "answer.json", "output.txt"))
        for task in tasks:
            for frame in task.demanded:
                write_labels(masks / task.video.name / f"{frame}.png", read_prediction(task, pred, frame))
        # The working directory differs, so relative entries are made absolute.
        search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with open(output, "wb") as file:
            status = subprocess.run(
                [sys.executable, "-m", __name__, davis.resolve(), split, masks, answer],
                cwd=temporary,
                env=os.environ | {"PYTHONPATH": search},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        if status == -signal.SIGKILL:
            raise HodorError(
                f"{pred}: the official DAVIS toolkit was killed (signal 9, most likely out of memory: it holds the masks "
                "of a whole sequence as float64); give it more memory, or score with --no-official"
            )
        # The status of a fatal error may be 0; the answer is written last.
        if status or not answer.is_file():
            lines = output.read_text(errors="replace").replace("\r", "\n").split("\n")
            shown = " / ".join([line for line in lines if line.strip()][-3:]) or "nothing"
            raise HodorError(
                f"{pred}: the official DAVIS toolkit ended without scores (exit status {status}), its output: {shown}; "
                f"{_REINSTALL}, or score with --no-official"
            )
        return json.loads(answer.read_text())


def _evaluate(davis: str, split: str, masks: str, answer: str) -> None:
    """Call the toolkit and write its unrounded numbers; the main program of the new process."""
    from davis2017 import evaluation

    found = evaluation.DAVISEvaluation(davis_root=davis, task="semi-supervised", gt_set=split).evaluate(masks)
    # The toolkit's lists are all in the order of the names of its means.
    columns = [[float(value) for value in found[metric][letter]] for metric in ("J", "F") for letter in ("M", "R", "D")]
    objects = dict(zip(found["J"]["M_per_object"], zip(*columns, strict=True), strict=True))
    package = str(Path(evaluation.__file__).resolve().parent)
    peak = round(peak_memory_mib(), 1)
    Path(answer).write_text(json.dumps({"objects": objects, "package": package, "peak_memory_mib": peak}))


def _compare(pred: Path, official: dict[str, tuple[float, ...]], ours: dict[str, tuple[float, ...]]) -> float:
    """Return the largest difference in any object or mean; HodorError where it exceeds TOLERANCE."""
    names = [*ours, "the mean over objects"]
    theirs, mine = (np.array([*found.values(), np.mean(list(found.values()), axis=0)]) for found in (official, ours))
    difference = np.abs(theirs - mine)
    for row, column in np.argwhere(~(difference <= TOLERANCE)):  # NaN never agrees
        raise HodorError(
            f"{pred}: {STATISTICS[column]} of {names[row]} is {float(theirs[row, column])!r} by the official DAVIS "
            f"toolkit and {float(mine[row, column])!r} by hodor.scoring, so nothing was scored; install both again, and "
            "report the difference if it stays"
        )
    return float(difference.max())


def _describe(package: Path) -> dict[str, Any]:
    """Return version and commit, if the installer recorded them, and a digest of the code that ran."""
    version = commit = None
    for name in metadata.packages_distributions().get(PACKAGE, ()):
        distribution = metadata.distribution(name)
        version = distribution.version
        commit = json.loads(distribution.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    files = {path.relative_to(package).as_posix(): sha256_file(path) for path in sorted(package.rglob("*.py"))}
    return {"package": PACKAGE, "version": version or "unknown", "commit": commit, "code": sha256_json(files)}


if __name__ == "__main__":
    _evaluate(*sys.argv[1:])
