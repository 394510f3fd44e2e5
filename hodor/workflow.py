"""What the Snakefile needs besides rules: checked settings, written stamps, and an environment for the jobs."""

import errno
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
from hodor.records import Records
from hodor.stamps import Stamps


def set_up(root: Path, overrides: Mapping[str, Any]) -> tuple[Config, Records]:
    """Reads the configuration beside the Snakefile and writes the stamps below the working directory.

    Args:
        root: the repository.
        overrides: keys of config.yaml with other values (`snakemake --config`).

    Raises:
        WorkflowError: a fault in the configuration, or a folder that cannot be written to (Snakemake shows its text
            without a traceback).
    """
    # Jobs run the verbs of this checkout with the interpreter that runs Snakemake, in an active environment or not.
    # Rules that held these paths would all run again after the environment moved.
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", str(root))
    try:
        config = load(root / "config", dict(overrides))
        stamps = Stamps(config, root)
    except HodorError as error:
        raise WorkflowError(str(error)) from None
    try:
        hold()
        # A job on another machine reads the Snakefile too; there, nothing is known of who works here.
        if "--mode" not in sys.argv and remove_left_over():
            print("The last run was killed; its marks on this folder are removed.", file=sys.stderr)
        stamps.write()
        if not _is_dry_run(sys.argv):
            _require_writable(
                paths.results(), paths.results(stamps.scale), paths.reports(), paths.reports(stamps.scale)
            )
    except OSError as error:
        message = place_error(error)
        if message is None:
            raise
        raise WorkflowError(message) from None
    os.environ["HODOR_MIRROR"] = config.mirror or ""
    os.environ["HODOR_SCRATCH"] = config.settings.scratch or ""
    return config, Records(stamps)


def requested(workflow: Any) -> set[str]:
    """Targets given on the command line: rules, rows and files; empty for the default target."""
    return set(workflow.dag_settings.targets)


def check_triggers(triggers: Iterable[Any]) -> None:
    """WorkflowError if Snakemake lets the list of a step's inputs decide: everything would be trained again."""
    if any(trigger.name == "INPUT" for trigger in triggers):
        raise WorkflowError(
            "these settings of Snakemake would train everything again: use profiles/default, or a workflow profile "
            "that has `rerun-triggers: [mtime]` too"
        )


def _is_dry_run(arguments: Iterable[str]) -> bool:
    return any(re.fullmatch(r"--dry-?run|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in arguments)


def _require_writable(*folders: Path) -> None:
    """OSError for a folder that is there and cannot be written to.

    Told now, not after hours of training; and where a table is there already, Snakemake would call it write-protected.
    (On a read-only mount the answer holds for root too.)
    """
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code), str(folder))


def _prepend(variable: str, path: str) -> None:
    paths = os.environ.get(variable, "").split(os.pathsep)
    os.environ[variable] = os.pathsep.join([path, *(other for other in paths if other not in ("", path))])
