"""Generated data in the official archive layouts of COCO, DAVIS-2017, DAVIS-2016 and YouTube-VOS.

Everything that reads real archives reads these. Textures come from photographs that scikit-image ships
(`generated_textures`), split into two worlds that share no photograph and no seed:

| archive | world | holds |
|---|---|---|
| `train2017.zip`, `val2017.zip`, `annotations_trainval2017.zip` | train | images, some grey, some not annotated |
| `DAVIS-2017-trainval-480p.zip` | train: train, val: test | every frame and its mask |
| `DAVIS-2017-test-dev-480p.zip` | test | the same |
| `train.zip` | train | every 5th frame of 30 a second, their masks, meta.json with categories |
| `valid.zip` | test | the same, masks only where an object appears first, categories null |
| `valid_truth.zip` | test | the masks of all stored frames of `valid.zip`, meta.json with categories |
| `DAVIS-data.zip` | as DAVIS-2017 | DAVIS-2016: the same videos with masks of 0 and 255 |

Differences from the official archives, all on purpose: test-dev has the masks of every frame (officially the
first alone) and `valid_truth.zip` is ours, both so that they can be scored; frames are small (the folder is `480p`
nevertheless); COCO's categories are the kinds of generated bodies, of which YouTube-VOS train lacks one, so that
valid has seen and unseen categories; the foreground of DAVIS-2016 is the union of the objects. A mask holds the
visible pixels of the labelled objects; distractors and poles are background. The same options give the same bytes,
whatever the number of threads.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hodor.config.generated import GeneratedOptions
from hodor.data.generated_archives import Archive, encode_jpeg, new_archive
from hodor.data.generated_coco import CATEGORIES, INFO, LICENSES, annotate, image_entry
from hodor.data.generated_layout import SceneSpec
from hodor.data.generated_objects import KINDS, UNSEEN_KIND
from hodor.data.generated_scenes import APPEARED, Scene, draw_scene
from hodor.data.generated_textures import Backdrop, Look, TextureBank
from hodor.data.images import encode_labels
from hodor.errors import HodorError

YOUTUBE_STEP = 5
"""YouTube-VOS stores every 5th frame of 30 a second, and names frames by their number in the source."""

_STILL_FRAMES = 6  # an image is the first frame of a video of this length, which gives it motion blur


@dataclass(frozen=True)
class Split:
    """A split of a generated data set: its world, its number among the random streams, the option of its size."""

    dataset: str
    world: str
    stream: int
    count: str


SPLITS = {
    "coco-train2017": Split("coco", "train", 0, "coco_train"),
    "coco-val2017": Split("coco", "train", 1, "coco_val"),
    "davis-train": Split("davis", "train", 2, "davis_train"),
    "davis-val": Split("davis", "test", 3, "davis_val"),
    "davis-test-dev": Split("davis", "test", 4, "davis_test_dev"),
    "youtube-vos-train": Split("youtube-vos", "train", 5, "youtube_train"),
    "youtube-vos-valid": Split("youtube-vos", "test", 6, "youtube_valid"),
}


def generate(dataset: str, options: GeneratedOptions, out: Path) -> list[Path]:
    """Writes the archives of a data set.

    Args:
        dataset: "coco", "davis", "davis2016" or "youtube-vos".
        out: folder that gets them; made where absent. Older archives of the same names are replaced.

    Returns:
        The archives' paths.

    Raises:
        HodorError: unknown data set; a disk that cannot be written; options that no scene fulfils.
    """
    writers = {
        "coco": _write_coco,
        "davis": _write_davis,
        "davis2016": _write_davis2016,
        "youtube-vos": _write_youtube_vos,
    }
    if dataset not in writers:
        raise HodorError(f"no generated data for {dataset!r}; the data sets are {', '.join(writers)}")
    # One thread: faster for frames this small, and other jobs run beside this one.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return writers[dataset](options, Path(out))
    finally:
        cv2.setNumThreads(threads)


def scenes(split: str, options: GeneratedOptions, bank: TextureBank) -> Iterator[Scene]:
    """The scenes of a split (a key of `SPLITS`), each from its own random stream; `bank` is of the split's world."""
    for index in range(getattr(options, SPLITS[split].count)):
        rng = _stream(split, options, index)
        yield draw_scene(rng, bank, _spec(split, options, index, rng), options)


def textures_drawn(split: str, options: GeneratedOptions) -> set[Look | Backdrop]:
    """All that the textures of a split are made from: photographs, crops, seeds, colours."""
    bank = TextureBank(SPLITS[split].world, options)
    for _ in scenes(split, options, bank):
        pass
    return bank.drawn


def _stream(split: str, options: GeneratedOptions, *place: int) -> np.random.Generator:
    """A random stream; those of two worlds differ in the first number of the key."""
    world = ("train", "test").index(SPLITS[split].world)
    return np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(world, SPLITS[split].stream, *place)))


def _spec(split: str, options: GeneratedOptions, index: int, rng: np.random.Generator) -> SceneSpec:
    area = options.first_area
    if split.startswith("coco"):
        height, width = options.coco_sizes[index % len(options.coco_sizes)]
        objects = _count(rng, options.coco_objects)
        return SceneSpec(
            height,
            width,
            frames=_STILL_FRAMES,
            objects=objects if index % 40 != 3 else 0,
            least_area=0.25 * area,
            areas=(1.3 * area, 7 * area),
            crowd=index % 12 == 5,
            exposure=0.9,
        )
    areas = (1.6 * area, 5 * area)
    objects = _count(rng, options.objects)
    if split.startswith("davis"):
        height, width = options.davis_size
        return SceneSpec(height, width, options.davis_frames, objects, area, areas)
    height, width = options.youtube_sizes[index % len(options.youtube_sizes)]
    # Spread evenly instead of by chance, so that few videos hold such an object too.
    room = options.objects[1] > 1 and options.youtube_frames >= 4
    late = room and int((index + 1) * options.later) > int(index * options.later)
    objects = max(objects, 2) if late else objects
    seen = tuple(kind for kind in KINDS if kind != UNSEEN_KIND)
    kinds = seen if split == "youtube-vos-train" else KINDS
    # The shutter opens for a share of a source frame, and of these every 5th is stored.
    return SceneSpec(height, width, options.youtube_frames, objects, area, areas, late=late, exposure=0.2, kinds=kinds)


def _count(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    """A number of objects, small ones more often (1 to 4: 2.1 on average; DAVIS-2017 val has 2.03)."""
    low, high = bounds
    return low + int((high - low + 1) * rng.random() ** 1.6)


# --- COCO


def _write_coco(options: GeneratedOptions, out: Path) -> list[Path]:
    counts = {"train2017": options.coco_train, "val2017": options.coco_val}
    # Ids of both splits lie among each other, as COCO's do.
    ids = _stream("coco-train2017", options, 0, 1).choice(600_000, sum(counts.values()), replace=False) + 1
    paths, documents, next_id = [], {}, 1000
    for split, count in counts.items():
        own, ids = np.sort(ids[:count]), ids[count:]
        document = {
            "info": INFO,
            "licenses": LICENSES,
            "images": [],
            "annotations": [],
            "categories": CATEGORIES,
        }
        paths.append(out / f"{split}.zip")
        with new_archive(paths[-1]) as archive:
            name = f"coco-{split}"
            for index, scene in enumerate(scenes(name, options, TextureBank(SPLITS[name].world, options))):
                image_id = int(own[index])
                pixels, labels = scene.render(0)
                if index % 40 == 7:  # a photograph in grey
                    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
                archive.add(f"{split}/{image_id:012d}.jpg", encode_jpeg(pixels, options.jpeg_quality))
                entries = annotate(labels, scene.kinds, image_id, next_id)
                next_id += len(entries)
                document["images"].append(image_entry(image_id, *labels.shape))
                document["annotations"] += entries
        documents[f"annotations/instances_{split}.json"] = document
    paths.append(out / "annotations_trainval2017.zip")
    with new_archive(paths[-1]) as archive:
        for name, document in documents.items():
            archive.add(name, json.dumps(document).encode())
    return paths


# --- DAVIS


def _write_davis(options: GeneratedOptions, out: Path) -> list[Path]:
    archives = {
        "DAVIS-2017-trainval-480p.zip": ("train", "val"),
        "DAVIS-2017-test-dev-480p.zip": ("test-dev",),
    }
    for archive_name, splits in archives.items():
        with new_archive(out / archive_name) as archive:
            for split in splits:
                name = f"davis-{split}"
                videos = []
                for scene in scenes(name, options, TextureBank(SPLITS[name].world, options)):
                    videos.append(f"{split}-{len(videos):03d}")
                    for time in range(scene.spec.frames):
                        pixels, labels = scene.render(time)
                        place = f"480p/{videos[-1]}/{time:05d}"
                        archive.add(f"DAVIS/JPEGImages/{place}.jpg", encode_jpeg(pixels, options.jpeg_quality))
                        archive.add(f"DAVIS/Annotations/{place}.png", encode_labels(labels))
                content = "".join(f"{video}\n" for video in videos)
                archive.add(f"DAVIS/ImageSets/2017/{split}.txt", content.encode())
    return [out / name for name in archives]


def _write_davis2016(options: GeneratedOptions, out: Path) -> list[Path]:
    path = out / "DAVIS-data.zip"
    with new_archive(path) as archive:
        for split in ("train", "val"):
            name, lines = f"davis-{split}", []
            for number, scene in enumerate(scenes(name, options, TextureBank(SPLITS[name].world, options))):
                for time in range(scene.spec.frames):
                    pixels, labels = scene.render(time)
                    place = f"480p/{split}-{number:03d}/{time:05d}"
                    foreground = np.where(labels > 0, 255, 0).astype(np.uint8)
                    archive.add(f"DAVIS/JPEGImages/{place}.jpg", encode_jpeg(pixels, options.jpeg_quality))
                    archive.add(f"DAVIS/Annotations/{place}.png", encode_labels(foreground))
                    lines.append(f"/JPEGImages/{place}.jpg /Annotations/{place}.png\n")
            archive.add(f"DAVIS/ImageSets/480p/{split}.txt", "".join(lines).encode())
    return [path]


# --- YouTube-VOS


def _write_youtube_vos(options: GeneratedOptions, out: Path) -> list[Path]:
    with new_archive(out / "train.zip") as archive:
        meta = {}
        for name, scene in _youtube_videos("train", options):
            labels, first_seen = _write_frames(archive, "train", name, scene, options)
            for time, frame_labels in enumerate(labels):
                archive.add(f"train/Annotations/{name}/{_frame(time)}.png", encode_labels(frame_labels))
            meta[name] = _video_entry(first_seen, scene.kinds, scene.spec.frames)
        archive.add("train/meta.json", _meta(meta))
    with new_archive(out / "valid.zip") as archive, new_archive(out / "valid_truth.zip") as truth:
        meta, known = {}, {}
        for name, scene in _youtube_videos("valid", options):
            labels, first_seen = _write_frames(archive, "valid", name, scene, options)
            for time, frame_labels in enumerate(labels):
                place = f"Annotations/{name}/{_frame(time)}.png"
                truth.add(f"valid_truth/{place}", encode_labels(frame_labels))
                new = [label for label, first in first_seen.items() if first == time]
                if new:
                    only_new = np.where(np.isin(frame_labels, new), frame_labels, 0).astype(np.uint8)
                    archive.add(f"valid/{place}", encode_labels(only_new))
            meta[name] = _video_entry(first_seen, dict.fromkeys(scene.kinds), scene.spec.frames)
            known[name] = _video_entry(first_seen, scene.kinds, scene.spec.frames)
        archive.add("valid/meta.json", _meta(meta))
        truth.add("valid_truth/meta.json", _meta(known))
    return [out / "train.zip", out / "valid.zip", out / "valid_truth.zip"]


def _youtube_videos(split: str, options: GeneratedOptions) -> Iterator[tuple[str, Scene]]:
    """(name, scene) of each video; names are 10 hexadecimal digits, as YouTube-VOS's are."""
    key = f"youtube-vos-{split}"
    count = getattr(options, SPLITS[key].count)
    names = sorted(f"{number:010x}" for number in _stream(key, options, 0, 1).choice(16**10, count, replace=False))
    yield from zip(names, scenes(key, options, TextureBank(SPLITS[key].world, options)), strict=True)


def _write_frames(
    archive: Archive, split: str, name: str, scene: Scene, options: GeneratedOptions
) -> tuple[list[np.ndarray], dict[int, int]]:
    """Adds a video's frames. Returns the label map of each and, for every object, the time it appears first.

    An object appears once enough of it is visible; the slivers before that are background.
    """
    labels = []
    for time in range(scene.spec.frames):
        pixels, frame_labels = scene.render(time)
        labels.append(frame_labels)
        archive.add(f"{split}/JPEGImages/{name}/{_frame(time)}.jpg", encode_jpeg(pixels, options.jpeg_quality))
    least = APPEARED * scene.spec.least_area * scene.spec.height * scene.spec.width
    first_seen = {}
    for label in scene.kinds:
        areas = [np.count_nonzero(frame_labels == label) for frame_labels in labels]
        first_seen[label] = next(time for time, area in enumerate(areas) if area >= least)
        for frame_labels in labels[: first_seen[label]]:
            frame_labels[frame_labels == label] = 0
    return labels, first_seen


def _frame(time: int) -> str:
    return f"{YOUTUBE_STEP * time:05d}"


def _video_entry(first_seen: dict[int, int], categories: dict[int, str | None], frames: int) -> dict:
    """An entry of `videos` in meta.json; as officially, an object's frames are all from its first, visible or not."""
    return {
        "objects": {
            str(label): {
                "category": categories[label],
                "frames": [_frame(time) for time in range(first, frames)],
            }
            for label, first in first_seen.items()
        }
    }


def _meta(videos: dict) -> bytes:
    return json.dumps({"videos": videos}).encode()
