"""Check the rows of config/rows.yaml against each other and a scale, select rows, and locate their files."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hodor import paths
from hodor.config.methods import METHODS
from hodor.config.schema import RULES, TABLES, Row, Scale
from hodor.config.stages import InferenceOptions
from hodor.config.validation import none_of, validate
from hodor.errors import HodorError


def options_class(method: str) -> type[BaseModel] | None:
    """Return the model of a method's options; None if the method has no options or is unknown."""
    return METHODS[method].options if method in METHODS else None


def check_row(id: str, rows: dict[str, Row], scale: Scale, name: str) -> dict[str, Any]:
    """Check a row against the other rows and the scale; return its complete method options."""
    row = rows[id]
    if id in ("all", "main", *TABLES, *RULES):
        raise HodorError(f"{name}: {id}: the workflow uses this name itself; choose another id")
    if row.method is None:  # external masks
        return {}
    if row.stage is not None and row.stage not in scale.stages:
        raise HodorError(f"{name}: {id}.stage: {none_of(row.stage, list(scale.stages))} (stages of {scale.name})")
    if row.init is not None:
        if row.init not in rows or rows[row.init].masks:
            raise HodorError(f"{name}: {id}.init: {none_of(row.init, [r for r in rows if not rows[r].masks])}")
        seen = {id}
        parent: str | None = row.init
        while parent is not None:
            if parent in seen:
                raise HodorError(f"{name}: {id}.init: the rows start from each other in a cycle")
            seen.add(parent)
            parent = rows[parent].init if parent in rows else None
    trained = [other for other, entry in rows.items() if not entry.imported]
    if row.compare is not None and row.compare not in trained:
        raise HodorError(f"{name}: {id}.compare: {none_of(row.compare, trained)}")
    for settings in (row.inference, *(rule.set for rule in row.inference_for)):
        validate(InferenceOptions, scale.inference.model_dump() | settings, name, f"{id}.inference")
    merged = row.options if row.weights else scale.methods.get(row.method, {}) | row.options
    cls = options_class(row.method)
    if cls is None and merged:
        raise HodorError(f"{name}: {id}.options: method {row.method} has none (given: {', '.join(merged)})")
    if cls is None:
        return {}
    both = f"{name}: {id}.options with config/scales/{scale.name}.yaml: methods.{row.method}"
    options = validate(cls, merged, both).model_dump(mode="json")
    if row.weights is not None:  # the checkpoint decides the others
        return {key: options[key] for key in row.options}
    if options.get("weights") is not None and options["weights"] not in scale.datasets:
        raise HodorError(f"{both}.weights: {none_of(options['weights'], scale.datasets)} (datasets of {scale.name})")
    return options


def select(wanted: list[str], rows: dict[str, Row], name: str) -> set[str]:
    """Return the ids of the rows that `wanted` names by id or by group."""
    groups = {"all": set(rows), "main": {id for id in rows if _is_main(id, rows)}}
    for table in TABLES:
        groups[table] = {id for id, row in rows.items() if table in row.tables}
    chosen: set[str] = set()
    for entry in wanted:
        if entry not in rows and entry not in groups:
            raise HodorError(f"{name}: rows: {none_of(entry, [*groups, *rows])}")
        chosen |= groups.get(entry, {entry})
    return chosen


def _is_main(id: str | None, rows: dict[str, Row]) -> bool:
    """Return whether a row is in a table of the paper, or needs no training beyond these rows."""
    if id is None or set(rows[id].tables) != {"extended"}:
        return True
    return rows[id].stage is None and _is_main(rows[id].init, rows)


def locate_weights(file: str, root: Path) -> Path | None:
    """Return the path of a released checkpoint relative to `root`, in data/weights or a folder of it; None if absent."""
    weights = paths.weights()
    places = [weights, *sorted(path.relative_to(root) for path in (root / weights).glob("*/"))]
    return next((place / file for place in places if (root / place / file).is_file()), None)


def locate_masks(row: Row, scale: Scale, root: Path) -> dict[str, Path | None]:
    """Return `Config.masks` of one row, which is empty at a scale with other data than those of the masks."""
    if (row.edition == "generated") != (scale.edition == "generated"):
        return {}
    found = {id: Path(row.masks[id]) for id in scale.benchmarks if id in row.masks}
    return {id: path if (root / path).exists() else None for id, path in found.items()}
