"""YouTube-VOS (2018, 2019) in its official layout.

    <split>/JPEGImages/<video>/00000.jpg ...   <split>/Annotations/<video>/00000.png ...   <split>/meta.json
    meta.json = {"videos": {video: {"objects": {"1": {"category": name or null, "frames": ["00000", ...]}}}}}

`frames` of an object are those in which it is annotated (train) or to be segmented (valid). In the official files
(2018) ids have gaps (29 videos of train, 6 of valid), videos start after frame 00000, frames are 5 apart except one
video with 3, lists of frames have gaps, and sizes differ between videos. In train every listed frame has a mask; in
valid only frames in which an object appears first must have one. A frame in no list needs no mask.

Two parts of `train` are splits too (`hodor.config.benchmarks`): `holdout`, and `train-without-holdout` for training
that is scored on it.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hodor.config.benchmarks import HOLDOUT, REST, held_out
from hodor.config.own_datasets import META, OwnDataset
from hodor.data.images import VOID
from hodor.data.video import Video, broken, object_ids, open_video, read_annotations, require_files, video_folders
from hodor.errors import HodorError

# Folder of all masks of `valid`, with a meta.json that has categories; only the generated edition has it.
GROUND_TRUTH = "valid_truth"


def load_youtube_vos(root: Path, split: str) -> list[Video]:
    """Open a split: read meta.json, list folders and read one header of each video; no image is decoded.

    Args:
        root: folder that holds `train/` and `valid/`.
        split: "train", "valid", "holdout" or "train-without-holdout".

    Returns:
        The videos in the order of their names; `first_seen` is from meta.json. In `holdout` it is the first frame whose
        mask shows the object; these masks are decoded.

    Raises:
        HodorError: a file or folder is missing, superfluous, damaged or disagrees with another; a part is empty.
    """
    if split in (HOLDOUT, REST):
        return _part(Path(root), split)
    folder = Path(root) / split
    meta = read_meta(folder / "meta.json")
    for kind in ("JPEGImages", "Annotations"):
        if not (folder / kind).is_dir():
            raise HodorError(f"{folder / kind}: no such folder; the frames come in {split}.zip: fetch and prepare it")
        unknown = sorted({path.name for path in (folder / kind).iterdir()} - set(meta))
        if unknown:
            raise broken(folder / kind / unknown[0], "not in meta.json")
    frames, masks = folder / "JPEGImages", folder / "Annotations"
    return [_open(frames / name, masks / name, meta[name], every_mask=split == "train") for name in sorted(meta)]


def load_own_videos(root: Path, split: str, entry: OwnDataset) -> list[Video]:
    """Open a split of a data set of the user whose objects may appear on any frame; masks are decoded.

    An object starts on the first frame whose mask shows it. If the folder of the split has a meta.json, only its videos and
    objects count, and every frame that it lists must have a mask. HodorError as in `load_youtube_vos`.
    """
    meta = own_meta(root, split, entry)
    videos = [open_video(*of, f"video {of[0].name}", digits=None) for of in video_folders(Path(root), split, entry)]
    if meta is None:
        return [_shown(video) for video in videos]
    if unknown := [video for video in videos if video.name not in meta]:
        raise broken(unknown[0].frame_folder, "not in meta.json")
    if missing := sorted(set(meta) - {video.name for video in videos}):
        raise broken(Path(root) / entry.splits[split] / META, f"lists video {missing[0]}, which has no folder")
    return [_shown(_listed(video, meta[video.name], every_mask=True)) for video in videos]


def own_meta(root: Path, split: str, entry: OwnDataset) -> dict[str, dict[int, tuple[str, ...]]] | None:
    """Return `read_meta` of the split's meta.json; None if the data set has none."""
    path = Path(root) / entry.splits[split] / META
    return read_meta(path) if entry.layout == "youtube-vos" and path.is_file() else None


def load_ground_truth(root: Path) -> list[Video]:
    """Open the videos of `valid` with the masks of every listed frame, from the folder GROUND_TRUTH.

    `first_seen` is that of `valid`. HodorError where the folder is absent, and as in `load_youtube_vos`.
    """
    valid, folder = Path(root) / "valid", Path(root) / GROUND_TRUTH
    if not folder.is_dir():
        fault = "the masks of YouTube-VOS valid are secret; submit the predictions to its server instead"
        raise HodorError(f"{valid}: {fault}")
    videos, meta = load_youtube_vos(root, "valid"), read_meta(folder / "meta.json")
    if [video.name for video in videos] != sorted(meta):
        raise broken(folder / "meta.json", f"other videos than in {valid}")
    known = [_open(v.frame_folder, folder / "Annotations" / v.name, meta[v.name], every_mask=True) for v in videos]
    return [replace(of_truth, first_seen=video.first_seen) for of_truth, video in zip(known, videos, strict=True)]


def read_meta(path: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """Return video -> object id -> frames of the object, in order; HodorError if the file is broken or incomplete."""
    return _read(path, _objects)


def read_categories(path: Path) -> dict[str, dict[int, str | None]]:
    """Return video -> object id -> category, None where it is secret; HodorError as in `read_meta`."""
    return _read(path, _categories)


def _read(path: Path, read: Callable[[str, dict], Any]) -> dict[str, Any]:
    with read_annotations(path) as content:
        videos = content["videos"]
        if not videos:
            raise ValueError("no video")
        if odd := [name for name in videos if Path(name).name != name]:
            raise ValueError(f"{odd[0]!r} is no name of a video")
        return {name: read(name, video["objects"]) for name, video in videos.items()}


def check_objects(video: Video, split: str) -> int:
    """Decode all masks of a video; return the number of objects that are not in the mask of their first frame.

    HodorError for a damaged mask, an id that is not in meta.json, an object that no mask shows, and in `valid` for an
    object that is not in the mask of its first frame, which a method starts from.
    """
    shown: dict[str, tuple[int, ...]] = {}
    for frame in video.labelled:
        shown[frame] = object_ids(video.labels(frame))
        if unknown := [i for i in shown[frame] if i not in video.first_seen]:
            known = ", ".join(map(str, sorted(video.first_seen)))
            fault = f"object id {unknown[0]} is not in meta.json, which has {known} for this video"
            raise broken(video.label_path(frame), fault)
    late = {i: first for i, first in sorted(video.first_seen.items()) if i not in shown.get(first, ())}
    for i, first in late.items():
        if split == "valid" or not any(i in ids for ids in shown.values()):
            raise broken(video.label_path(first), f"object {i} is not in this mask, though it starts here in meta.json")
    return len(late)


def _part(root: Path, split: str) -> list[Video]:
    """Open a part of `train`; of the hold-out with the frames whose masks show the objects first."""
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
    known = video.first_seen or dict.fromkeys(range(1, VOID), "")  # without meta.json any object, on any frame
    shown: dict[int, str] = {}
    for frame in video.labelled:
        if due := {i for i, first in known.items() if i not in shown and frame >= first}:
            shown |= dict.fromkeys(due.intersection(object_ids(video.labels(frame))), frame)
    if not shown:
        raise broken(video.label_folder, "no mask shows an object" + " of meta.json" * bool(video.first_seen))
    return replace(video, first_seen=dict(sorted(shown.items())))


def _open(frames: Path, masks: Path, objects: dict[int, tuple[str, ...]], every_mask: bool) -> Video:
    return _listed(open_video(frames, masks, f"video {frames.name}, which meta.json lists"), objects, every_mask)


def _listed(video: Video, objects: dict[int, tuple[str, ...]], every_mask: bool) -> Video:
    first_seen = {i: of_object[0] for i, of_object in objects.items()}
    listed = {frame for of_object in objects.values() for frame in of_object}
    require_files(video.frame_folder, ".jpg", listed, video.frames, "missing frame, meta.json lists it")
    required = listed if every_mask else set(first_seen.values())
    require_files(video.label_folder, ".png", required, video.labelled, "missing mask, meta.json lists an object there")
    return replace(video, first_seen=first_seen)


def _objects(video: str, objects: dict) -> dict[int, tuple[str, ...]]:
    if not objects:
        raise ValueError(f"video {video} has no object")
    result = {}
    for key, entry in objects.items():
        frames = entry["frames"]
        if not (key.isdecimal() and 0 < int(key) < VOID):
            raise ValueError(f"video {video}: object id {key!r} is not a number from 1 to {VOID - 1}")
        if not (isinstance(frames, list) and frames and all(isinstance(frame, str) for frame in frames)):
            raise ValueError(
                f"video {video}, object {key}: `frames` must be a list of frame names with one entry or more"
            )
        if sorted(set(frames)) != frames:
            raise ValueError(f"video {video}, object {key}: frames out of order or named twice")
        result[int(key)] = tuple(frames)
    if len(result) != len(objects):
        raise ValueError(f"video {video}: one object id is written in two forms")
    return dict(sorted(result.items()))


def _categories(video: str, objects: dict) -> dict[int, str | None]:
    for key, entry in objects.items():
        if not isinstance(entry["category"], str | None):
            raise ValueError(f"video {video}, object {key}: `category` must be a name or null")
    return {int(key): entry["category"] for key, entry in objects.items()}
