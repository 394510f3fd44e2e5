"""The protocol of YouTube-VOS: J and F of seen and unseen categories.

The server's code is not public. Xu et al., arXiv:1809.03327, section 4: J and F of DAVIS, averaged over the objects of
seen and of unseen categories separately; the overall score G is the mean of the four. Chosen here: an object is scored
in the frames that meta.json lists for it, except the one whose mask is given. Scores on `ytvos-holdout` or generated
data are therefore not the server's.
"""

from pathlib import Path

from hodor.config.holdout import HOLDOUT, UNSEEN
from hodor.data.youtube_vos import TRUTH, load_truth, load_youtube_vos, read_categories, read_meta
from hodor.errors import HodorError
from hodor.scoring.sequences import Task

PROTOCOL = {
    "task": "semi-supervised",
    "objects": "those of meta.json, each from the frame on which its mask is given",
    "frames": "6 a second; those that meta.json lists for an object, except the given one",
    "void": "255 in the ground truth is background",
    "boundary_tolerance": "ceil(0.008 x image diagonal)",
    "mean": "over the objects of seen and of unseen categories, then over the two",
}


def youtube_vos_tasks(root: Path, split: str, *, scored: bool = True) -> list[Task]:
    """Return the sequences of "valid" or of the hold-out.

    Args:
        root: folder that holds train/ and valid/.
        split: as for `load_youtube_vos`.
        scored: whether the ground truth is needed; without it tasks only list the demanded masks.

    Raises:
        HodorError: the ground truth is needed and secret, an object without category, or as the readers.
    """
    unseen: set[str] = set(UNSEEN)
    if split == HOLDOUT:
        videos, meta = load_youtube_vos(root, split), root / "train" / "meta.json"
    elif not scored:
        videos, meta = load_youtube_vos(root, split), root / split / "meta.json"
    else:
        videos, meta = load_truth(root), root / TRUTH / "meta.json"
        trained = {name for video in read_categories(root / "train" / "meta.json").values() for name in video.values()}
        unseen = {name for video in read_categories(meta).values() for name in video.values()} - trained
    frames, categories = read_meta(meta), read_categories(meta)
    tasks = []
    for video in videos:
        listed, names, category = frames[video.name], categories[video.name], None
        if scored:
            if without := [id for id in video.first_seen if names[id] is None]:
                raise HodorError(
                    f"{meta}: video {video.name}, object {without[0]} has no category; prepare the data set again"
                )
            category = {id: "unseen" if names[id] in unseen else "seen" for id in video.first_seen}
        demanded = sorted({frame for of_object in listed.values() for frame in of_object})
        later = {id: tuple(f for f in listed[id] if f > first) for id, first in sorted(video.first_seen.items())}
        tasks.append(Task(video, tuple(demanded), later, category))
    return tasks
