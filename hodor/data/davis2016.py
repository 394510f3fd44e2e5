"""DAVIS-2016 in its official layout (480p): one foreground a sequence.

    DAVIS/JPEGImages/480p/<sequence>/00000.jpg ...   DAVIS/Annotations/480p/<sequence>/00000.png ...
    DAVIS/ImageSets/480p/{train,val}.txt             /JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png

Masks hold 0 and 255. The foreground is the object with id 1 here; there is no void. It is a data set of its own: in
kite-surf and paragliding-launch its foreground is not the union of the objects of DAVIS-2017.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.data.davis import read_list
from hodor.data.images import read_labels, read_size
from hodor.data.video import Video, list_frames
from hodor.errors import HodorError

SPLITS = ("train", "val")
FOREGROUND = 255


@dataclass(frozen=True)
class ForegroundVideo(Video):
    """A sequence whose masks are 0 and 255; `labels` gives 0 and 1."""

    def labels(self, frame: str) -> np.ndarray:
        """uint8 (H, W): 1 foreground, 0 background; HodorError for any other value and as in `Video.labels`."""
        path = self.label_path(frame)
        mask = read_labels(path, size=(self.height, self.width))
        other = mask[(mask != 0) & (mask != FOREGROUND)]
        if other.size:
            raise HodorError(
                f"{path}: value {other[0]} where DAVIS-2016 has 0 and {FOREGROUND}; is it a mask of DAVIS-2017? "
                "prepare the data set again"
            )
        return (mask == FOREGROUND).astype(np.uint8)


def load_davis2016(root: Path, split: str) -> list[Video]:
    """Opens a split: reads its list, lists folders, reads one header and decodes the first mask of each sequence.

    Args:
        root: folder that holds `DAVIS/`.
        split: "train" or "val".

    Returns:
        The sequences in the order of the split's file.

    Raises:
        HodorError: a file or folder is missing, superfluous, damaged or disagrees with another.
    """
    if split not in SPLITS:
        raise HodorError(f"DAVIS-2016 has no split {split!r}; there are {', '.join(SPLITS)}")
    return [_open(Path(root), name, frames) for name, frames in listed(root, split).items()]


def listed(root: Path, split: str) -> dict[str, tuple[str, ...]]:
    """Sequence -> frames, as a split's file lists them; HodorError if it is missing, empty or broken."""
    path = Path(root) / "DAVIS" / "ImageSets" / "480p" / f"{split}.txt"
    found: dict[str, list[str]] = {}
    for number, line in enumerate(read_list(path), start=1):
        if not line.strip():
            continue
        image, mask = ([*line.split(), "", ""])[:2]
        sequence, frame = Path(image).parent.name, Path(image).stem
        if (image, mask) != (f"/JPEGImages/480p/{sequence}/{frame}.jpg", f"/Annotations/480p/{sequence}/{frame}.png"):
            raise HodorError(
                f"{path}, line {number}: '{line}' is not `/JPEGImages/480p/SEQUENCE/FRAME.jpg "
                "/Annotations/480p/SEQUENCE/FRAME.png`; prepare the data set again"
            )
        found.setdefault(sequence, []).append(frame)
    if not found:
        raise HodorError(f"{path}: an empty list of frames; prepare the data set again")
    return {sequence: tuple(frames) for sequence, frames in found.items()}


def _open(root: Path, name: str, frames: tuple[str, ...]) -> Video:
    frame_folder = root / "DAVIS" / "JPEGImages" / "480p" / name
    label_folder = root / "DAVIS" / "Annotations" / "480p" / name
    for folder, suffix, what in ((frame_folder, ".jpg", "frames"), (label_folder, ".png", "masks")):
        there = list_frames(folder, suffix, f"{what} of DAVIS-2016 sequence {name}")
        if there != frames:
            odd = sorted(set(there) ^ set(frames)) or ["(their order)"]
            raise HodorError(
                f"{folder}/{odd[0]}{suffix}: in the folder or in the split's list, not in both ({len(odd)} such); "
                "prepare the data set again"
            )
    height, width = read_size(frame_folder / f"{frames[0]}.jpg")
    video = ForegroundVideo(
        name=name,
        frames=frames,
        frame_folder=frame_folder,
        label_folder=label_folder,
        height=height,
        width=width,
        labelled=frames,
        first_seen={1: frames[0]},
    )
    if not video.labels(frames[0]).any():
        raise HodorError(f"{video.label_path(frames[0])}: no foreground in the first mask; prepare the data set again")
    return video
