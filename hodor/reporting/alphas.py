"""The learned alphas of soft-masked attention, read from a run's weights."""

import re
from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError, safe_open

from hodor.attention import initial_alpha
from hodor.errors import HodorError
from hodor.reporting.runs import Run

_NAME = re.compile(r"^network\.encoder\.layers\.(\d+)\.cross_attention\.alpha$")


def learned_alphas(runs: Sequence[Run]) -> np.ndarray:
    """Alphas of a row's runs, float (R, layers, heads), the runs in their order.

    Raises:
        HodorError: weights that cannot be read, or that hold no alphas.
    """
    return np.stack([_read(run) for run in runs])


def starting_alphas(heads: int) -> np.ndarray:
    """What the alphas of a layer start at, float (heads,)."""
    return np.array(initial_alpha(heads))


def _read(run: Run) -> np.ndarray:
    path = run.folder / "model.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            found = {int(match[1]): file.get_tensor(name) for name in file.keys() if (match := _NAME.match(name))}
    except (OSError, SafetensorError) as error:
        raise HodorError(f"{path}: broken model file ({error}); delete it and train its row again") from None
    if not found:
        raise HodorError(f"{path}: holds no alphas: its attention is not soft")
    return np.array([found[layer] for layer in sorted(found)], float)
