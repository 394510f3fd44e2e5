"""The videos of a split, whichever data set it belongs to."""

from pathlib import Path

from hodor.data.davis import load_davis
from hodor.data.video import Video
from hodor.data.youtube_vos import load_youtube_vos


def is_video(dataset: str) -> bool:
    """Whether a data set holds videos (the others hold images or weights)."""
    return dataset.startswith(("davis", "youtube-vos"))


def load_videos(data: Path, dataset: str, split: str) -> list[Video]:
    """Opens a split of DAVIS or YouTube-VOS (by the name of the data set) below the folder of the data sets.

    Raises:
        HodorError: as the reader of the data set.
    """
    load = load_youtube_vos if dataset.startswith("youtube-vos") else load_davis
    return load(data / dataset, split)
