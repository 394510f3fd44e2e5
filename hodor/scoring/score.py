"""The verbs `score` and `submit`: score masks, or pack them for the server of a benchmark with secret ground truth.

Zips of DAVIS hold `<sequence>/<frame>.png` of every frame, those of YouTube-VOS `Annotations/<video>/<frame>.png` of the
frames of meta.json. Every mask is decoded and checked first. The same masks give the same bytes.
"""

import csv
import io
import os
import sys
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hodor.config.benchmarks import Benchmark, get_benchmark
from hodor.config.recipes import layout_of
from hodor.data.images import encode_labels
from hodor.errors import HodorError
from hodor.provenance import cost, read_json, sha256_file, write_json_atomic, write_text_atomic
from hodor.scoring.jf import METRIC
from hodor.scoring.official import STATISTICS, OfficialScores, official_scores, use_official
from hodor.scoring.protocols import folder_tasks, open_benchmark, protocol_of
from hodor.scoring.sequences import (
    ObjectScores,
    Task,
    open_masks,
    read_prediction,
    require_masks,
    score_sequences,
)

PER_FRAME, PER_OBJECT, GLOBAL = "per_frame.csv", "per_object.csv", "global.csv"
SCORE = "score.json"

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip


def score(
    pred: Path,
    truth: Path,
    benchmark: str | None,
    out: Path,
    stamp: dict | None = None,
    official: bool | None = None,
    jobs: int | None = None,
) -> None:
    """Score masks; write per_frame.csv, per_object.csv, global.csv (unrounded, 0..1) and score.json.

    Without `stamp`, for masks of any origin, the means are printed too.

    Args:
        pred: folder or archive of <sequence>/<frame>.png of every scored frame, see `open_masks` and `read_prediction`.
        truth: folder of the data set in its official layout, which holds DAVIS/ (or is DAVIS/), or train/ and valid/ of
            YouTube-VOS; without `benchmark` see `hodor.scoring.protocols.folder_tasks`.
        benchmark: id, see `hodor.config.benchmarks`. None: the protocol of DAVIS over every sequence of `truth`.
        out: folder for the results; earlier results are removed first.
        stamp: the step's stamp inside the workflow; it requires masks.json beside the masks.
        official: whether to run the official toolkit too, whose numbers then fill per_object.csv and global.csv
            (`hodor.scoring.official`). None: if it is installed and scores the benchmark.
        jobs: number of threads. None: one per core.

    Raises:
        HodorError: a file is missing, superfluous or broken (none is scored as zero); the official toolkit is required
            and absent, fails, or disagrees.
    """
    began = time.monotonic()
    out, entry = Path(out), get_benchmark(benchmark) if benchmark else None
    if jobs is not None and jobs < 1:
        raise HodorError(f"--jobs {jobs}: must be 1 or more")
    require_masks(Path(pred))
    clear(out)
    with_official = use_official(benchmark, official)
    root, tasks = open_benchmark(entry, Path(truth)) if entry else folder_tasks(Path(truth))
    if entry is None:
        text = (
            f"{root}: the DAVIS protocol over the {len(tasks)} sequences of this folder; --benchmark ID selects others"
        )
        print(text, file=sys.stderr)
    with open_masks(Path(pred), tasks, out / "masks.extracted") as (pred, tasks):
        inputs = input_digests(pred, root, tasks, required=stamp is not None)
        scores = score_sequences(tasks, pred, jobs)
        toolkit = official_scores(root, entry.split, pred, tasks, scores) if entry and with_official else None
    overall = write_scores(scores, out, toolkit)
    content = {
        "metric": toolkit.metric if toolkit else METRIC,
        "official": toolkit.toolkit if toolkit else None,
        "sequences": len(tasks),
        "objects": len(scores),
        "frames": len({(found.sequence, frame) for found in scores for frame in found.frames}),
    }
    write_record(out, entry, inputs | content, stamp, began)
    if stamp is None:
        means = (f"{name} {100 * value:.1f}" for name, value in overall.items() if name.endswith("Mean"))
        print(f"{', '.join(means)}; unrounded and by object: {out}")


def submit(pred: Path, truth: Path, benchmark: str, archive: Path, out: Path | None, stamp: dict | None = None) -> str:
    """Check masks and pack them into a zip; further arguments and errors as those of `score`.

    Args:
        archive: the zip to write.
        out: folder for score.json, which records the zip's sha256, and CSV files without numbers. None: write neither.

    Returns:
        Hexadecimal sha256 of the zip, for an entry of config/server_scores.yaml.
    """
    began = time.monotonic()
    archive, entry = Path(archive), get_benchmark(benchmark)
    require_masks(Path(pred))
    if archive.resolve() == Path(pred).resolve():
        raise HodorError(f"{archive}: holds the masks themselves; give another file for the zip")
    archive.unlink(missing_ok=True)
    if out is not None:
        clear(out)
    root, tasks = open_benchmark(entry, Path(truth), scored=False)
    prefix = "Annotations/" if layout_of(entry.dataset) == "youtube-vos" else ""
    with open_masks(Path(pred), tasks, archive.with_name(f".{archive.name}.masks"), complete=True) as (pred, tasks):
        inputs = input_digests(pred, root, tasks, required=stamp is not None)
        members = pack(tasks, pred, archive, prefix)
    digest = sha256_file(archive)
    if out is not None:
        write_csv(out / PER_FRAME, ("sequence", "object", "frame", "J", "F"), [])
        write_csv(out / PER_OBJECT, ("object", "J-Mean", "F-Mean"), [])
        write_csv(out / GLOBAL, ("J&F-Mean", "J-Mean", "F-Mean"), [])
        content = {
            "metric": "the benchmark's server",
            "submission": {"sha256": digest, "bytes": archive.stat().st_size},
            "sequences": len(tasks),
            "objects": sum(len(task.scored) for task in tasks),
            "frames": members,
        }
        write_record(out, entry, inputs | content, stamp, began)
    return digest


def pack(tasks: list[Task], pred: Path, archive: Path, prefix: str) -> int:
    """Write the zip atomically after checking every mask; return the number of masks in it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    part, members = archive.with_name(f".{archive.name}.{os.getpid()}.part"), 0
    try:
        # Stored, because PNG is compressed already.
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as writer:
            for task in sorted(tasks, key=lambda task: task.video.name):
                for frame in task.demanded:
                    content = encode_labels(read_prediction(task, pred, frame))
                    info = zipfile.ZipInfo(f"{prefix}{task.video.name}/{frame}.png", _EPOCH)
                    info.external_attr = 0o644 << 16
                    writer.writestr(info, content)
                    members += 1
        if not members:
            raise HodorError(f"{pred}: the benchmark requires no mask; prepare the data set again")
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    return members


def clear(out: Path) -> None:
    """Remove the results of an earlier call, so that none are left if this one fails."""
    for name in (SCORE, PER_FRAME, PER_OBJECT, GLOBAL):
        (out / name).unlink(missing_ok=True)


def write_scores(scores: list[ObjectScores], out: Path, toolkit: OfficialScores | None = None) -> dict[str, float]:
    """Write the three CSV files and return the columns of global.csv; floats read back as the same numbers.

    If objects have categories, per_object.csv has a column for them, and global.csv begins with G and the J and F of each
    category; its other columns are means over the objects of a category, then over categories, so that J&F-Mean is G. A
    category without objects has no columns and is in no mean. Numbers of the official `toolkit` replace ours.
    """
    per_frame: list[list] = []
    per_object: list[list] = []
    categories: dict[str | None, list[tuple[float, ...]]] = {}
    for found in scores:
        rows = zip(found.frames, found.j, found.f, strict=True)
        per_frame += [[found.sequence, found.id, frame, float(j), float(f)] for frame, j, f in rows]
        numbers = toolkit.objects[found.name] if toolkit else found.statistics()
        categories.setdefault(found.category, []).append(numbers)
        per_object.append([found.name, *numbers, *([found.category] if found.category else [])])
    if not categories:
        raise HodorError(f"{out}: the benchmark scores no object in any frame; prepare the data set again")
    means = {category: np.mean(numbers, axis=0) for category, numbers in categories.items()}
    overall = dict(zip(STATISTICS, np.mean(list(means.values()), axis=0).tolist(), strict=True))
    overall = {"J&F-Mean": (overall["J-Mean"] + overall["F-Mean"]) / 2} | overall
    object_head = ["object", *STATISTICS]
    if None not in categories:
        object_head.append("category")
        parts = {
            f"{name}-{category}": float(means[category][STATISTICS.index(f"{name}-Mean")])
            for category in sorted(filter(None, means))
            for name in ("J", "F")
        }
        overall = {"G": overall["J&F-Mean"]} | parts | overall
    write_csv(out / PER_FRAME, ("sequence", "object", "frame", "J", "F"), per_frame)
    write_csv(out / PER_OBJECT, object_head, per_object)
    write_csv(out / GLOBAL, overall, [overall.values()])
    return overall


def write_csv(path: Path, head: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV file atomically; floats by repr(), the shortest text that reads back as the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


def input_digests(pred: Path, root: Path, tasks: list[Task], required: bool) -> dict[str, str | None]:
    """Return the digests of masks.json next to `pred` and of the data manifest next to `root`; None for an absent file.

    Raises:
        HodorError: an absent file is `required`, or a mask is not the one in masks.json.
    """
    listing, manifest = (folder.parent / f"{folder.name}.json" for folder in (pred.resolve(), root.resolve()))
    for path, step in ((listing, "segment"), (manifest, "prepare")):
        if required and not path.is_file():
            raise HodorError(f"{path}: missing; run the step {step} again, which writes it")
    recorded = _recorded(listing, required)
    for name in [f"{task.video.name}/{frame}.png" for task in tasks for frame in task.demanded if recorded or required]:
        if recorded.get(name) != sha256_file(pred / name):
            raise HodorError(
                f"{pred / name}: not the mask that {listing} records; delete {listing} and run the step segment again"
            )
    return {
        "masks": sha256_file(listing) if recorded else None,
        "truth": sha256_file(manifest) if manifest.is_file() else None,
    }


def _recorded(listing: Path, required: bool) -> dict[str, str]:
    """Return the masks in a masks.json; unless it is `required`, nothing for another file, which the user may have there."""
    try:
        found = read_json(listing).get("masks") if listing.is_file() else None
    except HodorError:
        found = None
    if isinstance(found, dict):
        return found
    if required:
        raise HodorError(f"{listing}: lists no masks; run the step segment again, which writes it")
    return {}


def write_record(
    out: Path, benchmark: Benchmark | None, content: dict[str, Any], stamp: dict | None, began: float
) -> None:
    """Write score.json. `content`: digests of the inputs, metric and counts."""
    stamp = dict(stamp or {})
    record = {
        "stamp": stamp.pop("sha256", None),
        "stamp_content": stamp or None,
        "benchmark": benchmark.id if benchmark else None,
        "protocol": protocol_of(benchmark),
        **content,
        "files": {name: sha256_file(out / name) for name in (PER_FRAME, PER_OBJECT, GLOBAL)},
    }
    write_json_atomic(out / SCORE, record | cost(time.monotonic() - began))
