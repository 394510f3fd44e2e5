"""A small training stage of each kind, for the synthetic data sets of the tests."""

from hodor.config.stages import StageOptions

IMAGES = [{"dataset": "coco", "split": "train2017"}]
VIDEOS = [
    {"dataset": "youtube-vos", "split": "train", "share": 0.5, "max_distance": 4},
    {"dataset": "davis", "split": "train", "share": 0.5, "max_distance": 3},
]
COMMON = {"steps": 6, "batch": 2, "learning_rate": 1e-3, "min_area": 40, "min_side": 3, "max_objects": 2}
STAGES = {
    "images": {"sources": IMAGES, "pixels": 4096},
    "sparse-video": {"sources": VIDEOS, "short_side": 48, "long_side": 80},
    "dense-video": {"sources": VIDEOS, "short_side": 48, "long_side": 80},
    "static-affine": {"sources": IMAGES, "crop": 64},
    "static-stcn": {"sources": IMAGES, "crop": 32},
}


def stage(kind: str, **changes) -> StageOptions:
    return StageOptions(kind=kind, **COMMON | STAGES[kind] | changes)
