"""Writers of synthetic videos and images as archives of the official layouts."""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from hodor.config.datasets import ARCHIVES, GeneratedOptions
from hodor.data.images import encode_labels
from hodor.data.synthetic.objects import KINDS
from hodor.data.synthetic.scene import CROWD, Scene, SceneSpec, draw_scene
from hodor.errors import HodorError

# Split -> its world and the option with its number of images or videos.
SPLITS = {
    "coco-train2017": ("train", "coco_train"),
    "coco-val2017": ("train", "coco_val"),
    "davis-train": ("train", "davis_train"),
    "davis-val": ("test", "davis_val"),
    "davis-test-dev": ("test", "davis_test_dev"),
    "youtube-vos-train": ("train", "youtube_train"),
    "youtube-vos-valid": ("test", "youtube_valid"),
}

CATEGORY_IDS = {name: id for id, name in enumerate((*KINDS, "crowd"), start=1)}

Add = Callable[[str, bytes], None]  # adds a member, by its name and content, to an archive

_INFO = dict.fromkeys(("description", "url", "version", "contributor", "date_created"), "synthetic") | {"year": 2017}
_LICENSES = [{"url": "http://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "Public domain or CC0"}]
_UNKNOWN = {"license": 1, "coco_url": "", "date_captured": "2020-01-01 00:00:00", "flickr_url": ""}
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_FINE = 4  # subdivisions of a pixel for tracing polygons


def generate(dataset: str, options: GeneratedOptions, out: Path) -> list[Path]:
    """Write the archives of "coco", "davis", "davis2016" or "youtube-vos"; return their paths.

    HodorError for another data set, a folder that cannot be written, or options that leave objects no room.
    """
    writers = {"coco": _write_coco, "davis": _write_davis, "davis2016": _write_davis2016, "youtube-vos": _write_youtube}
    if dataset not in writers:
        raise HodorError(f"no generated data for {dataset!r}; the data sets are {', '.join(writers)}")
    writers[dataset](options, Path(out))
    ground_truth = ["valid_truth.zip"] if dataset == "youtube-vos" else []
    return [Path(out) / name for name in (*ARCHIVES[dataset], *ground_truth)]


def draw_split(split: str, options: GeneratedOptions) -> Iterator[Scene]:
    """Draw the scenes of a split of `SPLITS`, each from its own random stream."""
    drawn = 0
    for index in range(getattr(options, SPLITS[split][1])):
        spec = _plan(split, options, index, drawn)
        drawn += len(spec.kinds)
        yield draw_scene(_stream(split, options, index), spec)


def _stream(split: str, options: GeneratedOptions, *place: int) -> np.random.Generator:
    key = (list(SPLITS).index(split), *place)
    return np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=key))


def _plan(split: str, options: GeneratedOptions, index: int, drawn: int) -> SceneSpec:
    """Plan scene `index` of a split, after scenes with `drawn` objects; a split of ten videos has all events."""
    coco, youtube = split.startswith("coco"), split.startswith("youtube")
    fewest, most = options.coco_objects if coco else options.objects
    count = most - index % (most - fewest + 1)
    sizes, frames = [options.davis_size], options.davis_frames
    kinds, late = KINDS, False
    if coco:
        sizes, frames = options.coco_sizes, 2
        count = 0 if index % 40 == 3 else count
    elif youtube:
        sizes, frames = options.youtube_sizes, options.youtube_frames
        late = index % 2 == 1 and most > 1 and frames >= 4
        count = max(count, 2) if late else count
        if split == "youtube-vos-train":
            kinds = ("blob", "walker", "blob", "walker", "worm")  # no star; few worms, which are of the hold-out
    height, width = sizes[index % len(sizes)]
    return SceneSpec(
        world=SPLITS[split][0],
        height=height,
        width=width,
        frames=frames,
        kinds=tuple(kinds[(drawn + i) % len(kinds)] for i in range(count)),
        distractors=(0, 1, 0, 2, 0)[index % 5],
        crossing=index % 2 == 0,
        leaving=index % 4 == (2 if youtube else 1),
        late=late,
        crowd=coco and index % 12 == 5,
        light_change=index % 2 == 1,
        exposure=0.0 if index % 4 else 0.2 if youtube else 0.6,  # YouTube-VOS stores every 5th frame
    )


@contextmanager
def _new_archive(path: Path) -> Iterator[Add]:
    """Open an archive for writing; its bytes depend only on its members: no times, no compression."""

    def add(name: str, content: bytes) -> None:
        info = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
        info.create_system = 3  # Unix, on every system
        info.external_attr = 0o100644 << 16
        archive.writestr(info, content)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            yield add
    except OSError as error:
        raise HodorError(
            f"{path}: cannot be written ({error.strerror or error}); make room or name another folder"
        ) from error


def _encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encode RGB or grey pixels as JPEG, colours at full resolution because frames are small."""
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return cv2.imencode(".jpg", pixels, _JPEG)[1].tobytes()


def _write_coco(options: GeneratedOptions, out: Path) -> None:
    counts = {"train2017": options.coco_train, "val2017": options.coco_val}
    # The ids of both splits are drawn from one range, as COCO's are.
    ids = _stream("coco-train2017", options, 0, 1).choice(600_000, sum(counts.values()), replace=False) + 1
    categories = [{"supercategory": "synthetic", "id": i, "name": name} for name, i in CATEGORY_IDS.items()]
    documents, next_id = {}, 1000
    for split, count in counts.items():
        own, ids = np.sort(ids[:count]), ids[count:]
        images, annotations = [], []
        with _new_archive(out / f"{split}.zip") as add:
            for index, scene in enumerate(draw_split(f"coco-{split}", options)):
                image = {"file_name": f"{own[index]:012d}.jpg", "id": int(own[index])}
                image |= {"height": scene.spec.height, "width": scene.spec.width}
                pixels, labels = scene.render(0)
                pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if index % 40 == 7 else pixels
                add(f"{split}/{image['file_name']}", _encode_jpeg(pixels))
                images.append(_UNKNOWN | image)
                for entry in annotate(labels, scene.categories):
                    annotations.append(entry | {"image_id": image["id"], "id": next_id})
                    next_id += 1
        document = {"info": _INFO, "licenses": _LICENSES, "images": images}
        document |= {"annotations": annotations, "categories": categories}
        documents[f"annotations/instances_{split}.json"] = document
    with _new_archive(out / "annotations_trainval2017.zip") as add:
        for name, document in documents.items():
            add(name, json.dumps(document).encode())


def annotate(labels: np.ndarray, kinds: dict[int, str]) -> list[dict]:
    """Return COCO annotations of labels, uint8 (H, W), without ids: polygons of objects, run lengths of a crowd."""
    entries = []
    for label, category in (*kinds.items(), (CROWD, "crowd")):
        mask = (labels == label).astype(np.uint8)
        segmentation = run_lengths(mask) if label == CROWD else trace_polygons(mask)
        if segmentation and mask.any():
            entry = {"segmentation": segmentation, "area": int(mask.sum()), "iscrowd": int(label == CROWD)}
            entries.append(entry | {"bbox": list(cv2.boundingRect(mask)), "category_id": CATEGORY_IDS[category]})
    return entries


def trace_polygons(mask: np.ndarray) -> list[list[float]]:
    """Return outlines `[x0, y0, x1, y1, ...]` of the parts of a mask, uint8 (H, W) of 0 and 1, without holes."""
    size = (mask.shape[1] * _FINE, mask.shape[0] * _FINE)
    fine = cv2.resize(mask * 255, size, interpolation=cv2.INTER_LINEAR_EXACT)
    contours, _ = cv2.findContours((fine > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        contour = cv2.approxPolyDP(contour, 0.3 * _FINE, True)[:, 0]
        if len(contour) >= 3 and cv2.contourArea(contour) >= 4 * _FINE**2:  # parts of 4 pixels and more
            polygons.append(np.round((contour + 0.5) / _FINE, 2).ravel().tolist())
    return polygons


def run_lengths(mask: np.ndarray) -> dict:
    """Return uncompressed run lengths of a mask (H, W) of 0 and 1: down the columns, the first of background."""
    flat = np.concatenate(([0], mask.ravel(order="F"), [1 - mask[-1, -1]]))
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return {"counts": np.diff(ends, prepend=0).tolist(), "size": list(mask.shape)}


def _write_davis(options: GeneratedOptions, out: Path) -> None:
    archives = {"DAVIS-2017-trainval-480p.zip": ("train", "val"), "DAVIS-2017-test-dev-480p.zip": ("test-dev",)}
    for name, splits in archives.items():
        with _new_archive(out / name) as add:
            for split in splits:
                frames = _add_davis_frames(add, split, options)
                videos = dict.fromkeys(Path(frame).parent.name for frame in frames)
                add(f"DAVIS/ImageSets/2017/{split}.txt", "".join(f"{video}\n" for video in videos).encode())


def _write_davis2016(options: GeneratedOptions, out: Path) -> None:
    with _new_archive(out / "DAVIS-data.zip") as add:
        for split in ("train", "val"):
            frames = _add_davis_frames(add, split, options, foreground=True)
            lines = [f"/JPEGImages/{frame}.jpg /Annotations/{frame}.png\n" for frame in frames]
            add(f"DAVIS/ImageSets/480p/{split}.txt", "".join(lines).encode())


def _add_davis_frames(add: Add, split: str, options: GeneratedOptions, foreground: bool = False) -> list[str]:
    """Add the frames and masks of a split; return `480p/<sequence>/<frame>` of each."""
    frames = []
    for number, scene in enumerate(draw_split(f"davis-{split}", options)):
        for time in range(scene.spec.frames):
            pixels, labels = scene.render(time)
            labels = np.where(labels, 255, 0).astype(np.uint8) if foreground else labels
            frames.append(f"480p/{split}-{number:03d}/{time:05d}")
            add(f"DAVIS/JPEGImages/{frames[-1]}.jpg", _encode_jpeg(pixels))
            add(f"DAVIS/Annotations/{frames[-1]}.png", encode_labels(labels))
    return frames


def _write_youtube(options: GeneratedOptions, out: Path) -> None:
    with _new_archive(out / "train.zip") as add:
        _add_youtube_videos(add, add, "train", "train", options)
    with _new_archive(out / "valid.zip") as add, _new_archive(out / "valid_truth.zip") as add_truth:
        _add_youtube_videos(add, add_truth, "valid", "valid_truth", options)


def _add_youtube_videos(add: Add, add_all: Add, split: str, truth: str, options: GeneratedOptions) -> None:
    """Add the videos of a split; `add_all` and `truth`: archive and folder of all masks, with a meta.json of their own.

    An object appears in the first frame that shows a fifth of its greatest visible area; slivers before that are
    background. As officially, its frames are all from that one on, visible or not.
    """
    count = getattr(options, SPLITS[f"youtube-vos-{split}"][1])
    numbers = _stream(f"youtube-vos-{split}", options, 0, 1).choice(16**10, count, False)
    meta: dict[str, dict] = {split: {}, truth: {}}
    for number, scene in zip(sorted(numbers), draw_split(f"youtube-vos-{split}", options), strict=True):
        video, labels = f"{number:010x}", {}
        for time in range(scene.spec.frames):
            frame = f"{5 * time:05d}"  # every 5th frame of 30 a second, named by its number in the source
            pixels, labels[frame] = scene.render(time)
            add(f"{split}/JPEGImages/{video}/{frame}.jpg", _encode_jpeg(pixels))
        objects = {}
        for label in scene.categories:
            areas = {frame: np.count_nonzero(mask == label) for frame, mask in labels.items()}
            first = next(frame for frame, area in areas.items() if 5 * area >= max(areas.values()))
            objects[label] = [frame for frame in labels if frame >= first]
        for frame, mask in labels.items():
            mask[~np.isin(mask, [label for label in objects if frame in objects[label]])] = 0
            add_all(f"{truth}/Annotations/{video}/{frame}.png", encode_labels(mask))
            new = [label for label in objects if objects[label][0] == frame]
            if new and truth != split:
                shown = np.where(np.isin(mask, new), mask, 0).astype(np.uint8)
                add(f"{split}/Annotations/{video}/{frame}.png", encode_labels(shown))
        for folder, categories in ((split, dict.fromkeys(objects)), (truth, scene.categories)):
            entries = {str(i): {"category": categories[i], "frames": frames} for i, frames in objects.items()}
            meta[folder][video] = {"objects": entries}
    for folder, to in {split: add, truth: add_all}.items():
        to(f"{folder}/meta.json", json.dumps({"videos": meta[folder]}).encode())
