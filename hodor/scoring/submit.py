"""The verb `submit`: masks of a benchmark with secret ground truth become the zip for its server.

DAVIS: `<sequence>/<frame>.png` of every frame. YouTube-VOS: `Annotations/<video>/<frame>.png` of the frames of meta.json.
Every mask is decoded and compared with the split first: frames, sizes, ids. The same masks give the same bytes.
"""

import os
import time
import zipfile
from pathlib import Path

from hodor.config.benchmarks import get_benchmark
from hodor.config.recipes import layout_of
from hodor.errors import HodorError
from hodor.provenance import sha256_file
from hodor.scoring.score import (
    GLOBAL,
    PER_FRAME,
    PER_OBJECT,
    clear,
    input_digests,
    open_benchmark,
    write_csv,
    write_record,
)
from hodor.scoring.sequences import Task, check_prediction, portable_bytes, read_prediction

METRIC = "the benchmark's server"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


def submit(pred: Path, truth: Path, benchmark: str, archive: Path, out: Path | None, stamp: dict | None = None) -> str:
    """Check and pack masks.

    Args:
        pred: folder that holds <sequence>/<frame>.png.
        truth: folder of the data set.
        benchmark: id, see `hodor.config.benchmarks`; any benchmark can be packed.
        archive: the zip to write.
        out: folder for score.json, which records the zip's sha256, and CSV files without numbers; None writes neither.
        stamp: the step's stamp inside the workflow; with it the masks must be those of masks.json.

    Returns:
        Hexadecimal sha256 of the zip, for an entry of config/server_scores.yaml.

    Raises:
        HodorError: any missing, extra, unreadable or unfit mask.
    """
    began = time.monotonic()
    pred, archive, entry = Path(pred), Path(archive), get_benchmark(benchmark)
    archive.unlink(missing_ok=True)
    if out is not None:
        clear(out)
    root, tasks = open_benchmark(entry, Path(truth), scored=False)
    check_prediction(tasks, pred)
    inputs = input_digests(pred, root, tasks, required=stamp is not None)
    members = pack(tasks, pred, archive, "Annotations/" if layout_of(entry.dataset) == "youtube-vos" else "")
    digest = sha256_file(archive)
    if out is not None:
        write_csv(out / PER_FRAME, ("sequence", "object", "frame", "J", "F"), [])
        write_csv(out / PER_OBJECT, ("object", "J-Mean", "F-Mean"), [])
        write_csv(out / GLOBAL, ("J&F-Mean", "J-Mean", "F-Mean"), [])
        write_record(
            out,
            entry,
            inputs,
            stamp,
            began,
            metric=METRIC,
            submission={"sha256": digest, "bytes": archive.stat().st_size},
            sequences=len(tasks),
            objects=sum(len(task.scored) for task in tasks),
            frames=members,
        )
    return digest


def pack(tasks: list[Task], pred: Path, archive: Path, prefix: str) -> int:
    """Write the zip atomically after checking every mask; return the number of masks in it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    part, members = archive.with_name(f".{archive.name}.{os.getpid()}.part"), 0
    try:
        # Stored: PNG is compressed already.
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as writer:
            for task in sorted(tasks, key=lambda task: task.video.name):
                for frame in task.demanded:
                    read_prediction(task, pred, frame)
                    info = zipfile.ZipInfo(f"{prefix}{task.video.name}/{frame}.png", _EPOCH)
                    info.external_attr = 0o644 << 16
                    writer.writestr(info, portable_bytes(pred / task.video.name / f"{frame}.png"))
                    members += 1
        if not members:
            raise HodorError(f"{pred}: the benchmark demands no mask at all; prepare the data set again")
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    return members
