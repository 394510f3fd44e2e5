"""The verb `submit`: masks of a benchmark whose truth is secret become the zip that its server takes.

DAVIS: `<sequence>/<frame>.png` of every frame. YouTube-VOS: `Annotations/<video>/<frame>.png` of the frames of meta.json.
Every mask is decoded and compared with the split first: frames, sizes, ids. The same masks give the same bytes.
"""

import csv
import io
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hodor.config.benchmarks import get_benchmark
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_text_atomic
from hodor.scoring.protocols import data_folder, get_tasks
from hodor.scoring.score import GLOBAL, PER_FRAME, PER_OBJECT, chained, clear, write_record
from hodor.scoring.sequences import Task, check_prediction, read_prediction

METRIC = "the benchmark's server"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can say


def submit(pred: Path, truth: Path, benchmark: str, archive: Path, out: Path | None, stamp: dict | None = None) -> str:
    """Checks and packs masks.

    Args:
        pred: folder that holds <sequence>/<frame>.png.
        truth: folder of the data set.
        benchmark: id, see `hodor.config.benchmarks`; any benchmark can be packed.
        archive: the zip to write.
        out: gets score.json, which names the zip's sha256, and CSV files without numbers; None: nothing else is written.
        stamp: the step's stamp inside the workflow; with it the masks must be those of masks.json.

    Returns:
        Hexadecimal sha256 of the zip, which an entry of config/server_scores.yaml has to name.

    Raises:
        HodorError: any missing, extra, unreadable or ill-fitting mask.
    """
    began = time.monotonic()
    pred, truth, archive, entry = Path(pred), Path(truth), Path(archive), get_benchmark(benchmark)
    archive.unlink(missing_ok=True)
    if out is not None:
        clear(out)
    tasks = get_tasks(entry, truth, scored=False)
    check_prediction(tasks, pred)
    chain = chained(pred, data_folder(entry, truth), tasks, required=stamp is not None)
    prefix = "Annotations/" if entry.dataset.startswith("youtube-vos") else ""
    members = pack(tasks, pred, archive, prefix)
    digest = sha256_file(archive)
    if out is not None:
        empty = (
            (PER_FRAME, ("sequence", "object", "frame", "J", "F")),
            (PER_OBJECT, ("object", "J-Mean", "F-Mean")),
            (GLOBAL, ("J&F-Mean", "J-Mean", "F-Mean")),
        )
        for name, head in empty:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow(head)
            write_text_atomic(out / name, text.getvalue())
        write_record(
            out,
            entry,
            chain,
            stamp,
            began,
            metric=METRIC,
            submission={"sha256": digest, "bytes": archive.stat().st_size},
            sequences=len(tasks),
            objects=sum(len(task.scored) for task in tasks),
            frames=members,
        )
    return digest


def pack(tasks: Sequence[Task], pred: Path, archive: Path, prefix: str) -> int:
    """Writes the zip atomically after a look at every mask; returns the number of masks in it."""
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
                    writer.writestr(info, (pred / task.video.name / f"{frame}.png").read_bytes())
                    members += 1
        if not members:
            raise HodorError(f"{pred}: the benchmark demands no mask at all; is the data set whole?")
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    return members
