"""Trained rows: are their weights whole, their own, and those of the present settings?"""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from hodor import paths
from hodor.doctor.findings import Finding, Findings
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_file, sha256_json
from hodor.stamps import Stamps


def check_run(stamps: Stamps, folder: Path, row: str, seed: int) -> Findings:
    """Whether the weights of a row are readable, are those that train.json names, and carry the present stamp.

    `folder`: working directory.
    """
    config, subject = stamps.config, f"weights {row}" + (f" seed {seed}" if len(stamps.config.seeds) > 1 else "")
    run = folder / paths.run(stamps.scale, row, seed)
    weights, record = run / "model.safetensors", run / "train.json"
    again = (
        f"snakemake --cores all --config scale={stamps.scale} -- {paths.run(stamps.scale, row, seed)}/{weights.name}"
    )
    if not weights.is_file() and not record.is_file():
        stage, kept = config.stage(row), sorted((run / "checkpoints").glob("step-*.pt"))
        if kept:
            step = int(kept[-1].stem.partition("-")[2])
            text = f"not trained to the end: a checkpoint of step {step} of {stage.steps if stage else 0} is kept"
            yield Finding("warning", subject, text, f"it continues with: {again}")
        else:
            yield Finding("ok", subject, "not trained yet")
        return
    try:
        told = read_json(record)
        with safe_open(weights, framework="numpy") as file:
            entries = len(file.keys())
        digest = sha256_file(weights)
    except (HodorError, SafetensorError, OSError) as error:
        yield Finding(
            "wrong", subject, f"{weights if weights.is_file() else run}: {error}", f"rm -f {record} && {again}"
        )
        return
    if told.get("model") != digest:
        text = f"{weights} is not the file that {record} names (sha256)"
        yield Finding("wrong", subject, text, f"rm -f {weights} {record} && {again}, or `make restore`")
    elif told.get("stamp") != sha256_json(stamps.contents[f"train-{row}-seed{seed}"]):
        text = "made with other settings or other code than the present ones"
        yield Finding(
            "warning", subject, text, "the next run of the workflow trains it again; git checkout brings back the old"
        )
    else:
        yield Finding(
            "ok", subject, f"{entries} entries, checksum as recorded, stamp current, {told.get('steps', 0)} steps"
        )
