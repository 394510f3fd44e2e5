"""The verbs `verify` and `import`: check a run from anywhere, and copy it into the runs of the working directory."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.loading import Config, load
from hodor.data.progress import put_in_place
from hodor.doctor.artefacts import read_faults
from hodor.errors import HodorError
from hodor.provenance import IMPORTED, record_making, sha256_file, sha256_json, write_manifest
from hodor.reporting.runs import TEXT, Prediction, Run, read_run
from hodor.scoring.score import GLOBAL, PER_FRAME, PER_OBJECT, open_benchmark, write_scores
from hodor.scoring.sequences import ObjectScores, check_prediction, score_sequences
from hodor.stamps import Stamps

SAMPLE = 300
"""Frames that are scored again on each benchmark, at least; whole sequences."""
_COPY = "copy the run again, or make it again"


class Verified(NamedTuple):
    """A run whose records and files agree with each other, with the configuration and with the data in this folder."""

    run: Run
    scale: str
    config: Config


def verify(folders: Sequence[Path], config: Path, overrides: dict[str, Any]) -> list[Verified]:
    """Check run folders and print a line per finding, `FILE: what is wrong; what to do`.

    Args:
        folders: run folders `<row>/seed<k>`, on any disk.
        config: configuration folder; the scale, row and seed are those in the records of a run.
        overrides: keys of config.yaml (`mirror`).

    Raises:
        HodorError: something is wrong (after all checks).
    """
    found, wrong = [], 0
    for folder in folders:
        faults: list[str] = []
        try:
            found.append(_check(folder, config, overrides, faults))
        except HodorError as error:
            faults.append(str(error) if ";" in str(error) else f"{error}; {_COPY}")
        print("\n".join(faults or [f"{folder}: verified"]), flush=True)
        wrong += len(faults)
    if wrong:
        raise HodorError(
            f"{wrong} finding{'s' * (wrong > 1)} in {len(folders)} run{'s' * (len(folders) > 1)}, see above"
        )
    return found


def import_runs(folders: Sequence[Path], config: Path, overrides: dict[str, Any], *, force: bool = False) -> None:
    """Verify runs and copy them to runs/<scale>/<row>/seed<k> of the working directory.

    A run is copied, not linked, because its files get the current time, and a later training here would write into the
    other folder. An interrupted or failed copy leaves the earlier run.

    Args:
        folders, config, overrides: as of `verify`.
        force: replace other runs.

    Raises:
        HodorError: an error of `verify`, in which case nothing is copied; the run that it starts from is absent; or another
            run, or an unfinished training, is in its place.
    """
    for run, scale, of in sorted(
        verify(folders, config, overrides), key=lambda one: len(one.config.lineage(one.run.row))
    ):
        target = paths.run(scale, run.row, run.seed)
        if not run.train:
            raise HodorError(f"{run.folder}: has external masks, not a training; place them as config/rows.yaml says")
        if parent := of.rows[run.row].init:
            weights = paths.run(scale, parent, run.seed) / "model.safetensors"
            if not weights.is_file() or sha256_file(weights) not in run.train["inputs"].values():
                raise HodorError(
                    f"{weights}: not the weights that {run.folder} starts from; import that run of {parent} too"
                )
        if target.is_dir() and any(target.iterdir()):
            if _records(target) == _records(run.folder):
                print(f"{target}: is this run already")
                continue
            if not force:
                raise HodorError(
                    f"{target}: is another run than {run.folder}, or unfinished; delete it, or replace it with --force"
                )
        _copy(run, target)
        print(f"{target}: imported from {run.folder}")


def _check(folder: Path, config_folder: Path, overrides: dict[str, Any], faults: list[str]) -> Verified:
    """Check one run. `faults` receives the findings; HodorError for one that ends the check."""
    run = read_run(folder)
    stamps = [record.get("stamp_content") for record in (run.train, *(p.segment for p in run.predictions.values()))]
    scales = {stamp["scale"] for stamp in stamps if stamp}
    if len(scales) != 1:
        raise HodorError(
            f"{folder}: its records name {' and '.join(sorted(scales)) or 'no scale'}, not one scale; {_COPY}"
        )
    (scale,) = scales
    config = load(config_folder, {"scale": scale, "rows": run.row, "seeds": [run.seed], **overrides})
    current, entry = Stamps(config, config_folder.resolve().parent), config.rows[run.row]
    expected = {f"{id}/score": current.score(id) for id in run.predictions}
    if not entry.masks:
        expected["train"] = current.train(run.row, run.seed)
    if not entry.masks or run.row in config.selected:  # masks of another system that are here
        expected |= {f"{id}/segment": current.segment(run.row, run.seed, id) for id in run.predictions}

    def differs(step: str, record: dict, source: dict) -> str:
        if step not in expected or record.get("stamp") == sha256_json(expected[step]):
            return ""
        found = _differences(source.get("stamp_content"), json.loads(json.dumps(expected[step])))
        return f"not the settings of scale {scale}: {', '.join(found) or 'the digest of the stamp'}"

    inputs = {paths.data(scale) / name: digest for name, digest in run.train.get("inputs", {}).items()}
    parent, beside = entry.init, folder.resolve().parents[1]
    if parent and not (init := beside / parent / f"seed{run.seed}" / "model.safetensors").is_file():
        init = paths.run(scale, parent, run.seed) / "model.safetensors"
    if parent and not init.is_file():
        print(f"{folder}: starting weights not compared: no run of {parent} beside it or here")
    present = init if parent and init.is_file() else None
    faults += [f"{fault.text}; {_COPY}" for fault in read_faults(folder, differs, present)]
    names = ["model.safetensors"] if run.train else []
    for name in (*names, *(f"{id}/masks" for id in run.predictions)):
        if not (folder / name).exists():
            faults.append(f"{folder / name}: missing; {_COPY}")
    for data in (data for data, digest in inputs.items() if data.is_file() and sha256_file(data) != digest):
        faults.append(
            f"{folder / 'train.json'}: trained on other data than {data}; prepare the same archives, or train again"
        )
    for id, prediction in run.predictions.items() if not faults else ():
        faults += _check_scores(id, prediction, scale)
    return Verified(run, scale, config)


def _check_scores(id: str, prediction: Prediction, scale: str) -> Iterator[str]:
    """Yield the faults of the scores on one benchmark, and print how far they were checked.

    A sample of the sequences is scored again where the data set is; means are always computed again from per_frame.csv.
    """
    benchmark, folder = get_benchmark(id), prediction.folder
    manifest, sample = paths.manifest(scale, benchmark.dataset), []
    if manifest.is_file() and sha256_file(manifest) != prediction.score["truth"]:
        yield f"{folder / 'score.json'}: scored on other data than {manifest}; prepare the same archives, or score again"
        return
    if prediction.submission:
        print(f"{folder}: not re-scored: a server has the ground truth")
        return
    if manifest.is_file() and (data := paths.dataset(scale, benchmark.dataset)).is_dir():
        tasks = check_prediction(open_benchmark(benchmark, data)[1], folder / "masks")
        # Nobody can choose these sequences, and they are the same each time.
        random.Random(prediction.score["masks"]).shuffle(tasks)
        while tasks and sum(len(task.demanded) for task in sample) < SAMPLE:
            sample.append(tasks.pop())
        print(f"{folder}: re-scored {len(sample)} of {len(sample) + len(tasks)} sequences")
    else:
        print(f"{folder}: not re-scored: no data here")
    categories, scores = prediction.objects.get("category", {}), {}
    for (sequence, object_id), of in prediction.frames().groupby(["sequence", "object"], sort=False):
        columns = tuple(of["frame"]), of["J"].to_numpy(), of["F"].to_numpy()
        found = ObjectScores(sequence, int(object_id), *columns, categories.get(f"{sequence}_{object_id}"))
        scores[found.name] = found
    scores |= {found.name: found for found in score_sequences(sample, folder / "masks")}
    with TemporaryDirectory() as made:
        write_scores(list(scores.values()), Path(made))
        for name, of in ((PER_FRAME, "scores of the masks"), (PER_OBJECT, f"means of {PER_FRAME}"), (GLOBAL, "means")):
            new, old = (pd.read_csv(Path(at) / name, dtype=dict.fromkeys(TEXT, str)) for at in (made, folder))
            try:
                # The official toolkit, whose means may be in the files, may differ by as much.
                pd.testing.assert_frame_equal(new, old, check_exact=False, rtol=0, atol=1e-9)
            except AssertionError:
                yield f"{folder / name}: not the {of}; {_COPY}"
                return


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    """Yield the settings that differ between two stamps, with both values."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
    elif theirs != ours:
        yield f"{name} is {json.dumps(theirs)}, here {json.dumps(ours)}"


def _records(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of the records of a run's steps."""
    found = [*folder.glob("train.json"), *folder.glob("*/*.json")]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in found}


def _copy(run: Run, target: Path) -> None:
    """Copy a run to `target`, with a record of the import, in one step."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        ignored = shutil.ignore_patterns("checkpoints", ".*", "manifest.json", IMPORTED)
        shutil.copytree(run.folder, part, ignore=ignored)
        for fault in read_faults(part):
            raise HodorError(f"{fault.text}, after copying; check the disk, then run the same command again")
        write_manifest(part, run.row, run.seed, run.predictions)
        record_making(part / IMPORTED, [part / "train.json"])
        # Snakemake compares times, and a copy may have them in any order.
        now = time.time_ns()
        for path in (part, *part.rglob("*")):
            os.utime(path, ns=(now, now))
        put_in_place(part, target)
    except shutil.Error as error:  # a list of (source, copy, reason)
        _, at, reason = error.args[0][0]
        raise HodorError(f"{at}: {reason}; free space or fix the folder, then run the same command again") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
