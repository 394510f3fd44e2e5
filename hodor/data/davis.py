"""DAVIS-2017 in its official layout (480p).

    DAVIS/JPEGImages/480p/<sequence>/00000.jpg ...   DAVIS/Annotations/480p/<sequence>/00000.png ...
    DAVIS/ImageSets/2017/{train,val,test-dev}.txt    one sequence a line

Frames are numbered from 00000 without gap. Every frame of train and val has a mask; test-dev must have the first
frame's and may have more (generated data give them all). Label 255 is void. Objects are those of the first frame, as
the official protocol counts them; ids that appear only later stay in the masks and are nobody's task. Widths differ
between sequences.
"""

from pathlib import Path

from hodor.data.images import read_labels, read_size
from hodor.data.video import Video, list_frames, object_ids, require_frames_of_masks
from hodor.errors import HodorError

SPLITS = ("train", "val", "test-dev")


def split_file(root: Path, split: str) -> Path:
    """The list of a split's sequences."""
    return Path(root) / "DAVIS" / "ImageSets" / "2017" / f"{split}.txt"


def load_davis(root: Path, split: str) -> list[Video]:
    """Opens a split: lists folders, reads one header and decodes the first mask of each sequence.

    Args:
        root: folder that holds `DAVIS/`.
        split: "train", "val" or "test-dev".

    Returns:
        The sequences in the order of the split's file.

    Raises:
        HodorError: a file or folder is missing, superfluous, damaged or disagrees with another.
    """
    if split not in SPLITS:
        raise HodorError(f"DAVIS has no split {split!r}; there are {', '.join(SPLITS)}")
    return [_open(Path(root), name, every_mask=split != "test-dev") for name in sequences(root, split)]


def sequences(root: Path, split: str) -> list[str]:
    """Names in a split's file; HodorError if it is missing, empty or names a sequence twice."""
    path = split_file(root, split)
    names = [name.strip() for name in read_list(path) if name.strip()]
    if not names:
        raise HodorError(f"{path}: an empty list of sequences; prepare the data set again")
    for name in names:
        if names.count(name) > 1:
            raise HodorError(f"{path}: names sequence {name} twice; remove one line")
        if "/" in name or name in (".", ".."):
            raise HodorError(f"{path}: {name!r} is no sequence name; give one folder name a line")
    return names


def read_list(path: Path) -> list[str]:
    """The lines of a split's file; HodorError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file, so split {path.stem} is not there; fetch its archive") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HodorError(f"{path}: cannot be read ({error}); prepare the data set again") from error


def check_labels(video: Video, frame: str) -> tuple[int, ...]:
    """Decodes the mask of a frame; returns the ids in it that the first frame does not have."""
    return tuple(i for i in object_ids(video.labels(frame)) if i not in video.first_seen)


def _open(root: Path, name: str, every_mask: bool) -> Video:
    frame_folder = root / "DAVIS" / "JPEGImages" / "480p" / name
    label_folder = root / "DAVIS" / "Annotations" / "480p" / name
    frames = list_frames(frame_folder, ".jpg", f"frames of DAVIS sequence {name}")
    labelled = list_frames(label_folder, ".png", f"masks of DAVIS sequence {name}")
    for number, frame in enumerate(frames):
        if int(frame) != number:
            raise HodorError(
                f"{frame_folder}/{number:05d}.jpg: missing frame (the next one is {frame}); prepare the data set again"
            )
    require_frames_of_masks(frames, labelled, label_folder)
    demanded = frames if every_mask else frames[:1]
    missing = sorted(set(demanded) - set(labelled))
    if missing:
        raise HodorError(
            f"{label_folder}/{missing[0]}.png: missing mask ({len(missing)} such), its frame is there; "
            "prepare the data set again"
        )
    size = read_size(frame_folder / f"{frames[0]}.jpg")
    first_mask = label_folder / f"{frames[0]}.png"
    ids = object_ids(read_labels(first_mask, size=size))
    if ids != tuple(range(1, len(ids) + 1)) or not ids:
        found = ", ".join(map(str, ids)) or "none"
        raise HodorError(f"{first_mask}: object ids {found}, expected 1 to the number of objects without gap")
    return Video(
        name=name,
        frames=frames,
        frame_folder=frame_folder,
        label_folder=label_folder,
        height=size[0],
        width=size[1],
        labelled=labelled,
        first_seen=dict.fromkeys(ids, frames[0]),
    )
