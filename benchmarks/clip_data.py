"""Training data for the benchmarks of loading: archives of a mirror, or generated ones.

The stages are those of scale paper, on the data set that is at hand for them.
"""

import zipfile
from pathlib import Path

from hodor.config import loading as config
from hodor.config.datasets import ARCHIVES, GeneratedOptions
from hodor.config.stages import StageOptions
from hodor.data.extract import extract_all
from hodor.data.synthetic import generate

ROOT = Path(__file__).resolve().parent.parent
# Stage of scale paper -> its data set, or the one that it is tried on.
STAGES = {
    "images": "coco",
    "cyclic": "davis",
    "dense": "davis",
    "static-stm": "coco",
    "static-kmn": "coco",
    "static-stcn": "coco",
}
# Sizes of the pictures that stand in for COCO's and DAVIS's, and small ones for a trial.
_GENERATED = {
    "coco_train": 24,
    "coco_val": 1,
    "coco_sizes": [(480, 640), (640, 480), (427, 640)],
    "davis_train": 3,
    "davis_val": 1,
    "davis_test_dev": 1,
    "davis_size": (480, 854),
    "davis_frames": 10,
}
_TINY = {"coco_train": 8, "coco_sizes": [(72, 96), (96, 72)], "davis_train": 2, "davis_size": (64, 112)}
_TINY_STAGE = {"pixels": 4096, "short_side": 48, "long_side": 96, "crop": 64, "min_area": 40, "min_side": 3}


def stage_at_hand(name: str, *, tiny: bool = False) -> StageOptions:
    """A published stage on the data set that is at hand for it; `tiny`: of small pictures."""
    stage = config.load(ROOT / "config", {"scale": "paper"}).scale.stages[name]
    own = [source for source in stage.sources if source.dataset == STAGES[name]]
    sources = [source.model_copy(update={"share": 1.0, "limit": None}) for source in own]
    if not sources:  # STCN's images are not at hand
        sources = [{"dataset": "coco", "split": "train2017"}]
    given = stage.model_dump() | {"sources": sources, "steps": 20_000}
    if tiny:
        given |= {key: value for key, value in _TINY_STAGE.items() if given[key] is not None} | {"batch": 2}
    return StageOptions(**given)


def write_data_sets(names: list[str], mirror: Path | None, data: Path, *, tiny: bool = False) -> None:
    """The data sets of the stages `names`, as folders of files below `data`.

    Args:
        mirror: folder with <data set>/<archive>; data are generated where it is None.
    """
    options = GeneratedOptions(**_GENERATED | (_TINY if tiny else {}))
    for dataset in sorted({STAGES[name] for name in names}):
        if mirror is not None:
            extract_all([mirror / dataset / name for name in ARCHIVES[dataset]], data / dataset)
            continue
        for archive in generate(dataset, options, data / "archives" / dataset):
            zipfile.ZipFile(archive).extractall(data / dataset)


def described(mirror: Path | None, *, tiny: bool) -> str:
    """What the data are, for a result."""
    pictures = "archives of a mirror" if mirror else "generated pictures"
    return f"{pictures}, {'small sizes, a trial' if tiny else 'sizes and batches of scale paper'}"
