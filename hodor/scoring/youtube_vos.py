"""The protocol of YouTube-VOS: J and F of seen and unseen categories.

The server's code is not public. What is known of it (Xu et al., arXiv:1809.03327, section 4): J and F of DAVIS, averaged
over the objects of seen and of unseen categories apart; the overall score G is the mean of the four. What is chosen
here: an object is scored in the frames that meta.json lists for it, but for the one whose mask is given. So a number
of ours on `ytvos-holdout`, or on generated data, is no number of the server.
"""

from pathlib import Path

from hodor.config.holdout import HOLDOUT, UNSEEN
from hodor.data.video import Video
from hodor.data.youtube_vos import TRUTH, load_truth, load_youtube_vos, read_categories, read_meta
from hodor.errors import HodorError
from hodor.scoring.sequences import Task

SEEN, NEW = "seen", "unseen"

PROTOCOL = {
    "task": "semi-supervised",
    "objects": "those of meta.json, each from the frame on which its mask is given",
    "frames": "6 a second; those that meta.json lists for an object but for the given one",
    "void": "255 in the truth is background",
    "boundary_tolerance": "ceil(0.008 x image diagonal)",
    "mean": "over the objects of seen and of unseen categories, then over the two",
}


def youtube_vos_tasks(truth: Path, split: str, *, scored: bool = True) -> list[Task]:
    """The sequences of "valid" or of the hold-out.

    Args:
        truth: folder that holds train/ and valid/.
        split: as `load_youtube_vos` takes it.
        scored: whether the truth is needed; without it the tasks say which masks are demanded, and no more.

    Raises:
        HodorError: the truth is needed and secret, or as the readers.
    """
    truth = Path(truth)
    if split == HOLDOUT:
        videos, meta = load_youtube_vos(truth, split), truth / "train" / "meta.json"
        unseen = set(UNSEEN)
    elif not scored:
        videos, meta = load_youtube_vos(truth, split), truth / split / "meta.json"
    else:
        videos, meta = load_truth(truth), truth / TRUTH / "meta.json"
        trained = {name for video in read_categories(truth / "train" / "meta.json").values() for name in video.values()}
        unseen = {name for video in read_categories(meta).values() for name in video.values()} - trained
    frames, categories = read_meta(meta), read_categories(meta)
    tasks = []
    for video in videos:
        if not scored:
            category = None
        elif hidden := [id for id in video.first_seen if categories[video.name][id] is None]:
            raise HodorError(
                f"{meta}: video {video.name}, object {hidden[0]} has no category; prepare the data set again"
            )
        else:
            category = {id: NEW if categories[video.name][id] in unseen else SEEN for id in video.first_seen}
        tasks.append(_task(video, frames[video.name], category))
    return tasks


def _task(video: Video, listed: dict[int, tuple[str, ...]], category: dict[int, str] | None) -> Task:
    demanded = sorted({frame for of_object in listed.values() for frame in of_object})
    scored = {
        id: tuple(frame for frame in listed[id] if frame > first) for id, first in sorted(video.first_seen.items())
    }
    return Task(video, tuple(demanded), scored, category)
