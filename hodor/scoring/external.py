"""Import the masks of another system as those of a row."""

import shutil
import time
from pathlib import Path
from typing import Any

from hodor.config.benchmarks import get_benchmark
from hodor.data.extract import extract_all
from hodor.data.images import write_labels
from hodor.errors import HodorError
from hodor.provenance import cost, sha256_file, sha256_files, write_json_atomic
from hodor.scoring.score import open_benchmark
from hodor.scoring.sequences import Task, check_prediction, read_prediction

_DEPTH = 3
"""Maximum number of folders above the sequences; archives often have one."""


def import_masks(stamp: dict[str, Any], data: Path, out: Path) -> None:
    """Check masks and write them as palette masks of a row, with the records of a segmentation.

    Sequences that are not of the benchmark are left out.

    Args:
        stamp: stamp of the step; its settings hold the folder or archive of <sequence>/<frame>.png, its sha256
            (`sha256_files`) and the benchmark.
        data: folder of the scale's data sets.
        out: folder for masks/<sequence>/<frame>.png of the frames that the benchmark requires, masks.json and
            segment.json.

    Raises:
        HodorError: a mask is missing, damaged, of another size or with unknown ids, or has changed since the stamp was
            written.
    """
    settings, began = stamp["settings"], time.monotonic()
    benchmark, source = get_benchmark(settings["benchmark"]["id"]), Path(settings["masks"])
    if sha256_files(source) != settings["sha256"]:
        raise HodorError(f"{source}: changed while the workflow ran; call the same command again")
    _, tasks = open_benchmark(benchmark, data / benchmark.dataset, scored=False)
    masks, extracted = out / "masks", out / "masks.extracted"
    shutil.rmtree(masks, ignore_errors=True)
    folder = source if source.is_dir() else extracted
    try:
        if folder is extracted:
            extract_all([source], extracted)
        checksums = _write(tasks, _sequences(folder, tasks), masks)
    except HodorError as error:
        text = str(error).replace(str(folder), str(source))
        for fix in ("segment this sequence again", "segment the whole benchmark"):
            text = text.replace(fix, "correct the masks, or get them again")
        raise HodorError(text) from None
    finally:
        shutil.rmtree(extracted, ignore_errors=True)
    manifest = data / f"{benchmark.dataset}.json"
    record = {"stamp": stamp["sha256"], "weights": None, "data": sha256_file(manifest), "masks": checksums}
    write_json_atomic(out / "masks.json", record)
    content = {key: value for key, value in stamp.items() if key != "sha256"}
    record = {"stamp_content": content, "frames": len(checksums), **cost(time.monotonic() - began)}
    write_json_atomic(out / "segment.json", record)


def _sequences(folder: Path, tasks: list[Task]) -> Path:
    """Return the folder that holds the sequences: `folder`, or one below it."""
    names = {task.video.name for task in tasks}
    for depth in range(_DEPTH + 1):
        below = (path for path in folder.glob("*/" * (depth + 1)) if "__MACOSX" not in path.parts)
        found = sorted({path.parent for path in below if path.name in names})
        if len(found) > 1:
            raise HodorError(f"{found[0]} and {found[1]} both hold sequences; name one of them in config/rows.yaml")
        if found:
            return found[0]
    return folder


def _write(tasks: list[Task], source: Path, masks: Path) -> dict[str, str]:
    """Write the required masks; return <sequence>/<frame>.png -> sha256."""
    check_prediction(tasks, source, others=True)
    checksums = {}
    for task in tasks:
        for frame in task.demanded:
            name = f"{task.video.name}/{frame}.png"
            write_labels(masks / name, read_prediction(task, source, frame))
            checksums[name] = sha256_file(masks / name)
    return checksums
