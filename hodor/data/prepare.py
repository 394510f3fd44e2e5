"""The verb `prepare`: extract the archives of a data set and check all of it.

Every split is opened by its strict reader, and every image and mask that the readers return is decoded once. The
results are a folder and a small manifest of counts and checksums; training and scoring depend on the manifest, never on
time stamps of a hundred thousand files.
"""

import hashlib
import operator
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from hodor.config.datasets import ARCHIVES, FOLDERS, RECORD, SPLITS
from hodor.config.own_datasets import OWN, OwnDataset
from hodor.config.recipes import layout_of
from hodor.data import still_images, youtube_vos
from hodor.data.extract import extract_all
from hodor.data.files import put_in_place
from hodor.data.progress import Progress
from hodor.data.readers import StillImage, is_video, load_images, open_videos
from hodor.data.video import Video, object_ids
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_file, write_json_atomic

# Starting processes costs more than decoding this many files.
_FEW = 400
_CHUNK = 32


class Split(NamedTuple):
    """An opened split: counts, and picklable tasks, with their number of files, that decode files and return counts."""

    counts: dict[str, int]
    tasks: list[tuple[Callable[[], dict[str, int]], int]]


OFFICIAL_COUNTS = {
    "coco": {"train2017": 118_287, "val2017": 5_000},
    "davis": {"train": 60, "val": 30, "test-dev": 30},
    "davis2016": {"train": 30, "val": 20},
    "youtube-vos": {"train": 3_471, "valid": 507},
    "youtube-vos-2018": {"valid": 474},
    "ecssd": {"all": 1_000},
    "msra10k": {"all": 10_000},
    "voc2012": {"trainval": 2_913},
    # BIG_small and HRSOD_small: about 150 and 2,010, not known exactly.
    "stcn-static": {"fss": 10_000, "DUTS-TR": 10_553, "DUTS-TE": 5_019, "ecssd": 1_000},
}
"""Numbers of videos or images, checked for edition `official` only."""

# Data sets with splits that are parts of others -> those that are checked.
_CHECKED = {"youtube-vos": ("train", "valid"), "voc2012": ("trainval",)}


def prepare(stamp: dict, archives: Path, out: Path, manifest: Path) -> None:
    """Extract a data set to `out`, check all of it and write its manifest.

    Args:
        stamp: `settings` holds `dataset`, `edition` and, optionally, `jobs` (processes, 2 if absent).
        archives: folder with the archives and the `archives.json` of `fetch`.
        out: folder of the data set, replaced when all of it is checked; until then `.<name>.extracted` beside it.
        manifest: JSON file, written last: `dataset`, `edition`, `splits` (counts), `files`, `sha256` (over the sorted
            lines "<sha256>  <relative path>" of all files), `archives` (name -> sha256) and, if any, `known_defects` of
            the published archive (file -> fault and how it is handled). The same archives give the same bytes.

    Raises:
        HodorError: an archive or a file of the data set is missing, damaged or disagrees with another, or counts of
            the official edition differ.
    """
    settings, archives, out, manifest = stamp["settings"], Path(archives), Path(out), Path(manifest)
    dataset, edition = settings["dataset"], settings["edition"]
    if dataset not in SPLITS:
        raise HodorError(f"stamp: unknown data set {dataset!r}; there are {', '.join(SPLITS)}")
    known = check_archives(dataset, archives)
    manifest.unlink(missing_ok=True)
    extracted = out.with_name(f".{out.name}.extracted")
    if known:
        digests = extract_all([archives / name for name in known], extracted, folders=FOLDERS.get(dataset, ()))
    else:
        digests = _link(OWN[dataset], extracted)
    checked = extracted if known else OWN[dataset].place()  # errors name the user's files
    splits = check_dataset(dataset, edition, checked, settings.get("jobs") or 2)
    put_in_place(extracted, out)
    defects = still_images.known_defects(out, dataset)
    rest = {"archives": known} | ({"known_defects": defects} if defects else {})
    write_manifest(manifest, {"dataset": dataset, "edition": edition, "splits": splits}, digests, rest)


def _link(entry: OwnDataset, out: Path) -> dict[str, str]:
    """Make a folder of links to the files of a data set that is read in place; return relative path -> sha256."""
    shutil.rmtree(out, ignore_errors=True)
    digests = {}
    for name in entry.files():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to(entry.place() / name)
        digests[name] = sha256_file(out / name)
    return digests


def write_manifest(manifest: Path, head: dict, digests: dict[str, str], rest: dict) -> None:
    """Write a manifest as `prepare` describes it: `head`, number and sha256 of the files (name -> sha256), `rest`."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    files = {"files": len(digests), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    write_json_atomic(manifest, head | files | rest)


def check_dataset(dataset: str, edition: str, root: Path, jobs: int = 2) -> dict[str, dict[str, int]]:
    """Open every split of an extracted data set and decode every image and mask.

    Returns:
        Split -> counts. Videos: videos, frames, masks, objects, and `objects_not_on_first_frame` (DAVIS: ids of no
        benchmark; YouTube-VOS train: too small on the frame that meta.json names). Images: images, of which
        skipped_unannotated, objects, of which crowds and empty_masks (no pixel).
    """
    opened = {split: open_split(dataset, root, split) for split in _CHECKED.get(dataset, SPLITS[dataset])}
    if edition == "official":
        what = "videos" if is_video(dataset) else "images"
        for split, number in OFFICIAL_COUNTS.get(dataset, {}).items():
            if (count := opened[split].counts[what]) != number:
                found = f"{dataset} {split} has {count} {what}, the official edition has {number}"
                raise HodorError(f"{root}: {found}; fetch the official archives, or use edition subset")
    counts = {name: Counter(split.counts) for name, split in opened.items()}
    tasks = [(name, *task) for name, split in opened.items() for task in split.tasks]
    total = sum(files for _, _, files in tasks)
    progress = Progress(f"{dataset}: decoded", total, unit="files")
    results = _in_processes([task for _, task, _ in tasks], min(jobs, len(tasks)) if total >= _FEW else 1)
    for (name, _, files), found in zip(tasks, results, strict=True):
        counts[name].update(found)
        progress.add(files)
    progress.show()
    return {name: dict(sorted(found.items())) for name, found in counts.items()}


def open_split(dataset: str, root: Path, split: str) -> Split:
    """Open a split of any data set with its strict reader."""
    if is_video(dataset):
        return _open_videos(dataset, root, split)
    images, files = load_images(root, dataset, split), 2
    if dataset.startswith("coco"):
        skipped, files = len(list((root / split).iterdir())) - len(images), 1  # the reader compared folder and JSON
        crowds = sum(item.crowd for image in images for item in image.objects)
        counts = {"skipped_unannotated": skipped, "crowds": crowds}
    else:
        defects = still_images.known_defects(root, dataset).items()
        skipped = sum(file.startswith(f"{split}/") and text.endswith(still_images.LEFT_OUT) for file, text in defects)
        counts = {"left_out": skipped} if skipped else {}
    counts |= {"images": len(images) + skipped, "objects": sum(len(image.objects) for image in images)}
    chunks = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
    return Split(counts, [(partial(_check_images, chunk), files * len(chunk)) for chunk in chunks])


def _open_videos(dataset: str, root: Path, split: str) -> Split:
    videos, check = open_videos(root, dataset, split), partial(youtube_vos.check_objects, split=split)
    if layout_of(dataset) != "youtube-vos":
        check = _count_later_objects
    counts = {
        "videos": len(videos),
        "frames": sum(len(video.frames) for video in videos),
        "masks": sum(len(video.labelled) for video in videos),
        "objects": sum(len(video.first_seen) for video in videos),
    }
    tasks = [(partial(_check_video, video, check), len(video.frames) + len(video.labelled)) for video in videos]
    return Split(counts, tasks)


def _check_images(images: list[StillImage]) -> dict[str, int]:
    empty = 0
    for image in images:
        image.read()
        image.void()
        empty += sum(not item.mask(image.height, image.width).any() for item in image.objects)
    return {"empty_masks": empty}


def _check_video(video: Video, check: Callable[[Video], int]) -> dict[str, int]:
    for frame in video.frames:
        video.frame(frame)
    return {"objects_not_on_first_frame": check(video)}


def _count_later_objects(video: Video) -> int:
    return len({i for frame in video.labelled for i in object_ids(video.labels(frame))} - set(video.first_seen))


def check_archives(dataset: str, archives: Path) -> dict[str, str]:
    """Return archive -> sha256, compared with what `fetch` recorded; archives beside the required ones come last."""
    if not (archives / RECORD).is_file():
        raise HodorError(f"{archives / RECORD}: no such file; fetch {dataset} first")
    recorded = read_json(archives / RECORD)
    known = {}
    for name in [*ARCHIVES[dataset], *sorted(set(recorded) - set(ARCHIVES[dataset]))]:
        path = archives / name
        if not path.is_file() or not isinstance(recorded.get(name), dict):
            raise HodorError(f"{path}: missing archive; fetch {dataset} again")
        known[name] = sha256_file(path)
        if known[name] != recorded[name].get("sha256"):
            raise HodorError(f"{path}: differs from what was fetched (sha256); delete it and fetch {dataset} again")
    return known


def _in_processes(tasks: Iterable[Callable[[], Any]], jobs: int) -> Iterator[Any]:
    """Yield the result of every task in order, from `jobs` processes; HodorError if one is killed."""
    if jobs < 2:
        yield from map(operator.call, tasks)
        return
    # Not fork: locks of the caller's threads would stay locked in a forked child.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(operator.call, tasks)
        except BrokenProcessPool as error:
            raise HodorError("a process was killed (out of memory?); give it fewer `jobs`") from error
