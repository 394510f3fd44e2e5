"""The semi-supervised protocol of DAVIS: which frames and objects of which sequences are scored.

DAVIS-2017: objects are counted on the first frame of the truth (its largest id); the first and the last frame are not
scored; void (255) in the truth is background; a prediction with fewer objects has the others empty. DAVIS-2016 is the
same with one object, the foreground, which predictions may write as 1 or, like the truth, as 255.
"""

from dataclasses import replace
from pathlib import Path

from hodor.data.davis import load_davis, load_davis2016
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.scoring.sequences import Task

PROTOCOL = {
    "task": "semi-supervised",
    "objects": "ids 1..n, n the largest id on frame 0 of the truth",
    "frames": "all but the first and the last",
    "void": "255 in the truth is background",
    "boundary_tolerance": "ceil(0.008 x image diagonal)",
    "mean": "over objects",
}
PROTOCOL_2016 = PROTOCOL | {"objects": "one, the foreground", "void": "there is none"}


def davis_tasks(truth: Path, split: str) -> list[Task]:
    """The sequences of a split of DAVIS-2017; `truth` holds DAVIS/ or is that folder."""
    return [_task(video) for video in load_davis(davis_root(truth), split)]


def davis2016_tasks(truth: Path, split: str) -> list[Task]:
    """The sequences of a split of DAVIS-2016; `truth` holds DAVIS/ or is that folder."""
    return [replace(_task(video), foreground=True) for video in load_davis2016(davis_root(truth), split)]


def davis_root(truth: Path) -> Path:
    """The folder that holds DAVIS/; HodorError where there is none."""
    truth = Path(truth)
    if (truth / "DAVIS").is_dir():
        return truth
    whole = truth.resolve()
    if whole.name == "DAVIS" and (whole / "ImageSets").is_dir():
        return truth.parent if truth.name == "DAVIS" else whole.parent
    raise HodorError(f"{truth}: no DAVIS data here; give the folder that holds DAVIS/ (ImageSets, Annotations, ...)")


def check_truth(tasks: list[Task]) -> None:
    """Makes sure that every frame has a true mask and that there is a frame to score.

    Raises:
        HodorError: masks not public (a server scores the benchmark), or a sequence too short.
    """
    for video in (task.video for task in tasks):
        # The reader lets only test-dev come without all masks; generated data have them there too.
        if len(video.labelled) < len(video.frames):
            raise HodorError(
                f"{video.label_folder}: {len(video.labelled)} of {len(video.frames)} frames have a true mask: the "
                "labels of this benchmark are secret and its server scores it; nothing can be scored here. "
                "`hodor submit` makes what the server takes"
            )
        if len(video.frames) < 3:
            raise HodorError(
                f"{video.label_folder}: {len(video.frames)} frames; the protocol leaves out the first and the "
                "last, so that a sequence needs at least 3"
            )


def _task(video: Video) -> Task:
    return Task(video, video.frames, {id: video.frames[1:-1] for id in range(1, max(video.first_seen) + 1)})
