"""The committed numbers: a file for each recipe, with the recipe's version."""

import json
import math
import re
from pathlib import Path
from typing import Any

from hodor.config.recipes import RECIPES

FOLDER = Path(__file__).parent / "values"
COMMAND = "make golden"

TOLERANCES = (
    (r"(frames|\.jpg)/at/", 0, 1.5),
    (r"(frames|\.jpg)/(mean|std)$", 0, 0.1),
    (r"(labels|valid|\.png)/(mean|std)$", 0, 2e-3),
    (r"/probabilities/", 0, 1e-3),
    (r"/areas/", 0, 2e-3),
    (r"/steps/0/(loss|norm)$", 1e-3, 0),
    (r"/loss$", 2e-3, 0),
    (r"/norm$", 2e-2, 0),
    (r"", 1e-5, 1e-5),
)
"""Place of a number -> relative and absolute tolerance; the first that matches. Another processor sums and multiplies in
another order, with other instructions: that moves a pixel of a warp by a grey level, a pixel of a mask to its neighbour's
label, and a probability in its fifth digit. A loss moves little, but Adam takes full steps where a gradient is nearly 0 and
its sign is chance: gradient norms after the first step move by up to 0.4 % (measured without vector instructions).
Everything else is counted, or computed in float64 and rounded to six digits here. Text, types and whole numbers must be
equal."""


def path_of(recipe: str) -> Path:
    return FOLDER / f"{recipe.replace('/', '-')}.json"


def check(recipe: str, values: Any) -> None:
    """AssertionError where a recipe's values, its version or its file are not as committed, with what to do."""
    assert path_of(recipe).is_file(), f"no golden value of {recipe} yet; write it with: {COMMAND}"
    committed = _read(recipe)
    stored = committed["version"]
    assert stored == RECIPES[recipe], (
        f"{recipe} has version {RECIPES[recipe]}, its golden value version {stored}; write the new one with: {COMMAND}"
    )
    moved = _differences(recipe, committed["values"], values)
    assert not moved, (
        f"{recipe} computes other numbers than version {stored} did. If that is meant, raise RECIPES[{recipe!r}] in "
        f"hodor/config/recipes.py to {stored + 1} and write the new numbers with: {COMMAND}\n  "
        + "\n  ".join(moved[:8])
    )


def write(recipe: str, values: Any, force: bool = False) -> str | None:
    """Writes a recipe's file where it is out of date; returns what was done, or None.

    Raises:
        AssertionError: other numbers under the same version, unless `force`.
    """
    path = path_of(recipe)
    if path.is_file() and not force and _read(recipe)["version"] == RECIPES[recipe]:
        check(recipe, values)
        return None
    text = json.dumps({"version": RECIPES[recipe], "values": values}, indent=1)
    # Lists of numbers in one line: a step, a frame or an array is then a line of a diff.
    path.write_text(re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")
    return f"{path.relative_to(FOLDER.parents[2])}: version {RECIPES[recipe]}"


def stale() -> set[str]:
    """Names of files that belong to no recipe."""
    return {path.name for path in FOLDER.iterdir()} - {path_of(recipe).name for recipe in RECIPES}


def _read(recipe: str) -> dict[str, Any]:
    return json.loads(path_of(recipe).read_text())


def _differences(place: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if odd := sorted(old.keys() ^ new.keys()):
            return [f"{place}/{odd[0]}: {'no longer' if odd[0] in old else 'newly'} there"]
        return [line for key in old for line in _differences(f"{place}/{key}", old[key], new[key])]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line for i, (a, b) in enumerate(zip(old, new, strict=True)) for line in _differences(f"{place}/{i}", a, b)
        ]
    if isinstance(old, float) and isinstance(new, float):
        relative, absolute = next(limits for pattern, *limits in TOLERANCES if re.search(pattern, place))
        same = math.isclose(old, new, rel_tol=relative, abs_tol=absolute)
    else:
        same = type(old) is type(new) and old == new
    return [] if same else [f"{place}: {old!r:.120} was committed, now {new!r:.120}"]
