"""Other values for keys of a scale, and stages of it that are like another one.

A stage that says `like: OTHER` has the settings of that one, but for those that it states itself. It follows what is
overridden there; what is overridden for itself wins.
"""

from collections.abc import Mapping
from typing import Any

from hodor.config.reading import none_of
from hodor.errors import HodorError


def settle(content: dict[str, Any], overrides: Mapping[str, Any], name: str, place: str) -> None:
    """Overrides values of a scale and resolves every `like` of its stages, in place.

    Args:
        content: of the scale's file, not validated yet.
        overrides: dotted key -> value.
        name: what errors call the source of the overrides. place: that of the scale.

    Raises:
        HodorError: a key below something that is not there, or a `like` of no stage.
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
    """Stage -> the one that it is like, for those that say so."""
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
            # A copy: a mapping may stand in several places (an alias of YAML, what a stage took over by `like`).
            at[parent] = dict(at[parent])
            at = at[parent]
        at[last] = value
