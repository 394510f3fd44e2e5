"""The semi-supervised protocol of DAVIS: which frames and objects are scored.

DAVIS-2017: objects are those of the first frame's ground truth, up to its largest id; the first and the last frame are
not scored; void (255) in the ground truth is background; objects that a prediction lacks are empty. DAVIS-2016 is the
same with one object, the foreground, which predictions may write as 1 or, like the ground truth, as 255.
"""

from dataclasses import replace
from pathlib import Path

from hodor.data.davis import load_davis, load_davis2016
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.scoring.sequences import Task

PROTOCOL = {
    "task": "semi-supervised",
    "objects": "ids 1..n, n the largest id on frame 0 of the ground truth",
    "frames": "all but the first and the last",
    "void": "255 in the ground truth is background",
    "boundary_tolerance": "ceil(0.008 x image diagonal)",
    "mean": "over objects",
}
PROTOCOL_2016 = PROTOCOL | {"objects": "one, the foreground", "void": "there is none"}


def davis_tasks(root: Path, split: str, *, scored: bool = True) -> list[Task]:
    """Return the sequences of a split of DAVIS-2017; `root` holds DAVIS/. Raises as `check_ground_truth` if scored."""
    return _tasks(load_davis(root, split), scored)


def davis2016_tasks(root: Path, split: str, *, scored: bool = True) -> list[Task]:
    """Return the sequences of a split of DAVIS-2016, as `davis_tasks`."""
    return [replace(task, foreground=True) for task in _tasks(load_davis2016(root, split), scored)]


def davis_root(folder: Path) -> Path:
    """Return the folder that holds DAVIS/, given that or DAVIS/ itself; HodorError for any other."""
    if (folder / "DAVIS").is_dir():
        return folder
    resolved = folder.resolve()
    if resolved.name == "DAVIS" and (resolved / "ImageSets").is_dir():
        return folder.parent if folder.name == "DAVIS" else resolved.parent
    raise HodorError(f"{folder}: no DAVIS data here; give the folder that holds DAVIS/ (ImageSets, Annotations, ...)")


def check_ground_truth(video: Video) -> None:
    """Raise HodorError where masks are not public (a server scores the benchmark) or no frame is scored."""
    if len(video.labelled) < len(video.frames):
        raise HodorError(
            f"{video.label_folder}: {len(video.labelled)} of {len(video.frames)} frames have a mask: the ground truth "
            "of this benchmark is secret and only its server scores it; `hodor submit` packs the masks for that"
        )
    if len(video.frames) < 3:
        raise HodorError(
            f"{video.label_folder}: {len(video.frames)} frames; the protocol leaves out the first and the last, so a "
            "sequence needs at least 3: prepare the data set again"
        )


def _tasks(videos: list[Video], scored: bool) -> list[Task]:
    for video in videos if scored else ():
        check_ground_truth(video)
    return [
        Task(video, video.frames, {id: video.frames[1:-1] for id in range(1, max(video.first_seen) + 1)})
        for video in videos
    ]
