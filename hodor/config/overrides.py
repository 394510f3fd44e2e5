"""Overrides of a scale's settings, and stages that have the settings of another stage (`like`)."""

from collections.abc import Mapping
from typing import Any

from hodor.config.validation import none_of
from hodor.errors import HodorError


def apply_overrides(content: dict[str, Any], overrides: Mapping[str, Any], name: str, place: str) -> None:
    """Override values of a scale and resolve every `like` of its stages, in place.

    A stage with `like: OTHER` has the settings of the other stage except for those that it lists itself. Overrides of
    the other stage apply to it too; its own overrides win.

    Args:
        content: content of the scale's file, not yet validated.
        overrides: dotted key -> value.
        name: name of the file of the overrides in errors.
        place: name of the scale's file in errors.
    """
    prefixes = tuple(f"stages.{stage}." for stage in _likes(content))
    own = {key: value for key, value in overrides.items() if key.startswith(prefixes)}
    _override(content, {key: value for key, value in overrides.items() if key not in own}, name, place)
    likes = _likes(content)
    for stage, other in likes.items():
        stages = content["stages"]
        whole = [id for id in stages if id not in likes and isinstance(stages[id], dict)]
        if other not in whole:
            raise HodorError(f"{place}: stages.{stage}.like: {none_of(other, whole)}")
        stated = {key: value for key, value in stages[stage].items() if key != "like"}
        stages[stage] = stages[other] | stated
    _override(content, own, name, place)


def _likes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return stage -> value of `like`, for the stages that have it."""
    stages = content.get("stages")
    found = stages.items() if isinstance(stages, dict) else ()
    return {id: stage["like"] for id, stage in found if isinstance(stage, dict) and "like" in stage}


def _override(content: dict[str, Any], overrides: Mapping[str, Any], name: str, place: str) -> None:
    for key, value in overrides.items():
        *parents, last = key.split(".")
        at = content
        for depth, parent in enumerate(parents):
            if not isinstance(at.get(parent), dict):
                where = ".".join(parents[:depth])
                raise HodorError(f"{name}: overrides.{key}: in {where or place}, {none_of(parent, list(at))}")
            # Copied, because a mapping may be shared (an alias of YAML, a stage resolved by `like`).
            at[parent] = dict(at[parent])
            at = at[parent]
        at[last] = value
