"""A video as a folder of frames and a folder of label masks, whatever data set it comes from.

Opening a video lists its folders and reads one header; frames and masks are decoded when asked for.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.data.images import VOID, read_labels, read_rgb
from hodor.errors import HodorError

_FRAME_NAME = re.compile(r"\d{5}")


@dataclass(frozen=True)
class Video:
    """One video with the masks that its data set gives.

    Attributes:
        name: folder name, unique within a split.
        frames: names of all frames in order of time, for example "00000".
        frame_folder, label_folder: where `<frame>.jpg` and `<frame>.png` lie.
        height, width: size of every frame and mask in pixels.
        labelled: the frames that have a mask file, in order of time.
        first_seen: object id (1..254) -> frame on which its mask is first given; a method starts the object there.
            Masks may hold further ids: in DAVIS an object that is not on the first frame is in no benchmark.
    """

    name: str
    frames: tuple[str, ...]
    frame_folder: Path
    label_folder: Path
    height: int
    width: int
    labelled: tuple[str, ...]
    first_seen: dict[int, str]

    def frame_path(self, frame: str) -> Path:
        return self.frame_folder / f"{frame}.jpg"

    def label_path(self, frame: str) -> Path:
        return self.label_folder / f"{frame}.png"

    def frame(self, frame: str) -> np.ndarray:
        """uint8 (H, W, 3) RGB; HodorError if the file is damaged or has another size than the video."""
        return read_rgb(self.frame_path(frame), size=(self.height, self.width))

    def labels(self, frame: str) -> np.ndarray:
        """uint8 (H, W) object ids, 0 background, 255 void (kept); HodorError as in `frame`."""
        return read_labels(self.label_path(frame), size=(self.height, self.width))


def object_ids(labels: np.ndarray) -> tuple[int, ...]:
    """Ids of the objects in labels, uint8 (H, W), rising; background and void are no objects."""
    present = np.bincount(labels.ravel(), minlength=256) > 0
    return tuple(int(i) for i in np.flatnonzero(present) if i not in (0, VOID))


def list_frames(folder: Path, suffix: str, what: str) -> tuple[str, ...]:
    """Frame names in a folder, in order.

    Args:
        folder: holds `<five digits><suffix>` files and nothing else.
        suffix: ".jpg" or ".png".
        what: what the folder holds, for messages ("frames of ...").

    Raises:
        HodorError: the folder is absent or empty, or holds a file with another name.
    """
    if not folder.is_dir():
        raise HodorError(f"{folder}: no such folder ({what}); prepare the data set again")
    names = []
    for path in folder.iterdir():
        if path.suffix != suffix or not _FRAME_NAME.fullmatch(path.stem):
            raise HodorError(f"{path}: not a frame name like 00000{suffix}; remove it ({what} belong there)")
        names.append(path.stem)
    if not names:
        raise HodorError(f"{folder}: empty folder ({what}); prepare the data set again")
    return tuple(sorted(names))


def require_frames_of_masks(frames: tuple[str, ...], labelled: tuple[str, ...], label_folder: Path) -> None:
    """HodorError where a mask has no frame."""
    orphans = sorted(set(labelled) - set(frames))
    if orphans:
        raise HodorError(
            f"{label_folder / orphans[0]}.png: a mask without frame ({len(orphans)} such); the frame is lost or the "
            "mask belongs elsewhere: prepare the data set again"
        )
