"""The verbs `verify` and `import`: check a run from anywhere, and copy it into the runs of the working directory."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.loading import Config, load
from hodor.data.files import put_in_place
from hodor.doctor.artefacts import read_faults
from hodor.errors import HodorError
from hodor.provenance import IMPORTED, record_making, sha256_file, sha256_json, write_manifest
from hodor.reporting.runs import TEXT, Prediction, Run, read_run
from hodor.scoring.score import GLOBAL, PER_FRAME, PER_OBJECT, open_benchmark, write_scores
from hodor.scoring.sequences import ObjectScores, Task, check_prediction, score_sequences
from hodor.stamps import Stamps

SAMPLE = 300
"""Frames that are scored again on each benchmark, at least; whole sequences."""
_COPY = "copy the run again, or make it again"
_CONFIGURE = "use the configuration that it was made with, or make it again"


def verify(folders: Sequence[Path], config: Path, overrides: dict[str, Any]) -> list[tuple[Run, Config]]:
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
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            faults.append(f"{folder}: its records are not of the workflow ({error!r}); {_COPY}")
        print("\n".join(faults or [f"{folder}: verified"]), flush=True)
        wrong += len(faults)
    if wrong:
        raise HodorError(f"findings: {wrong}, runs: {len(folders)}; see the lines above")
    return found


def import_runs(folders: Sequence[Path], config: Path, overrides: dict[str, Any], *, force: bool = False) -> None:
    """Verify runs and copy them to runs/<scale>/<row>/seed<k> of the working directory.

    A run is copied, not linked, because its files may get other times. A copy that fails leaves the earlier run.

    Args:
        folders, config, overrides: as of `verify`.
        force: replace other runs.

    Raises:
        HodorError: an error of `verify`, in which case nothing is copied; the run that it starts from is absent; or another
            run, or an unfinished training, is in its place.
    """
    verified = verify(folders, config, overrides)
    for run, of in sorted(verified, key=lambda one: len(one[1].lineage(one[0].row))):
        target, parent = paths.run(of.scale.name, run.row, run.seed), of.rows[run.row].init
        if not run.train:
            raise HodorError(f"{run.folder}: has external masks, not a training; place them as config/rows.yaml says")
        weights = paths.run(of.scale.name, parent, run.seed) / "model.safetensors" if parent else None
        if weights is not None:
            if not weights.is_file() or sha256_file(weights) not in run.train["inputs"].values():
                raise HodorError(f"{weights}: not the weights that {run.folder} started from; import that run too")
        if target.is_dir() and any(target.iterdir()):
            if _records(target) == _records(run.folder) and not _faults(run, target):
                print(f"{target}: is this run already")
                continue
            if not force:
                fix = "delete it, or replace it with --force"
                raise HodorError(f"{target}: is another run than {run.folder}, or unfinished or damaged; {fix}")
        _copy(run, target, weights)
        print(f"{target}: imported from {run.folder}")


def _check(folder: Path, config_folder: Path, overrides: dict[str, Any], faults: list[str]) -> tuple[Run, Config]:
    """Check one run. `faults` receives the findings; HodorError for one that ends the check."""
    run = read_run(folder)
    stamps = [record.get("stamp_content") for record in (run.train, *(p.segment for p in run.predictions.values()))]
    scale, *others = {stamp["scale"] for stamp in stamps if stamp} or {None}
    if scale is None or others:
        raise HodorError(f"{folder}: its records do not name one scale; {_COPY}")
    config = load(config_folder, {"scale": scale, "rows": run.row, "seeds": [run.seed], **overrides})
    current, external = Stamps(config, config_folder.resolve().parent), bool(config.rows[run.row].masks)
    expected = {f"{id}/score": current.score(id) for id in run.predictions}
    if not external:
        expected["train"] = current.train(run.row, run.seed)
    if not external or run.row in config.selected:  # the stamp of external masks holds their digest
        expected |= {f"{id}/segment": current.segment(run.row, run.seed, id) for id in run.predictions}

    settings = f"not the settings of scale {scale}"

    def differs(step: str, record: dict, source: dict) -> str:
        if step not in expected or record.get("stamp") == sha256_json(expected[step]):
            return ""
        found = _differences(source.get("stamp_content"), json.loads(json.dumps(expected[step])))
        return f"{settings}: {', '.join(found) or 'the digest of the stamp'}"

    faults += [f"{text}; {_CONFIGURE if settings in text else _COPY}" for text in _faults(run, folder, differs)]
    for name, digest in run.train.get("inputs", {}).items():
        data = paths.data(scale) / name
        if data.is_file() and sha256_file(data) != digest:
            fix = "prepare the same archives, or train again"
            faults.append(f"{folder / 'train.json'}: trained on other data than {data}; {fix}")
    for id, prediction in run.predictions.items() if not faults else ():
        faults += _check_scores(id, prediction, scale)
    return run, config


def _faults(run: Run, folder: Path, *differs: Callable[[str, dict, dict], str]) -> list[str]:
    """Return the faults of a run, or a copy of it, and its missing files, as `FILE: what is wrong`."""
    names = [f"{path.parent.name}/score.json" for path in folder.glob("*/masks.json")]
    names += ["model.safetensors"] * bool(run.train) + ["train.jsonl"] * bool(run.train.get("log"))
    missing = [f"{folder / name}: missing" for name in names if not (folder / name).is_file()]
    masks = [folder / id / "masks" for id in run.predictions]
    missing += [f"{path}: missing" for path in masks if not path.is_dir()]
    return [*(fault.text for fault in read_faults(folder, *differs)), *missing]


def _check_scores(id: str, prediction: Prediction, scale: str) -> Iterator[str]:
    """Yield the faults of the scores on one benchmark, and print how far they were checked.

    A sample of the sequences is scored again where the data set is; means are always computed again from per_frame.csv.
    """
    benchmark, folder = get_benchmark(id), prediction.folder
    manifest = paths.manifest(scale, benchmark.dataset)
    sample: list[Task] = []
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
        for name, of in (
            (PER_FRAME, "scores of the masks"),
            (PER_OBJECT, f"means of {PER_FRAME}"),
            (GLOBAL, f"means of {PER_FRAME}"),
        ):
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


def _copy(run: Run, target: Path, weights: Path | None) -> None:
    """Copy a run to `target`, with a record of the import, in one step. `weights`: those that its training started from."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        ignored = shutil.ignore_patterns("checkpoints", ".*", "manifest.json", IMPORTED)
        shutil.copytree(run.folder, part, ignore=ignored)
        for text in _faults(run, part):
            raise HodorError(f"{text}, after copying; check the disk, then run the same command again")
        # Snakemake compares times, which a copy may have in any order. The manifest alone is new, for the tables: with new
        # weights it would train again the rows that start from them.
        at = min(time.time_ns(), (run.folder / "train.json").stat().st_mtime_ns)
        at = max(at, weights.stat().st_mtime_ns) if weights else at
        for path in (part, *part.rglob("*")):
            os.utime(path, ns=(at, at))
        record_making(part / IMPORTED, [part / "train.json"])
        write_manifest(part, run.row, run.seed, run.predictions)
        put_in_place(part, target)
    except shutil.Error as error:  # a list of (source, copy, reason)
        _, at, reason = error.args[0][0]
        raise HodorError(f"{at}: {reason}; free space or fix the folder, then run the same command again") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
