"""Functions of the Snakefile: read the configuration, write the stamps, set the environment of the jobs."""

import errno
import filecmp
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from hodor import paths
from hodor.config.loading import Config, load
from hodor.errors import HodorError, place_error
from hodor.locks import hold, remove_left_over
from hodor.provenance import json_text
from hodor.records import Records
from hodor.stamps import Stamps, write_if_changed


def set_up(root: Path, overrides: Mapping[str, Any]) -> tuple[Config, Records]:
    """Read the configuration of the checkout `root` and write the stamps below the working directory.

    Raises:
        WorkflowError: a fault in the configuration, or a folder that cannot be written to; Snakemake prints it without
            a traceback.
    """
    # Jobs use this checkout and the interpreter of Snakemake, even if its environment is not active.
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", str(root))
    try:
        _refuse_second_config(sys.argv)
        config = load(root / "config", dict(overrides))
        if "DVC_STAGE" in os.environ:  # set by `dvc repro`
            _refuse_links(config.scale.name)
        stamps = Stamps(config, root)
        records = Records(stamps)
    except HodorError as error:
        raise WorkflowError(str(error)) from None
    try:
        hold()
        # Jobs (--mode) read the Snakefile too, on other machines, where this machine's locks are not visible.
        if "--mode" not in sys.argv and remove_left_over():
            print("The last run was killed; its locks on this folder were removed.", file=sys.stderr)
        dry = any(re.fullmatch(r"--dry-?run|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in sys.argv)
        stamps.write(present=not dry and "--mode" not in sys.argv)
        records.date_stamps()
        if not dry:
            _require_writable(
                *(folder(scale) for folder in (paths.results, paths.reports) for scale in (None, stamps.scale))
            )
    except OSError as error:
        message = place_error(error)
        if message is None:
            raise
        raise WorkflowError(message) from None
    os.environ["HODOR_MIRROR"] = config.mirror or ""
    return config, records


def mark_published(scale: str, name: str, copies: Mapping[Path, Path]) -> Path:
    """Return a file that changes when published copies differ from their sources, so that they are copied again.

    They differ after another scale was published, or if they were edited or deleted, or have lost their source. The file
    holds the modification times of the copies that differ, so that the same edit made twice changes it twice.

    Args:
        scale: scale of the sources.
        name: name of the set of copies.
        copies: source -> copy; files, or folders of files.
    """
    other: dict[str, int] = {}
    for source, copy in copies.items():
        inside = [file for file in sorted(source.rglob("*")) if file.is_file()]
        pairs = [(file, copy / file.relative_to(source)) for file in inside] or [(source, copy)]
        for file, of in pairs:
            same = file.is_file() and of.is_file() and filecmp.cmp(file, of, shallow=False)
            if copy.exists() and not same and (file.is_file() or not source.exists()):
                other[str(of)] = of.stat().st_mtime_ns if of.is_file() else 0
    marker = paths.published(scale, name)
    # A job reads the Snakefile while other jobs copy.
    if not marker.is_file() or other and "--mode" not in sys.argv:
        write_if_changed(marker, json_text(other))
    return marker


def check_triggers(triggers: Iterable[Any]) -> None:
    """Raise WorkflowError if Snakemake would rerun steps whose list of inputs changed (see `hodor.records.Records`)."""
    if any(trigger.name == "INPUT" for trigger in triggers):
        raise WorkflowError(
            "these settings of Snakemake would train everything again; use profiles/default, or a workflow profile "
            "with `rerun-triggers: [mtime]`"
        )


def forget_failed(jobs: Iterable[Any], persistence: Any) -> None:
    """Delete what Snakemake recorded about results that failed steps did not leave.

    It records the checksums of a step's inputs even if the step fails. The next run would take them for those of the older
    results of later steps, and would not run the failed step again.

    Args:
        jobs: of Snakemake's DAG.
        persistence: Snakemake's records.
    """
    for job in jobs:
        for path in job.output:
            if not Path(path).exists():
                persistence.cleanup_metadata(path)


def explain_killed(logs: Iterable[str]) -> None:
    """Name each step that the kernel killed, most likely for memory, with the remedy: it had no chance to do so itself.

    Args:
        logs: log files of a failed run of Snakemake.
    """
    text = "\n".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in logs)
    for step in dict.fromkeys(re.findall(r"-m hodor (\S+ \S+).*non-zero exit status 137", text)):
        print(
            f"hodor {step}: killed (signal 9), most likely because memory ran out; run fewer jobs at a time (--cores, "
            "--resources mem_mb=N), or a training with a smaller execution.micro_batch (docs/distributed.md)",
            file=sys.stderr,
        )


def _refuse_second_config(arguments: list[str]) -> None:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if sum(re.fullmatch(r"--config(=.*)?|-C.*", argument) is not None for argument in options) > 1:
        raise HodorError(
            "--config is given twice, but Snakemake keeps only the last; write all keys after one --config"
        )


def _refuse_links(scale: str) -> None:
    """Raise HodorError if DVC could not record the outputs of its stages: at once, not after the first stage."""
    for folder in (paths.data(scale) / "archives", paths.runs(scale), paths.results(scale), paths.reports(scale)):
        if not folder.resolve().is_relative_to(Path.cwd().resolve()):
            raise HodorError(
                f"{folder.parts[0]}: {folder} is linked to a place outside the repository, where DVC records no files; "
                "clone onto the larger disk, or keep a folder here and move DVC's cache (dvc cache dir FOLDER)"
            )


def _require_writable(*folders: Path) -> None:
    """Raise OSError for an existing folder that cannot be written to: at once, not after hours of training."""
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code), str(folder))


def _prepend(variable: str, path: str) -> None:
    paths = os.environ.get(variable, "").split(os.pathsep)
    os.environ[variable] = os.pathsep.join([path, *(other for other in paths if other not in ("", path))])
