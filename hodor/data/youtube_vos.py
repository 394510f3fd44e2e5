"""YouTube-VOS (2018, 2019) in its official layout.

    <split>/JPEGImages/<video>/00000.jpg ...   <split>/Annotations/<video>/00000.png ...   <split>/meta.json
    meta.json = {"videos": {video: {"objects": {"1": {"category": name or null, "frames": ["00000", ...]}}}}}

`frames` of an object are those in which it is annotated (train) or to be segmented (valid). Facts of the official
files (2018) that a reader must not take for errors: ids have gaps (29 videos of train, 6 of valid), videos start
after frame 00000, frames are 5 apart except one video with 3, and every list of frames may have holes. Sizes differ
between videos. In train every listed frame has a mask; in valid only frames in which an object appears first have
one (more masks are allowed). A frame in no list needs no mask.

Parts of `train` are splits of their own (`hodor.config.benchmarks`): `holdout`, and `train-without-holdout` for
training that is to be scored on it.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hodor.config.benchmarks import HOLDOUT, REST, held_out
from hodor.data.images import VOID
from hodor.data.video import Video, list_frames, object_ids, open_video, require_files, require_frames_of_masks
from hodor.errors import HodorError

SPLITS = ("train", "valid")
PARTS = (HOLDOUT, REST)
"""Splits that are parts of `train`."""

TRUTH = "valid_truth"
"""Folder of all masks of `valid`, with a meta.json that has categories: in the generated edition alone."""


def load_youtube_vos(root: Path, split: str) -> list[Video]:
    """Open a split: read meta.json, list folders and read one header of each video; no image is decoded.

    Args:
        root: folder that holds `train/` and `valid/`.
        split: "train", "valid" or one of PARTS.

    Returns:
        The videos in the order of their names; `first_seen` comes from meta.json. In `holdout` it is the first of an
        object's frames whose mask shows the object, where a method gets its mask; these masks are decoded.

    Raises:
        HodorError: a file or folder is missing, superfluous, damaged or disagrees with another; a part is empty.
    """
    if split in PARTS:
        return _part(Path(root), split)
    if split not in SPLITS:
        raise HodorError(f"YouTube-VOS has no split {split!r}; there are {', '.join((*SPLITS, *PARTS))}")
    folder = Path(root) / split
    meta = read_meta(folder / "meta.json")
    for kind in ("JPEGImages", "Annotations"):
        if not (folder / kind).is_dir():
            raise HodorError(f"{folder / kind}: no such folder; the frames come in {split}.zip: fetch and prepare it")
        unknown = sorted({path.name for path in (folder / kind).iterdir()} - set(meta))
        if unknown:
            raise HodorError(f"{folder / kind / unknown[0]}: not in meta.json; {folder / 'meta.json'} is incomplete")
    return [_open(folder, name, objects, every_mask=split == "train") for name, objects in sorted(meta.items())]


def load_truth(root: Path) -> list[Video]:
    """Open the videos of `valid` with the masks of every listed frame, from the folder TRUTH.

    `first_seen` is that of `valid`. HodorError where the folder is absent, and as in `load_youtube_vos`.
    """
    folder = Path(root) / TRUTH
    if not folder.is_dir():
        fault = "the masks of YouTube-VOS valid are secret and its server scores them; nothing can be scored here"
        raise HodorError(f"{Path(root) / 'valid'}: {fault}")
    videos, meta = load_youtube_vos(root, "valid"), read_meta(folder / "meta.json")
    if [video.name for video in videos] != sorted(meta):
        fault = f"other videos than in {Path(root) / 'valid'}; prepare the data set again"
        raise HodorError(f"{folder / 'meta.json'}: {fault}")
    found = []
    for video in videos:
        masks = folder / "Annotations" / video.name
        labelled = list_frames(masks, ".png", f"ground truth of video {video.name}")
        require_files(masks, ".png", _listed(meta[video.name]), labelled, "missing mask")
        require_frames_of_masks(video.frames, labelled, masks)
        found.append(replace(video, label_folder=masks, labelled=labelled))
    return found


def read_meta(path: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """Return video -> object id -> frames of the object, in order; HodorError if the file is broken or incomplete."""
    return _read(path, _objects)


def read_categories(path: Path) -> dict[str, dict[int, str | None]]:
    """Return video -> object id -> category, None where it is secret; HodorError as in `read_meta`."""
    return _read(path, lambda _, objects: {int(key): entry["category"] for key, entry in objects.items()})


def _read(path: Path, read: Callable[[str, dict], Any]) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys)
        videos = content["videos"]
        if not videos:
            raise ValueError("no video")
        return {name: read(name, video["objects"]) for name, video in videos.items()}
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; fetch and prepare the data set again") from None
    except KeyError as error:
        raise HodorError(f"{path}: incomplete, key {error} is missing; prepare the data set again") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise HodorError(f"{path}: broken ({error}); prepare the data set again") from error


def check_labels(video: Video, frame: str) -> tuple[int, ...]:
    """Decode the mask of a frame; return the ids in it. HodorError if one of them is not in meta.json."""
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
    """Compare the objects of meta.json with those of all masks.

    Args:
        video: an opened video.
        ids: labelled frame -> ids in its mask (`check_labels`).
        split: "valid" demands each object on the frame that meta.json names first, where a method gets its mask; in
            "train" an object may be too small there, but must be in some mask.

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


def _part(root: Path, split: str) -> list[Video]:
    """Open a part of `train`."""
    categories = read_categories(root / "train" / "meta.json")
    videos = [
        video
        for video in load_youtube_vos(root, "train")
        if held_out(video.name, categories[video.name].values()) == (split == HOLDOUT)
    ]
    if not videos:
        raise HodorError(f"{root / 'train'}: no video of it is in split {split}; the data set is too small for one")
    return [_shown(video) for video in videos] if split == HOLDOUT else videos


def _shown(video: Video) -> Video:
    """Return the video with the objects that some mask shows, each first seen where a mask shows it first."""
    waiting, shown = dict(video.first_seen), {}
    for frame in video.labelled:
        due = {i for i, first in waiting.items() if frame >= first}
        for i in due.intersection(object_ids(video.labels(frame)) if due else ()):
            shown[i] = frame
            del waiting[i]
    if not shown:
        raise HodorError(f"{video.label_folder}: no mask shows an object of meta.json; prepare the data set again")
    return replace(video, first_seen=dict(sorted(shown.items())))


def _open(folder: Path, name: str, objects: dict[int, tuple[str, ...]], every_mask: bool) -> Video:
    frames, masks = folder / "JPEGImages" / name, folder / "Annotations" / name
    video = open_video(frames, masks, f"video {name}, which meta.json lists")
    first_seen = {i: of_object[0] for i, of_object in objects.items()}
    require_files(frames, ".jpg", _listed(objects), video.frames, "missing frame, meta.json lists it")
    demanded = _listed(objects) if every_mask else set(first_seen.values())
    require_files(masks, ".png", demanded, video.labelled, "missing mask, meta.json lists an object there")
    return replace(video, first_seen=first_seen)


def _listed(objects: dict[int, tuple[str, ...]]) -> set[str]:
    return {frame for of_object in objects.values() for frame in of_object}


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
