"""The verb `score`: masks and truth in, CSV files and their provenance out."""

import csv
import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hodor.config.benchmarks import Benchmark, get_benchmark
from hodor.errors import HodorError
from hodor.provenance import (
    commit,
    machine,
    peak_memory_mib,
    read_json,
    sha256_file,
    versions,
    write_json_atomic,
    write_text_atomic,
)
from hodor.scoring.jf import implementation, statistics
from hodor.scoring.official import STATISTICS, OfficialScores, official_scores, use_official
from hodor.scoring.protocols import data_folder, get_tasks, protocol
from hodor.scoring.sequences import SequenceScores, Task, check_prediction, score_sequences

PER_FRAME, PER_OBJECT, GLOBAL = "per_frame.csv", "per_object.csv", "global.csv"
SCORE = "score.json"


def score(
    pred: Path,
    truth: Path,
    benchmark: str,
    out: Path,
    stamp: dict | None = None,
    official: bool | None = None,
    jobs: int | None = None,
) -> None:
    """Scores masks; writes per_frame.csv, per_object.csv, global.csv (unrounded, 0..1) and score.json to `out`.

    Args:
        pred: folder that holds <sequence>/<frame>.png, palette index = object id; of every frame.
        truth: folder of the data set in its official layout: that holds DAVIS/ (or the folder DAVIS itself), or train/
            and valid/ of YouTube-VOS.
        benchmark: id, see `hodor.config.benchmarks`.
        out: folder for the results, made if absent; results of an earlier call there are removed first.
        stamp: the step's stamp inside the workflow. With it the masks must be those that the segment step recorded in
            masks.json beside them.
        official: whether the official toolkit scores too, see `hodor.scoring.official`; where it is installed if
            None. Its numbers are then those of per_object.csv and global.csv.
        jobs: processes; all cores if None.

    Raises:
        HodorError: any missing, extra, unreadable or ill-fitting file; none is ever scored as zero. The official
            toolkit is demanded and absent, fails, or disagrees.
    """
    began = time.monotonic()
    pred, truth, out = Path(pred), Path(truth), Path(out)
    entry = get_benchmark(benchmark)
    clear(out)
    with_official = use_official(benchmark, official)
    tasks = get_tasks(entry, truth)
    check_prediction(tasks, pred)
    root = data_folder(entry, truth)
    chain = chained(pred, root, tasks, required=stamp is not None)
    scores = score_sequences(tasks, pred, jobs)
    record = official_scores(root, entry.split, pred, scores) if with_official else None
    write_scores(scores, out, record)
    code = {
        "metric": record.metric if record else implementation(),
        "official": record.toolkit if record else None,
    }
    write_record(out, entry, chain, stamp, began, **code, **_counts(scores))


def clear(out: Path) -> None:
    """Removes the results of an older call: one that fails must leave no numbers that could be taken for its own."""
    for name in (SCORE, PER_FRAME, PER_OBJECT, GLOBAL):
        (out / name).unlink(missing_ok=True)


def write_scores(scores: Sequence[SequenceScores], out: Path, record: OfficialScores | None = None) -> None:
    """Writes the three CSV files: the same scores, the same bytes; floats read back as the same numbers.

    Objects and means have the numbers of `record` where it is given.

    Where objects have categories, per_object.csv says "seen" or "unseen", and global.csv begins with G and the J and F
    of each kind; its other columns are means over the objects of a kind, then over the kinds, so that J&F-Mean is G. A
    kind without objects is in no mean and has no columns. HodorError where no object is scored.
    """
    per_frame: list[list] = []
    per_object: list[list] = []
    kinds: dict[str | None, list[tuple[float, ...]]] = {}
    for sequence in scores:
        for found in sequence.objects:
            rows = zip(found.frames, found.j, found.f, strict=True)
            per_frame += [[sequence.name, found.id, frame, float(a), float(b)] for frame, a, b in rows]
            name = f"{sequence.name}_{found.id}"
            numbers = record.objects[name] if record else (*statistics(found.j), *statistics(found.f))
            kinds.setdefault(found.category, []).append(numbers)
            kind = () if found.category is None else (found.category,)
            per_object.append([name, *numbers, *kind])
    if not kinds:
        raise HodorError(f"{out}: the benchmark scores no object in any frame; is the data set whole?")
    means = {kind: np.mean(numbers, axis=0) for kind, numbers in kinds.items()}
    overall = [float(value) for value in np.mean(list(means.values()), axis=0)]
    head, line = ["J&F-Mean", *STATISTICS], [_both(overall), *overall]
    object_head = ["object", *STATISTICS]
    if None not in kinds:
        object_head.append("category")
        parts = {
            f"{name}-{kind}": float(means[kind][STATISTICS.index(f"{name}-Mean")])
            for kind in sorted(means)
            for name in ("J", "F")
        }
        head, line = ["G", *parts, *head], [line[0], *parts.values(), *line]
    _write_csv(out / PER_FRAME, ("sequence", "object", "frame", "J", "F"), per_frame)
    _write_csv(out / PER_OBJECT, object_head, per_object)
    _write_csv(out / GLOBAL, head, [line])


def _both(numbers: Sequence[float]) -> float:
    return (numbers[STATISTICS.index("J-Mean")] + numbers[STATISTICS.index("F-Mean")]) / 2


def _write_csv(path: Path, head: Iterable[str], rows: Iterable[Iterable]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    # csv writes a float by repr(): the shortest text that reads back as the same number.
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


def chained(pred: Path, root: Path, tasks: Sequence[Task], required: bool) -> dict[str, str | None]:
    """Digests of masks.json and of the data manifest, None where absent; the masks must be those of masks.json.

    Args:
        pred: folder of masks; masks.json lies beside it.
        root: folder of the data set; its manifest lies beside it.
        required: whether both must be there.
    """
    listing, manifest = (folder.parent / f"{folder.name}.json" for folder in (pred.resolve(), root.resolve()))
    for path, maker in ((listing, "segment"), (manifest, "prepare")):
        if required and not path.is_file():
            raise HodorError(f"{path}: missing; the step {maker} writes it: run that again")
    if listing.is_file():
        recorded = read_json(listing).get("masks", {})
        for task in tasks:
            for frame in task.demanded:
                name = f"{task.video.name}/{frame}.png"
                if recorded.get(name) != sha256_file(pred / name):
                    raise HodorError(
                        f"{pred / name}: not the mask that {listing} records; delete {listing} and run the "
                        "step segment again"
                    )
    return {
        "masks": sha256_file(listing) if listing.is_file() else None,
        "truth": sha256_file(manifest) if manifest.is_file() else None,
    }


def write_record(
    out: Path, benchmark: Benchmark, chain: dict, stamp: dict | None, began: float, **content: object
) -> None:
    """Writes score.json: what was scored or packed, from what, with what.

    Args:
        chain: as `chained` gives it. began: time.monotonic() at the start.
        content: `metric`, counts, and what else is to be said.
    """
    stamped = {key: value for key, value in (stamp or {}).items() if key != "sha256"}
    record = {"peak_memory_mib": round(peak_memory_mib(), 1)} | content
    write_json_atomic(
        out / SCORE,
        {
            "stamp": (stamp or {}).get("sha256"),
            "stamp_content": stamped or None,
            "benchmark": benchmark.id,
            **chain,
            "protocol": protocol(benchmark),
            **record,
            "files": {name: sha256_file(out / name) for name in (PER_FRAME, PER_OBJECT, GLOBAL)},
            "time_s": round(time.monotonic() - began, 3),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        },
    )


def _counts(scores: Sequence[SequenceScores]) -> dict[str, float]:
    return {
        "sequences": len(scores),
        "objects": sum(len(sequence.objects) for sequence in scores),
        "frames": sum(len({f for o in sequence.objects for f in o.frames}) for sequence in scores),
        "peak_memory_mib": round(max(sequence.peak_memory_mib for sequence in scores), 1),
    }
