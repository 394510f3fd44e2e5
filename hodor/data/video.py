"""A video as a folder of frames and a folder of label masks, whatever data set it comes from.

Opening a video lists its folders and reads one header; frames and masks are decoded on request.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.data.images import VOID, read_labels, read_rgb, read_size
from hodor.errors import HodorError

_FRAME_NAME = re.compile(r"\d{5}")


@dataclass(frozen=True)
class Video:
    """One video with the masks that its data set has.

    Attributes:
        name: folder name, unique within a split.
        frames: names of all frames in temporal order, for example "00000".
        frame_folder, label_folder: folders of `<frame>.jpg` and `<frame>.png`.
        height, width: size of every frame and mask in pixels.
        labelled: the frames that have a mask file, in temporal order.
        first_seen: object id (1..254) -> frame whose mask starts the object. Masks may hold further ids: in DAVIS an
            object that is not on the first frame is in no benchmark.
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
        """Return uint8 (H, W, 3) RGB; HodorError if the file is damaged or has another size than the video."""
        return read_rgb(self.frame_path(frame), size=(self.height, self.width))

    def labels(self, frame: str) -> np.ndarray:
        """Return uint8 (H, W) object ids, 0 background, 255 void (kept); HodorError as in `frame`."""
        return read_labels(self.label_path(frame), size=(self.height, self.width))


def object_ids(labels: np.ndarray) -> tuple[int, ...]:
    """Return the object ids in labels, uint8 (H, W), ascending, without background and void."""
    present = np.bincount(labels.ravel(), minlength=256) > 0
    return tuple(int(i) for i in np.flatnonzero(present) if i not in (0, VOID))


def open_video(frame_folder: Path, label_folder: Path, what: str) -> Video:
    """Open a video: list both folders and read the header of the first frame; `first_seen` is still empty.

    Raises:
        HodorError: a folder is absent, empty or holds a file with another name, or a mask has no frame.
    """
    frames = list_frames(frame_folder, ".jpg", f"frames of {what}")
    labelled = list_frames(label_folder, ".png", f"masks of {what}")
    fault = "a mask without frame; the frame is lost or the mask belongs elsewhere"
    require_files(label_folder, ".png", set(labelled), frames, fault)
    height, width = read_size(frame_folder / f"{frames[0]}.jpg")
    return Video(frame_folder.name, frames, frame_folder, label_folder, height, width, labelled, {})


def list_frames(folder: Path, suffix: str, what: str) -> tuple[str, ...]:
    """Return the frame names in a folder that holds `<five digits><suffix>` files and nothing else, in order.

    Raises:
        HodorError: the folder is absent or empty, or holds a file with another name; `what` says what it holds.
    """
    if not os.path.isdir(folder):  # unlike Path.is_dir, False for impossible names too
        raise HodorError(f"{folder}: no such folder ({what}); prepare the data set again")
    names = []
    for path in folder.iterdir():
        if path.suffix != suffix or not _FRAME_NAME.fullmatch(path.stem):
            raise HodorError(f"{path}: not a frame name like 00000{suffix}; remove it ({what} belong there)")
        names.append(path.stem)
    if not names:
        raise HodorError(f"{folder}: empty folder ({what}); prepare the data set again")
    return tuple(sorted(names))


def require_files(folder: Path, suffix: str, required: set[str], found: tuple[str, ...], fault: str) -> None:
    """Raise HodorError for the first required frame or mask that is missing."""
    if missing := sorted(required - set(found)):
        raise HodorError(f"{folder}/{missing[0]}{suffix}: {fault} ({len(missing)} such); prepare the data set again")


def read_list(path: Path) -> list[str]:
    """Return the lines of a split's file without blank ones and without byte order mark.

    Raises:
        HodorError: the file cannot be read or is empty.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file, which lists split {path.stem}; fetch its archive") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HodorError(f"{path}: cannot be read ({error}); prepare the data set again") from error
    if not lines:
        raise HodorError(f"{path}: an empty list; prepare the data set again")
    return lines
