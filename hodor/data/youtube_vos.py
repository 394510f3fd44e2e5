"""YouTube-VOS (2018, 2019) in its official layout.

    <split>/JPEGImages/<video>/00000.jpg ...   <split>/Annotations/<video>/00000.png ...   <split>/meta.json
    meta.json = {"videos": {video: {"objects": {"1": {"category": name or null, "frames": ["00000", ...]}}}}}

`frames` of an object are those in which it is annotated (train) or to be segmented (valid). Facts of the official
files (2018) that a reader must not take for errors: ids have gaps (29 videos of train, 6 of valid), videos start
after frame 00000, frames are 5 apart except one video with 3, and every list of frames may have holes. Sizes differ
between videos. In train every listed frame has a mask; in valid only frames in which an object appears first have
one (more masks are allowed). A frame in no list needs no mask.
"""

import json
from pathlib import Path

from hodor.data.images import VOID, read_size
from hodor.data.video import Video, list_frames, object_ids, require_frames_of_masks
from hodor.errors import HodorError

SPLITS = ("train", "valid")


def load_youtube_vos(root: Path, split: str) -> list[Video]:
    """Opens a split: reads meta.json, lists folders and reads one header of each video; decodes no image.

    Args:
        root: folder that holds `train/` and `valid/`.
        split: "train" or "valid".

    Returns:
        The videos in the order of their names; `first_seen` comes from meta.json.

    Raises:
        HodorError: a file or folder is missing, superfluous, damaged or disagrees with another.
    """
    if split not in SPLITS:
        raise HodorError(f"YouTube-VOS has no split {split!r}; there are {', '.join(SPLITS)}")
    folder = Path(root) / split
    meta = read_meta(folder / "meta.json")
    for kind in ("JPEGImages", "Annotations"):
        if not (folder / kind).is_dir():
            raise HodorError(f"{folder / kind}: no such folder; the frames come in {split}.zip: fetch and prepare it")
        unknown = sorted({path.name for path in (folder / kind).iterdir()} - set(meta))
        if unknown:
            raise HodorError(f"{folder / kind / unknown[0]}: not in meta.json; {folder / 'meta.json'} is incomplete")
    return [_open(folder, name, objects, every_mask=split == "train") for name, objects in sorted(meta.items())]


def read_meta(path: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """Video -> object id -> frames of the object, in order; HodorError if the file is broken or incomplete."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
        videos = content["videos"]
        if not videos:
            raise ValueError("no video")
        return {name: _objects(name, video["objects"]) for name, video in videos.items()}
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; fetch and prepare the data set again") from None
    except KeyError as error:
        raise HodorError(f"{path}: incomplete, key {error} is missing; prepare the data set again") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise HodorError(f"{path}: broken ({error}); prepare the data set again") from error


def check_labels(video: Video, frame: str) -> tuple[int, ...]:
    """Decodes the mask of a frame; returns the ids in it. HodorError if one of them is not in meta.json."""
    ids = object_ids(video.labels(frame))
    unknown = [i for i in ids if i not in video.first_seen]
    if unknown:
        known = ", ".join(map(str, sorted(video.first_seen)))
        raise HodorError(
            f"{video.label_path(frame)}: object id {unknown[0]} is not in meta.json, which has {known} for this video; "
            "mask or meta.json is damaged: prepare the data set again"
        )
    return ids


def check_objects(video: Video, ids: dict[str, tuple[int, ...]], split: str) -> int:
    """Compares the objects of meta.json with those of all masks.

    Args:
        video: an opened video.
        ids: labelled frame -> ids in its mask (`check_labels`).
        split: "valid" demands each object on the frame that meta.json names first, for there a method gets its mask;
            in "train" an object may be too small there, but must be in some mask.

    Returns:
        Number of objects that are not in the mask of their first frame (train alone).

    Raises:
        HodorError: an object has no mask.
    """
    late = 0
    for i, first in sorted(video.first_seen.items()):
        if i in ids.get(first, ()):
            continue
        if split == "valid" or not any(i in found for found in ids.values()):
            raise HodorError(
                f"{video.label_path(first)}: object {i} is not in this mask, though meta.json lets it appear here; "
                "mask or meta.json is damaged: prepare the data set again"
            )
        late += 1
    return late


def _open(folder: Path, name: str, objects: dict[int, tuple[str, ...]], every_mask: bool) -> Video:
    frame_folder, label_folder = folder / "JPEGImages" / name, folder / "Annotations" / name
    frames = list_frames(frame_folder, ".jpg", f"frames of video {name}, which meta.json lists")
    labelled = list_frames(label_folder, ".png", f"masks of video {name}, which meta.json lists")
    listed = sorted({frame for of_object in objects.values() for frame in of_object})
    first_seen = {i: of_object[0] for i, of_object in objects.items()}
    missing = sorted(set(listed) - set(frames))
    if missing:
        raise HodorError(
            f"{frame_folder}/{missing[0]}.jpg: missing frame, meta.json lists it ({len(missing)} such); "
            "prepare the data set again"
        )
    require_frames_of_masks(frames, labelled, label_folder)
    demanded = listed if every_mask else first_seen.values()
    missing = sorted(set(demanded) - set(labelled))
    if missing:
        raise HodorError(
            f"{label_folder}/{missing[0]}.png: missing mask, meta.json lists an object there ({len(missing)} such); "
            "prepare the data set again"
        )
    height, width = read_size(frame_folder / f"{frames[0]}.jpg")
    return Video(
        name=name,
        frames=frames,
        frame_folder=frame_folder,
        label_folder=label_folder,
        height=height,
        width=width,
        labelled=labelled,
        first_seen=first_seen,
    )


def _objects(video: str, objects: dict) -> dict[int, tuple[str, ...]]:
    if not objects:
        raise ValueError(f"video {video} has no object")
    result = {}
    for key, entry in objects.items():
        frames = entry["frames"]
        if not (key.isdecimal() and 0 < int(key) < VOID):
            raise ValueError(f"video {video}: object id {key!r} is no number from 1 to {VOID - 1}")
        if not (isinstance(frames, list) and frames and all(isinstance(frame, str) for frame in frames)):
            raise ValueError(f"video {video}, object {key}: `frames` must be a list of frame names, not empty")
        if sorted(set(frames)) != frames:
            raise ValueError(f"video {video}, object {key}: frames out of order or named twice")
        result[int(key)] = tuple(frames)
    if len(result) != len(objects):
        raise ValueError(f"video {video}: one object id is written in two ways")
    return dict(sorted(result.items()))


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"name {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return result
