"""What the Snakefile needs besides rules: checked settings, written stamps, and an environment for the jobs."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from hodor.config import Config, load
from hodor.errors import HodorError
from hodor.locks import hold, remove_left_over
from hodor.records import Records
from hodor.stamps import Stamps


def set_up(root: Path, overrides: Mapping[str, Any]) -> tuple[Config, Records]:
    """Reads the configuration beside the Snakefile and writes the stamps below the working directory.

    Args:
        root: the repository.
        overrides: keys of config.yaml with other values (`snakemake --config`).

    Raises:
        WorkflowError: a fault in the configuration (Snakemake shows its text without a traceback).
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
    hold()
    # A job on another machine reads the Snakefile too; there, nothing is known of who works here.
    if "--mode" not in sys.argv and remove_left_over():
        print("The last run was killed; its marks on this folder are removed.", file=sys.stderr)
    stamps.write()
    os.environ["HODOR_MIRROR"] = config.mirror or ""
    return config, Records(stamps)


def check_triggers(triggers: Iterable[Any]) -> None:
    """WorkflowError if Snakemake lets the list of a step's inputs decide: everything would be trained again."""
    if any(trigger.name == "INPUT" for trigger in triggers):
        raise WorkflowError(
            "these settings of Snakemake would train everything again: use profiles/default, or a workflow profile "
            "that has `rerun-triggers: [mtime]` too"
        )


def _prepend(variable: str, path: str) -> None:
    paths = os.environ.get(variable, "").split(os.pathsep)
    os.environ[variable] = os.pathsep.join([path, *(other for other in paths if other not in ("", path))])
