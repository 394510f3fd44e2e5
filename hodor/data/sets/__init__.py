"""Further data sets of images: one file of this folder each, found by its name like a method.

A data set `some-name` is the module `some_name.py` with

    ARCHIVES = ("archive.zip", ...)          # in every edition
    SPLITS = ("train", ...)                  # all of them are checked by `prepare`
    INSTANCES = False                        # whether an image has several objects, told apart; False where absent
    def load(root: Path, split: str) -> Sequence[StillImage]    # hodor.data.image_sets; HodorError as any reader

It imports nothing heavy but inside `load`: the workflow asks for the names at every start. Its archives stand in
config/datasets.csv. Its code counts for the rows that train on it and for no other.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType


@cache
def further() -> dict[str, ModuleType]:
    """Data set -> its module."""
    stems = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    return {stem.replace("_", "-"): import_module(f"{__name__}.{stem}") for stem in stems}


def modules_of(dataset: str) -> list[str]:
    """What reads a data set besides the readers that all share: its own module, or nothing."""
    return [further()[dataset].__name__] if dataset in further() else []
