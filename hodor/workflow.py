"""What the Snakefile needs besides rules: checked settings, written stamps, and an environment for the jobs."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hodor.config import Config, load
from hodor.errors import HodorError
from hodor.records import Records
from hodor.stamps import Stamps


def set_up(root: Path, overrides: Mapping[str, Any]) -> tuple[Config, Records]:
    """Reads the configuration beside the Snakefile and writes the stamps below the working directory.

    Args:
        root: the repository.
        overrides: keys of config.yaml with other values (`snakemake --config`).

    Raises:
        HodorError: a fault in the configuration.
    """
    # Jobs run the verbs of this checkout with the interpreter that runs Snakemake, in an active environment or not.
    # Rules that held these paths would all run again after the environment moved.
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", str(root))
    config = load(root / "config", dict(overrides))
    os.environ["HODOR_MIRROR"] = config.mirror or ""
    stamps = Stamps(config, root)
    stamps.write()
    return config, Records(stamps)


def check_triggers(triggers: Iterable[Any]) -> None:
    """HodorError if Snakemake lets the list of a step's inputs decide: everything would be trained again."""
    if any(trigger.name == "INPUT" for trigger in triggers):
        raise HodorError(
            "these settings of Snakemake would train everything again: use profiles/default, or a workflow profile "
            "that has `rerun-triggers: [mtime]` too"
        )


def _prepend(variable: str, path: str) -> None:
    paths = os.environ.get(variable, "").split(os.pathsep)
    os.environ[variable] = os.pathsep.join([path, *(other for other in paths if other not in ("", path))])
