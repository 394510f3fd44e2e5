"""Recipe versions: an integer for each computation whose result a step of the workflow keeps.

A stamp holds its step's settings and the versions of its recipes, never the text of the code. A developer who changes
what a recipe computes raises its version here, and exactly the steps that use it run again. `tests/golden` compares a
small computation of each recipe with committed numbers, and fails if they change under the same version.
"""

from hodor.config.datasets import WEIGHT_SETS
from hodor.config.methods import METHODS
from hodor.config.own_datasets import OWN

RECIPES: dict[str, int] = {
    # Archives of the edition `generated`.
    "generate": 2,
    # Extraction of a data set, by layout.
    "prepare/coco": 1,
    "prepare/davis": 1,
    "prepare/davis2016": 1,
    "prepare/youtube-vos": 1,
    "prepare/still-images": 1,
    "prepare/weights": 1,
    # Conversion of the authors' checkpoints.
    "convert": 1,
    # Training clips of every kind of stage.
    "clips": 1,
    # Losses, gradients and schedules of a method, and its predictions in a video.
    **{f"train/{method}": 1 for method in METHODS},
    **{f"segment/{method}": 1 for method in METHODS},
    # Scores of a protocol, and zips of masks for a server.
    "score/davis": 1,
    "score/davis2016": 2,
    "score/youtube-vos": 1,
    # Tables and verdicts.
    "tables": 3,
}
"""Name of a recipe -> its version."""

_LAYOUTS = {
    "coco": "coco",
    "coco-persons-small": "coco",
    "davis": "davis",
    "davis2016": "davis2016",
    "youtube-vos": "youtube-vos",
    "youtube-vos-2018": "youtube-vos",
    **dict.fromkeys(WEIGHT_SETS, "weights"),
}


def layout_of(dataset: str) -> str:
    """Return the layout of a data set, which names its recipes of preparation and scoring."""
    if dataset in OWN:
        return OWN[dataset].protocol or OWN[dataset].layout
    return _LAYOUTS.get(dataset, "still-images")


def versions(*recipes: str) -> dict[str, int]:
    """Return the current versions of recipes, as in a stamp."""
    return {name: RECIPES[name] for name in recipes}
