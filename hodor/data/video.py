"""A video as a folder of frames and a folder of label masks, of any data set.

Opening a video lists its folders and reads one header; frames and masks are decoded on request.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.config.own_datasets import OwnDataset
from hodor.data.images import VOID, read_labels, read_rgb, read_size
from hodor.errors import HodorError


@dataclass(frozen=True)
class Video:
    """One video with the masks that its data set has."""

    name: str  # folder name, unique within a split
    frames: tuple[str, ...]  # names of all frames in temporal order, for example "00000"
    frame_folder: Path  # of `<frame>.jpg`
    label_folder: Path  # of `<frame>.png`
    height: int  # of every frame and mask, in pixels
    width: int
    labelled: tuple[str, ...]  # the frames that have a mask file, in temporal order
    # Object id (1..254) -> frame whose mask starts the object. Masks may hold further ids: in DAVIS an object that is
    # not on the first frame is in no benchmark.
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


def broken(path: str | os.PathLike, fault: str) -> HodorError:
    """Return the error for a file of a prepared data set."""
    return HodorError(f"{path}: {fault}; prepare the data set again")


@contextlib.contextmanager
def read_annotations(path: Path) -> Iterator[dict]:
    """Read a JSON object; HodorError names the file if it is missing, or for any fault that the `with` block finds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys)
        if not isinstance(content, dict):
            raise ValueError(f"holds {type(content).__name__}, not a JSON object")
        yield content
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; fetch and prepare the data set again") from None
    except KeyError as error:
        raise broken(path, f"incomplete, key {error} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise broken(path, f"broken ({error})") from error


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    """Return a JSON object (`object_pairs_hook`); ValueError for a key given twice, of which Python keeps the last."""
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"name {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return result


def object_ids(labels: np.ndarray) -> tuple[int, ...]:
    """Return the object ids in labels, uint8 (H, W), ascending, without background and void."""
    present = np.bincount(labels.ravel(), minlength=256) > 0
    return tuple(int(i) for i in np.flatnonzero(present) if i not in (0, VOID))


def video_folders(root: Path, split: str, entry: OwnDataset) -> list[tuple[Path, Path]]:
    """Return the folders of frames and of masks of each video of a split.

    Their order is that of the split's list or, in the layout of YouTube-VOS, of their names. HodorError for a broken list.
    """
    path = root / entry.splits[split]
    if entry.layout == "davis":
        names = [line.strip() for line in read_list(path)]
        for name in names:
            if names.count(name) > 1:
                raise HodorError(f"{path}: names sequence {name} twice; remove one line")
            if "/" in name or name in (".", ".."):
                raise HodorError(f"{path}: {name!r} is no sequence name; give one folder name a line")
    else:
        root = path
        if not (root / entry.frames).is_dir():
            raise broken(root / entry.frames, f"no such folder (videos of split {split})")
        names = sorted(item.name for kind in (entry.frames, entry.masks) for item in (root / kind).glob("[!.]*"))
        names = list(dict.fromkeys(names))
    return [(root / entry.frames / name, root / entry.masks / name) for name in names]


def open_video(frame_folder: Path, label_folder: Path, what: str, digits: int | None = 5) -> Video:
    """Open a video: list both folders, read one header; `first_seen` is empty. HodorError if a mask has no frame.

    `digits`: number of digits of a frame's name. None: any, the same for all.
    """
    frames = list_frames(frame_folder, ".jpg", f"frames of {what}", digits)
    labelled = list_frames(label_folder, ".png", f"masks of {what}", len(frames[0]))
    fault = "a mask without frame; the frame is lost or the mask belongs elsewhere"
    require_files(label_folder, ".png", set(labelled), frames, fault)
    height, width = read_size(frame_folder / f"{frames[0]}.jpg")
    return Video(frame_folder.name, frames, frame_folder, label_folder, height, width, labelled, {})


def list_frames(folder: Path, suffix: str, what: str, digits: int | None = 5) -> tuple[str, ...]:
    """Return the sorted frame names of a folder; HodorError if it is empty or has other files than 00000`suffix`."""
    if not os.path.isdir(folder):  # unlike Path.is_dir, False for impossible names too
        raise broken(folder, f"no such folder ({what})")
    names = []
    for path in folder.iterdir():
        digits = digits or len(path.stem)
        if path.suffix != suffix or not re.fullmatch(f"[0-9]{{{digits}}}", path.stem):
            raise HodorError(f"{path}: not a frame name like {'0' * digits}{suffix}; remove it ({what} belong there)")
        names.append(path.stem)
    if not names:
        raise broken(folder, f"empty folder ({what})")
    return tuple(sorted(names))


def require_files(folder: Path, suffix: str, required: set[str], found: tuple[str, ...], fault: str) -> None:
    """Raise HodorError for the first required frame or mask that is missing."""
    if missing := sorted(required - set(found)):
        raise broken(folder / f"{missing[0]}{suffix}", f"{fault} ({len(missing)} such)")


def read_list(path: Path) -> list[str]:
    """Return the lines of a split's file without blank ones and byte order mark; HodorError if there are none."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file, which lists split {path.stem}; fetch its archive") from None
    except (OSError, UnicodeDecodeError) as error:
        raise broken(path, f"cannot be read ({error})") from error
    if not lines:
        raise broken(path, "an empty list")
    return lines
