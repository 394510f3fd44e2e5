"""The verb `released`: an authors' checkpoint becomes a run folder, which is then segmented and scored like any row."""

import time
from pathlib import Path
from typing import Any

from hodor.errors import HodorError
from hodor.models.base import save_model
from hodor.models.original.load import load_original
from hodor.provenance import (
    commit,
    machine,
    peak_memory_mib,
    sha256_file,
    versions,
    write_json_atomic,
    write_text_atomic,
)


def adopt(stamp: dict[str, Any], checkpoint: Path, out: Path) -> None:
    """Converts a checkpoint to `out/model.safetensors` and records it in `out/train.json`, as a training does.

    Args:
        stamp: its settings name the `method` that the checkpoint must be of.
        checkpoint: as its authors released it (`hodor.models.original`).
        out: run folder.

    Raises:
        HodorError: the checkpoint is missing, damaged, of another method, or not as the release's are.
    """
    settings, began = stamp["settings"], time.monotonic()
    name, method, report = load_original(checkpoint)
    if name != settings["method"]:
        raise HodorError(
            f"{checkpoint}: a checkpoint of {name} where config/rows.yaml names {settings['method']}; put the "
            "right file there"
        )
    print("\n".join([str(checkpoint), *report.lines()]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    options = method.options.model_dump(mode="json")  # methods with a release have options
    save_model(out / "model.safetensors", method, name=name, options=options)
    write_text_atomic(out / "train.jsonl", "")  # nothing was trained here
    write_json_atomic(
        out / "train.json",
        {
            "stamp": stamp["sha256"],
            "stamp_content": {key: value for key, value in stamp.items() if key != "sha256"},
            "inputs": {"checkpoint": sha256_file(checkpoint)},
            "model": sha256_file(out / "model.safetensors"),
            "parameters": sum(parameter.numel() for parameter in method.parameters()),
            "steps": 0,
            "time_s": round(time.monotonic() - began, 2),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        },
    )
