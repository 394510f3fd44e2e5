"""What the Snakefile needs besides rules: the checked configuration, the stamps, and an environment for the jobs."""

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
    """Read the configuration beside the Snakefile in `root` and write the stamps below the working directory.

    Raises:
        WorkflowError: a fault in the configuration, or a folder that cannot be written to (Snakemake shows its text
            without a traceback).
    """
    # Jobs run the verbs of this checkout with the interpreter that runs Snakemake, in an active environment or not.
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
        # A job on another machine reads the Snakefile too, and cannot know which processes run here.
        if "--mode" not in sys.argv and remove_left_over():
            print("The last run was killed; its locks on this folder are removed.", file=sys.stderr)
        dry = _is_dry_run(sys.argv)
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
    os.environ["HODOR_SCRATCH"] = config.settings.scratch or ""
    return config, records


def mark_published(scale: str, name: str, copies: Mapping[Path, Path]) -> Path:
    """File that changes when published copies differ from their sources, so that they are copied again.

    They differ after another scale was published, or where somebody edited or deleted them. The file holds the times of
    such copies: the same edit made twice is another content, which Snakemake compares.

    Args:
        name: of the set of copies.
        copies: source -> copy; files, or folders of files.
    """
    other: dict[str, int] = {}
    for source, copy in copies.items():
        inside = [file for file in sorted(source.rglob("*")) if file.is_file()]
        pairs = [(file, copy / file.relative_to(source)) for file in inside] or [(source, copy)]
        for file, of in pairs:
            if file.is_file() and copy.exists() and not (of.is_file() and filecmp.cmp(file, of, shallow=False)):
                other[str(of)] = of.stat().st_mtime_ns if of.is_file() else 0
    marker = paths.published(scale, name)
    # A job reads the Snakefile while others copy.
    if not marker.is_file() or other and "--mode" not in sys.argv:
        write_if_changed(marker, json_text(other))
    return marker


def requested(workflow: Any) -> set[str]:
    """Targets given on the command line: rules, rows and files; empty for the default target."""
    return set(workflow.dag_settings.targets)


def check_triggers(triggers: Iterable[Any]) -> None:
    """Raise WorkflowError if a changed list of inputs makes a step run again: everything would be trained again."""
    if any(trigger.name == "INPUT" for trigger in triggers):
        raise WorkflowError(
            "these settings of Snakemake would train everything again: use profiles/default, or a workflow profile "
            "that has `rerun-triggers: [mtime]` too"
        )


def _refuse_second_config(arguments: list[str]) -> None:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if sum(re.fullmatch(r"--config(=.*)?|-C.*", argument) is not None for argument in options) > 1:
        raise HodorError(
            "--config is given twice, and Snakemake keeps the last alone: write all keys after one --config"
        )


def _refuse_links(scale: str) -> None:
    """Raise HodorError if DVC would refuse to record what its stages made: now, not after the first stage."""
    for folder in (paths.data(scale) / "archives", paths.runs(scale), paths.results(scale), paths.reports(scale)):
        if not folder.resolve().is_relative_to(Path.cwd().resolve()):
            raise HodorError(
                f"{folder.parts[0]}: {folder} leads out of the repository by a link, and DVC records no such file; clone "
                f"onto the disk that has room, or keep a folder here and move DVC's cache (dvc cache dir FOLDER)"
            )


def _is_dry_run(arguments: Iterable[str]) -> bool:
    return any(re.fullmatch(r"--dry-?run|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in arguments)


def _require_writable(*folders: Path) -> None:
    """Raise OSError for an existing folder that cannot be written to: now, not after hours of training.

    Where a table exists already, Snakemake would call it write-protected. A read-only mount is refused for root too.
    """
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code), str(folder))


def _prepend(variable: str, path: str) -> None:
    paths = os.environ.get(variable, "").split(os.pathsep)
    os.environ[variable] = os.pathsep.join([path, *(other for other in paths if other not in ("", path))])
