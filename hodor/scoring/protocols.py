"""Semi-supervised protocols: the frames and objects that a benchmark scores.

DAVIS-2017: objects are those of the first frame's ground truth, up to its greatest id; the first and the last frame are
not scored; void (255) in the ground truth is background; an object that the prediction lacks is empty. DAVIS-2016 has
one object, the foreground. Without a list of sequences, the protocol of DAVIS-2017 scores every folder of masks.

YouTube-VOS: J and F of DAVIS, averaged over the objects of seen and of unseen categories separately; the overall score G
is the mean of the four (Xu et al., arXiv:1809.03327, section 4). The server's code is not public. Our decision: an object
is scored in the frames that meta.json lists for it, except the one whose mask is given. Scores on `ytvos-holdout` and on
generated data are therefore not comparable with the server's.

Data sets of the user (`hodor.config.own_datasets`) have one of the two, without categories: the mean is over objects.
"""

from pathlib import Path

from hodor.config.benchmarks import HOLDOUT, UNSEEN, Benchmark
from hodor.config.own_datasets import OWN
from hodor.config.recipes import layout_of
from hodor.data.davis import ForegroundVideo
from hodor.data.images import VOID, read_size
from hodor.data.readers import open_videos
from hodor.data.video import Video, object_ids
from hodor.data.youtube_vos import (
    GROUND_TRUTH,
    load_ground_truth,
    load_youtube_vos,
    own_meta,
    read_categories,
    read_meta,
)
from hodor.errors import HodorError
from hodor.scoring.sequences import Task

DAVIS = {
    "task": "semi-supervised",
    "objects": "ids 1..n, n the largest id on frame 0 of the ground truth",
    "frames": "all but the first and the last",
    "void": "255 in the ground truth is background",
    "boundary_tolerance": "ceil(0.008 x image diagonal)",
    "mean": "over objects",
}
OWN_VIDEOS = DAVIS | {
    "objects": "each from the first frame whose mask shows it",
    "frames": "those with a mask, or that meta.json lists for an object, except the first one of the object",
}
DAVIS_FOLDER = DAVIS | {
    "objects": "ids on frame 0 of the ground truth",
    "sequences": "every folder of the ground truth",
}
DAVIS_2016 = DAVIS | {"objects": "one, the foreground", "void": "there is none"}
YOUTUBE_VOS = DAVIS | {
    "objects": "those of meta.json, each from the frame on which its mask is given",
    "frames": "6 a second; those that meta.json lists for an object, except the given one",
    "mean": "over the objects of seen and of unseen categories, then over the two",
}


def protocol_of(benchmark: Benchmark | None) -> dict[str, str]:
    """Return the protocol of a benchmark, or of a folder of masks (None), for provenance files."""
    if benchmark is None:
        return DAVIS_FOLDER
    layout = layout_of(benchmark.dataset)
    if benchmark.own and layout == "youtube-vos":
        return OWN_VIDEOS
    return {"davis": DAVIS, "davis2016": DAVIS_2016, "youtube-vos": YOUTUBE_VOS}[layout]


def open_benchmark(benchmark: Benchmark, truth: Path, *, scored: bool = True) -> tuple[Path, list[Task]]:
    """Return the folder of the data set, next to its manifest, and the benchmark's sequences in order.

    Unless `scored`, tasks only list the required masks.

    Raises:
        HodorError: secret ground truth if `scored`, or an error of the readers.
    """
    dataset, split = benchmark.dataset, benchmark.split
    if layout_of(dataset) != "youtube-vos":
        root = truth if benchmark.own else davis_root(truth)
        return root, _tasks(open_videos(root, dataset, split), scored)
    if not benchmark.own:
        return truth, youtube_vos_tasks(truth, split, scored=scored)
    videos, meta = open_videos(truth, dataset, split), own_meta(truth, split, OWN[dataset])
    frames = meta or {video.name: dict.fromkeys(video.first_seen, video.labelled) for video in videos}
    return truth, [_later(video, frames[video.name]) for video in videos]


def folder_tasks(truth: Path) -> tuple[Path, list[Task]]:
    """Find masks in the layout of DAVIS without images and a list of sequences: <video>/<frame>.png.

    Frame names are those of the masks, ordered as numbers. A first mask of 0 and 255 is one object, the foreground.

    Args:
        truth: folder of the videos, or a folder that holds Annotations/, Annotations/480p/ or DAVIS/ with either.

    Returns:
        The folder of the videos, and all of them in order.

    Raises:
        HodorError: no masks, a video of less than three frames or without object on the first, or a broken mask.
    """
    places = ("DAVIS/Annotations/480p", "DAVIS/Annotations", "Annotations/480p", "Annotations", "")
    for folder in (truth / place for place in places):
        videos: dict[str, list[str]] = {}
        for path in folder.glob("[!.]*/[!.]*.png"):
            videos.setdefault(path.parent.name, []).append(path.stem)
        if videos:
            if without := sorted({path.name for path in folder.glob("[!._]*/")} - set(videos)):
                raise HodorError(f"{folder / without[0]}: no masks <frame>.png; complete or remove this sequence")
            return folder, _tasks([_open(folder / name, frames) for name, frames in sorted(videos.items())], True)
    raise HodorError(
        f"{truth}: no masks in the layout of DAVIS; give the folder that holds Annotations/<video>/<frame>.png, or name "
        "the benchmark of another layout with --benchmark"
    )


def _open(folder: Path, names: list[str]) -> Video:
    frames = tuple(sorted(names, key=lambda name: (len(name), name)))  # 2 before 10
    height, width = read_size(folder / f"{frames[0]}.png")
    video = Video(folder.name, frames, folder, folder, height, width, frames, {})
    first = video.labels(frames[0])
    ids: tuple[int, ...] = object_ids(first)
    if not ids and (first == VOID).any():
        video, ids = ForegroundVideo(**vars(video)), (1,)
    if not ids:
        raise HodorError(f"{video.label_path(frames[0])}: no object; the protocol scores the objects of the first mask")
    video.first_seen.update(dict.fromkeys(ids, frames[0]))
    return video


def youtube_vos_tasks(root: Path, split: str, *, scored: bool = True) -> list[Task]:
    """Return the sequences of "valid" or of the hold-out; `root` holds train/ and valid/.

    Unless `scored`, the ground truth is not needed, and tasks only list the required masks.

    Raises:
        HodorError: secret ground truth if `scored`, an object without category, or an error of the readers.
    """
    unseen: set[str | None] = set(UNSEEN)
    if split == HOLDOUT:
        videos, meta = load_youtube_vos(root, split), root / "train" / "meta.json"
    elif not scored:
        videos, meta = load_youtube_vos(root, split), root / split / "meta.json"
    else:
        videos, meta = load_ground_truth(root), root / GROUND_TRUTH / "meta.json"
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
        tasks.append(_later(video, listed, category))
    return tasks


def davis_root(folder: Path) -> Path:
    """Return the folder that holds DAVIS/, given that folder or DAVIS/ itself; HodorError for any other."""
    if (folder / "DAVIS").is_dir():
        return folder
    resolved = folder.resolve()
    if resolved.name == "DAVIS" and (resolved / "ImageSets").is_dir():
        return folder.parent if folder.name == "DAVIS" else resolved.parent
    raise HodorError(f"{folder}: no DAVIS data here; give the folder that holds DAVIS/ (ImageSets, Annotations, ...)")


def check_ground_truth(video: Video) -> None:
    """Raise HodorError if the masks of a video are not public, or if the protocol scores none of its frames."""
    if len(video.labelled) < len(video.frames):
        raise HodorError(
            f"{video.label_folder}: {len(video.labelled)} of {len(video.frames)} frames have a mask, because the ground "
            "truth of this benchmark is secret; pack the masks for its server with `hodor submit`"
        )
    if len(video.frames) < 3:
        raise HodorError(
            f"{video.label_folder}: {len(video.frames)} frames, but the protocol needs at least 3, of which it leaves out "
            "the first and the last; get the whole sequence"
        )


def _later(video: Video, listed: dict[int, tuple[str, ...]], category: dict[int, str] | None = None) -> Task:
    """Return the task of a video whose objects are scored on their `listed` frames after the first one."""
    demanded = sorted({frame for of_object in listed.values() for frame in of_object})
    later = {id: tuple(f for f in listed[id] if f > first) for id, first in sorted(video.first_seen.items())}
    return Task(video, tuple(demanded), later, category)


def _tasks(videos: list[Video], scored: bool) -> list[Task]:
    for video in videos if scored else ():
        check_ground_truth(video)
    return [Task(video, video.frames, dict.fromkeys(video.first_seen, video.frames[1:-1])) for video in videos]
