"""DAVIS-2017 and DAVIS-2016 in their official layouts (480p).

    DAVIS/JPEGImages/480p/<sequence>/00000.jpg ...   DAVIS/Annotations/480p/<sequence>/00000.png ...
    2017: DAVIS/ImageSets/2017/{train,val,test-dev}.txt    one sequence a line
    2016: DAVIS/ImageSets/480p/{train,val}.txt             /JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png

2017: frames are numbered from 00000 without gaps. Every frame of train and val has a mask; test-dev must have that of
the first frame and may have more (generated data have all). Label 255 is void. Objects are those of the first frame, as
the official protocol counts them; ids that appear only later stay in the masks and are in no benchmark.

2016: masks hold 0 and 255. The foreground is the object with id 1 here; there is no void. In kite-surf and
paragliding-launch it is not the union of the objects of DAVIS-2017.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hodor.config.datasets import SPLITS
from hodor.config.own_datasets import OwnDataset
from hodor.data.images import read_labels
from hodor.data.video import Video, broken, object_ids, open_video, read_list, require_files, video_folders

DAVIS = OwnDataset(
    layout="davis",
    frames="DAVIS/JPEGImages/480p",
    masks="DAVIS/Annotations/480p",
    splits={split: f"DAVIS/ImageSets/2017/{split}.txt" for split in SPLITS["davis"]},
)


def load_davis(root: Path, split: str, entry: OwnDataset = DAVIS) -> list[Video]:
    """Open a split of DAVIS-2017: list folders, read one header and decode the first mask of each sequence.

    Args:
        root: folder that holds `DAVIS/`, or what `entry` names.
        split: "train", "val" or "test-dev".
        entry: names of folders and lists. Frames of another data set than DAVIS may have any numbers.

    Returns:
        The sequences in the order of the split's file.

    Raises:
        HodorError: a file or folder is missing, superfluous, damaged or disagrees with another.
    """
    official = entry is DAVIS
    every_mask = not (official and split == "test-dev")
    return [_open(*folders, official, every_mask) for folders in video_folders(Path(root), split, entry)]


def _open(frames: Path, masks: Path, official: bool, every_mask: bool) -> Video:
    video = open_video(frames, masks, f"{'DAVIS ' * official}sequence {frames.name}", digits=5 if official else None)
    for number, frame in enumerate(video.frames if official else ()):
        if int(frame) != number:
            raise broken(video.frame_path(f"{number:05d}"), f"missing frame (the next one is {frame})")
    required = set(video.frames if every_mask else video.frames[:1])
    require_files(video.label_folder, ".png", required, video.labelled, "missing mask, its frame exists")
    first = video.frames[0]
    ids = object_ids(video.labels(first))
    if ids != tuple(range(1, len(ids) + 1)) or not ids:
        found = ", ".join(map(str, ids)) or "none"
        raise broken(video.label_path(first), f"object ids {found}, expected 1 to the number of objects without gaps")
    return replace(video, first_seen=dict.fromkeys(ids, first))


@dataclass(frozen=True)
class ForegroundVideo(Video):
    """A sequence whose masks are 0 and 255; `labels` returns 0 and 1."""

    def labels(self, frame: str) -> np.ndarray:
        """Return uint8 (H, W): 1 foreground, 0 background; HodorError for any other value and as in `Video.labels`."""
        path = self.label_path(frame)
        mask = read_labels(path, size=(self.height, self.width))
        other = mask[(mask != 0) & (mask != 255)]
        if other.size:
            raise broken(path, f"value {other[0]} where DAVIS-2016 has 0 and 255 (is it a mask of DAVIS-2017?)")
        return (mask > 0).astype(np.uint8)


def load_davis2016(root: Path, split: str) -> list[Video]:
    """Open a split of DAVIS-2016, "train" or "val", as `load_davis` does; its file lists every frame."""
    path = Path(root) / "DAVIS" / "ImageSets" / "480p" / f"{split}.txt"
    listed: dict[str, list[str]] = {}
    for line in read_list(path):
        image, mask = ([*line.split(), "", ""])[:2]
        sequence, frame = Path(image).parent.name, Path(image).stem
        if (image, mask) != (f"/JPEGImages/480p/{sequence}/{frame}.jpg", f"/Annotations/480p/{sequence}/{frame}.png"):
            wanted = "/JPEGImages/480p/SEQUENCE/FRAME.jpg /Annotations/480p/SEQUENCE/FRAME.png"
            raise broken(path, f"the line '{line}' is not `{wanted}`")
        listed.setdefault(sequence, []).append(frame)
    return [_open_2016(Path(root), name, tuple(frames)) for name, frames in listed.items()]


def _open_2016(root: Path, name: str, frames: tuple[str, ...]) -> Video:
    opened = open_video(root / DAVIS.frames / name, root / DAVIS.masks / name, f"DAVIS sequence {name}")
    for path, found in ((opened.frame_path, opened.frames), (opened.label_path, opened.labelled)):
        if found != frames:
            odd = sorted(set(found) ^ set(frames)) or ["(their order)"]
            raise broken(path(odd[0]), f"in the folder or in the split's list, not in both ({len(odd)} such)")
    video = ForegroundVideo(**vars(opened) | {"first_seen": {1: frames[0]}})
    if not video.labels(frames[0]).any():
        raise broken(video.label_path(frames[0]), "no foreground in the first mask")
    return video
