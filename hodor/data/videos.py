"""The videos of a split, whichever data set it belongs to."""

from pathlib import Path

from hodor.data.davis import load_davis
from hodor.data.davis2016 import load_davis2016
from hodor.data.video import Video
from hodor.data.youtube_vos import load_youtube_vos


def is_video(dataset: str) -> bool:
    """Whether a data set holds videos (the others hold images or weights)."""
    return dataset.startswith(("davis", "youtube-vos"))


def load_videos(data: Path, dataset: str, split: str) -> list[Video]:
    """Opens a split of DAVIS-2017, DAVIS-2016 or YouTube-VOS (by the data set's name) below the folder of the data sets.

    Raises:
        HodorError: as the reader of the data set.
    """
    readers = {"davis": load_davis, "davis2016": load_davis2016}
    return readers.get(dataset, load_youtube_vos)(data / dataset, split)
