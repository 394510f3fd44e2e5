"""Recipe versions: one integer for everything that a step of the workflow computes.

A stamp holds its step's settings and the versions of its recipes; the text of the code is in no stamp. Whoever changes
what a recipe computes raises its version here, and exactly the steps that use it run again. `tests/golden` compares a
small computation for each recipe with committed numbers, and fails where they move under an unchanged version.
"""

from hodor.config.datasets import ARCHIVES, WEIGHT_SETS
from hodor.config.methods import METHODS

RECIPES: dict[str, int] = {
    # The generated archives.
    "generate": 2,
    # Archives of one layout become a data set.
    "prepare/coco": 1,
    "prepare/davis": 1,
    "prepare/davis2016": 1,
    "prepare/youtube-vos": 1,
    "prepare/still-images": 1,
    "prepare/weights": 1,
    # The authors' checkpoints become a method's weights.
    "convert": 1,
    # Packed pixels of a split.
    "pack": 1,
    # Training clips of every kind of stage.
    "clips": 1,
    # The losses, gradients and schedules of one method, and what it predicts in a video.
    **{f"train/{method}": 1 for method in METHODS},
    **{f"segment/{method}": 1 for method in METHODS},
    # Scores of a protocol, and the zips of its masks for a server.
    "score/davis": 1,
    "score/davis2016": 1,
    "score/youtube-vos": 1,
    # Tables and verdicts.
    "tables": 2,
}
"""Name of a recipe -> its version. Every computation that changes a result has exactly one."""

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
    """The layout of a data set, which names its recipes of preparation and scoring."""
    return _LAYOUTS.get(dataset, "still-images") if dataset in ARCHIVES else "still-images"


def versions(*recipes: str) -> dict[str, int]:
    """The present versions of some recipes, as a stamp holds them."""
    return {name: RECIPES[name] for name in recipes}
