"""The verb `score`: masks and truth in, CSV files and their provenance out."""

import csv
import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hodor.data.davis import load_davis
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.provenance import (
    commit,
    machine,
    read_json,
    sha256_file,
    versions,
    write_json_atomic,
    write_text_atomic,
)
from hodor.scoring.benchmarks import Benchmark, get_benchmark
from hodor.scoring.davis import PROTOCOL, SequenceScores, check_prediction, check_truth, score_sequences
from hodor.scoring.jf import implementation, statistics
from hodor.scoring.official import STATISTICS, OfficialScores, official_scores, use_official

PER_FRAME, PER_OBJECT, GLOBAL = "per_frame.csv", "per_object.csv", "global.csv"


def score(
    pred: Path, truth: Path, benchmark: str, out: Path, stamp: dict | None = None, official: bool | None = None
) -> None:
    """Scores masks; writes per_frame.csv, per_object.csv, global.csv (unrounded, 0..1) and score.json to `out`.

    Args:
        pred: folder that holds <sequence>/<frame>.png, palette index = object id; of every frame.
        truth: folder that holds DAVIS/ (or the folder DAVIS itself), official layout.
        benchmark: id, see `hodor.scoring.benchmarks`.
        out: folder for the results, made if absent; results of an earlier call there are removed first.
        stamp: the step's stamp inside the workflow, whose settings may hold "jobs" (processes; default: all
            cores). With it the masks must be those that the segment step recorded in masks.json beside them.
        official: whether the official toolkit scores too, see `hodor.scoring.official`; where it is installed if
            None. Its numbers are then those of per_object.csv and global.csv.

    Raises:
        HodorError: any missing, extra, unreadable or ill-fitting file; none is ever scored as zero. The official
            toolkit is demanded and absent, fails, or disagrees.
    """
    began = time.monotonic()
    pred, truth, out = Path(pred), Path(truth), Path(out)
    entry = get_benchmark(benchmark)
    # A call that fails must leave no older numbers that could be taken for its own.
    for name in ("score.json", PER_FRAME, PER_OBJECT, GLOBAL):
        (out / name).unlink(missing_ok=True)
    with_official = use_official(benchmark, official)
    root = _davis_root(truth)
    videos = load_davis(root, entry.split)
    check_truth(videos)
    check_prediction(videos, pred)
    chain = _chain(pred, root, videos, required=stamp is not None)
    scores = score_sequences(videos, pred, (stamp or {}).get("settings", {}).get("jobs"))
    record = official_scores(root, entry.split, pred, scores) if with_official else None
    write_scores(scores, out, record)
    _write_provenance(out, entry, scores, chain, stamp, began, record)


def write_scores(scores: Sequence[SequenceScores], out: Path, record: OfficialScores | None = None) -> None:
    """Writes the three CSV files: the same scores, the same bytes; floats read back as the same numbers.

    Objects and means have the numbers of `record` where it is given.
    """
    per_frame: list[list] = []
    per_object: list[list] = []
    for sequence in scores:
        for id, (j, f) in enumerate(zip(sequence.j, sequence.f, strict=True), start=1):
            rows = zip(sequence.frames, j, f, strict=True)
            per_frame += [[sequence.name, id, frame, float(a), float(b)] for frame, a, b in rows]
            name = f"{sequence.name}_{id}"
            per_object.append([name, *(record.objects[name] if record else (*statistics(j), *statistics(f)))])
    means = [float(value) for value in np.mean([row[1:] for row in per_object], axis=0)]
    both = (means[STATISTICS.index("J-Mean")] + means[STATISTICS.index("F-Mean")]) / 2
    _write_csv(out / PER_FRAME, ("sequence", "object", "frame", "J", "F"), per_frame)
    _write_csv(out / PER_OBJECT, ("object", *STATISTICS), per_object)
    _write_csv(out / GLOBAL, ("J&F-Mean", *STATISTICS), [[both, *means]])


def _write_csv(path: Path, head: Iterable[str], rows: Iterable[Iterable]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    # csv writes a float by repr(): the shortest text that reads back as the same number.
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


def _davis_root(truth: Path) -> Path:
    if (truth / "DAVIS").is_dir():
        return truth
    whole = truth.resolve()
    if whole.name == "DAVIS" and (whole / "ImageSets").is_dir():
        return truth.parent if truth.name == "DAVIS" else whole.parent
    raise HodorError(f"{truth}: no DAVIS data here; give the folder that holds DAVIS/ (ImageSets, Annotations, ...)")


def _chain(pred: Path, root: Path, videos: list[Video], required: bool) -> dict[str, str | None]:
    """Digests of masks.json and of the data manifest, None where absent; the masks must be those of masks.json."""
    # Both lie beside the folder that they describe: masks.json beside masks/, davis.json beside davis/.
    listing, manifest = (folder.parent / f"{folder.name}.json" for folder in (pred.resolve(), root.resolve()))
    for path, maker in ((listing, "segment"), (manifest, "prepare")):
        if required and not path.is_file():
            raise HodorError(f"{path}: missing; the step {maker} writes it: run that again")
    if listing.is_file():
        recorded = read_json(listing).get("masks", {})
        for video in videos:
            for frame in video.frames:
                name = f"{video.name}/{frame}.png"
                if recorded.get(name) != sha256_file(pred / name):
                    raise HodorError(
                        f"{pred / name}: not the mask that {listing} records; delete {listing} and run the "
                        "step segment again"
                    )
    return {
        "masks": sha256_file(listing) if listing.is_file() else None,
        "truth": sha256_file(manifest) if manifest.is_file() else None,
    }


def _write_provenance(
    out: Path,
    benchmark: Benchmark,
    scores: list[SequenceScores],
    chain: dict,
    stamp: dict | None,
    began: float,
    record: OfficialScores | None,
) -> None:
    content = {key: value for key, value in (stamp or {}).items() if key != "sha256"}
    if content:
        # How many processes is the caller's affair; the file of the stamp, whose digest is kept, does not say
        # it.
        content["settings"] = {key: value for key, value in content["settings"].items() if key != "jobs"}
    write_json_atomic(
        out / "score.json",
        {
            "stamp": (stamp or {}).get("sha256"),
            "stamp_content": content or None,
            "benchmark": benchmark.id,
            **chain,
            "metric": record.metric if record else implementation(),
            "official": record.toolkit if record else None,
            "protocol": PROTOCOL,
            "sequences": len(scores),
            "objects": sum(len(sequence.j) for sequence in scores),
            "frames": sum(len(sequence.frames) for sequence in scores),
            "files": {name: sha256_file(out / name) for name in (PER_FRAME, PER_OBJECT, GLOBAL)},
            "time_s": round(time.monotonic() - began, 3),
            "peak_memory_mib": round(max(sequence.peak_memory_mib for sequence in scores), 1),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        },
    )
