"""Import the masks of another system as those of a row."""

import shutil
import time
from pathlib import Path
from typing import Any

from hodor.config.benchmarks import get_benchmark
from hodor.data.images import write_labels
from hodor.errors import HodorError
from hodor.provenance import cost, sha256_file, sha256_files, write_json_atomic
from hodor.scoring.protocols import open_benchmark
from hodor.scoring.sequences import open_masks, read_prediction


def import_masks(stamp: dict[str, Any], data: Path, out: Path) -> None:
    """Check masks and write them as palette masks of a row, with the records of a segmentation.

    Args:
        stamp: stamp of the step; its settings hold the folder or archive of <sequence>/<frame>.png, its sha256
            (`sha256_files`) and the benchmark.
        data: folder of the scale's data sets.
        out: folder for masks/<sequence>/<frame>.png of the benchmark's frames, masks.json and segment.json. Frames that
            are not scored may be missing.

    Raises:
        HodorError: a mask is missing, damaged, of another size or with unknown ids, or has changed since the stamp was
            written.
    """
    settings, began = stamp["settings"], time.monotonic()
    benchmark, source = get_benchmark(settings["benchmark"]["id"]), Path(settings["masks"])
    if sha256_files(source) != settings["sha256"]:
        raise HodorError(f"{source}: changed while the workflow ran; call the same command again")
    _, tasks = open_benchmark(benchmark, data / benchmark.dataset, scored=False)
    masks, checksums = out / "masks", {}
    shutil.rmtree(masks, ignore_errors=True)
    # Masks for a server must be complete.
    with open_masks(source, tasks, out / "masks.extracted", complete=benchmark.secret) as (pred, tasks):
        for task in tasks:
            for frame in task.demanded:
                name = f"{task.video.name}/{frame}.png"
                write_labels(masks / name, read_prediction(task, pred, frame))
                checksums[name] = sha256_file(masks / name)
    manifest = data / f"{benchmark.dataset}.json"
    record = {"stamp": stamp["sha256"], "weights": None, "data": sha256_file(manifest), "masks": checksums}
    write_json_atomic(out / "masks.json", record)
    content = {key: value for key, value in stamp.items() if key != "sha256"}
    record = {"stamp_content": content, "frames": len(checksums), **cost(time.monotonic() - began)}
    write_json_atomic(out / "segment.json", record)
