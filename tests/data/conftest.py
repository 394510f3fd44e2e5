"""Tiny data sets in the three official layouts, for tests to break one thing at a time."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from PIL import Image

from hodor.config.datasets import ARCHIVES
from hodor.data.fetch import fetch
from hodor.data.images import write_labels
from hodor.data.prepare import prepare

SIZE = (24, 40)


def write_frame(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def labels_with(*ids: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Background with one 4x4 square of each id."""
    labels = np.zeros(size, np.uint8)
    for place, i in enumerate(ids):
        labels[2:6, 2 + 5 * place : 6 + 5 * place] = i
    return labels


@pytest.fixture
def draw() -> SimpleNamespace:
    """The writers of the data sets below: `frame(path, seed, size)`, `labels(*ids, size)`, and their `size`."""
    return SimpleNamespace(frame=write_frame, labels=labels_with, size=SIZE)


@pytest.fixture
def davis_root(tmp_path) -> Path:
    """train: bear (1 object, 3 frames). val: swan (2 objects, void, 3 frames). test-dev: plane (first mask alone)."""
    root = tmp_path / "davis"
    base = root / "DAVIS"
    (base / "ImageSets" / "2017").mkdir(parents=True)
    for split, name, ids in (("train", "bear", (1,)), ("val", "swan", (1, 2)), ("test-dev", "plane", (1, 2))):
        (base / "ImageSets" / "2017" / f"{split}.txt").write_text(f"{name}\n")
        for number in range(3):
            write_frame(base / "JPEGImages" / "480p" / name / f"{number:05d}.jpg", seed=number)
            if split != "test-dev" or number == 0:
                shown = (*ids, 255) if number == 2 else ids
                write_labels(base / "Annotations" / "480p" / name / f"{number:05d}.png", labels_with(*shown))
    return root


@pytest.fixture
def youtube_root(tmp_path) -> Path:
    """train: one video, ids 2 and 3, the second from frame 00015 on. valid: one video, masks on first frames alone."""
    root = tmp_path / "youtube-vos"
    frames = ["00005", "00010", "00015", "00020"]
    for split, category in (("train", "penguin"), ("valid", None)):
        video = {"train": "aa11", "valid": "bb22"}[split]
        objects = {
            "2": {"category": category, "frames": frames},
            "3": {"category": category, "frames": frames[2:]},
        }
        for number, frame in enumerate(frames):
            write_frame(root / split / "JPEGImages" / video / f"{frame}.jpg", seed=number)
            if split == "train" or frame in ("00005", "00015"):
                ids = (2,) if number < 2 else (2, 3)
                write_labels(root / split / "Annotations" / video / f"{frame}.png", labels_with(*ids))
        (root / split / "meta.json").write_text(json.dumps({"videos": {video: {"objects": objects}}}))
    return root


@pytest.fixture
def coco_root(tmp_path) -> Path:
    """train2017: a colour image (polygon, crowd), a grayscale one (compressed run lengths), one without annotation.
    val2017: one image."""
    root = tmp_path / "coco"
    height, width = SIZE
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": height, "width": width, "license": 1} for i in (9, 86, 250)
    ]
    square = [4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]
    entry = {"image_id": 9, "category_id": 18, "bbox": [4, 4, 8, 8], "area": 64.0, "iscrowd": 0}
    crowd = {"size": [height, width], "counts": [height * 10, height * 5, height * (width - 15)]}
    annotations = [
        entry | {"id": 1, "segmentation": [square]},
        entry | {"id": 2, "segmentation": crowd, "iscrowd": 1, "area": 120, "bbox": [10, 0, 5, height]},
        entry | {"id": 3, "segmentation": [square, [20, 2, 24, 2, 22, 6]], "image_id": 86},
    ]
    categories = [{"id": 18, "name": "dog", "supercategory": "animal"}]
    contents = {
        "train2017": {"images": images, "annotations": annotations, "categories": categories},
        "val2017": {"images": images[:1], "annotations": annotations[:1], "categories": categories},
    }
    (root / "annotations").mkdir(parents=True)
    for split, content in contents.items():
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            write_frame(root / split / image["file_name"], seed=image["id"])
    gray = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    Image.fromarray(gray, mode="L").save(root / "train2017" / "000000000086.jpg", quality=95)
    return root


# Data sets of images


def scene(*squares: tuple[int, int, int, int], size=SIZE, void=()) -> np.ndarray:
    """Labels uint8 (H, W): object i + 1 fills the box (top, bottom, left, right) `squares[i]`; void boxes are 255."""
    labels = np.zeros(size, np.uint8)
    for i, (top, bottom, left, right) in enumerate(squares):
        labels[top:bottom, left:right] = i + 1
    for top, bottom, left, right in void:
        labels[top:bottom, left:right] = 255
    return labels


SCENE = scene((2, 12, 3, 13), (10, 20, 20, 34), void=[(1, 2, 3, 13)])

# Colours of the labels of `coloured`.
PALETTE = np.array(
    [[40, 40, 40], [220, 30, 30], [30, 30, 220], [30, 200, 30], [220, 220, 30], [220, 30, 220]], np.uint8
)


def coloured(labels: np.ndarray) -> np.ndarray:
    """An image from which the labels can be read off; void looks like background."""
    return PALETTE[np.where(labels == 255, 0, labels)]


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def write_pair(image: Path, mask: Path, labels: np.ndarray) -> None:
    """A JPEG and the grey mask of all objects of `labels`."""
    write_image(image, coloured(labels))
    write_image(mask, np.where((labels > 0) & (labels < 255), 255, 0).astype(np.uint8))


def write_ecssd(root: Path, count: int = 2, labels: np.ndarray = SCENE) -> None:
    for i in range(count):
        write_pair(root / "images" / f"{i:04d}.jpg", root / "ground_truth_mask" / f"{i:04d}.png", labels)


def write_msra10k(root: Path, count: int = 2, labels: np.ndarray = SCENE) -> None:
    for i in range(count):
        path = root / "MSRA10K_Imgs_GT" / "Imgs" / f"{i}.jpg"
        write_pair(path, path.with_suffix(".png"), labels)
    (root / "MSRA10K_Imgs_GT" / "Readme.txt").write_text("Saliency")


def write_stcn_static(root: Path, labels: np.ndarray = SCENE) -> None:
    names = ["fss/cat/1", "fss/cat/2", "fss/dog/1", *(f"{s}/a" for s in ("DUTS-TR", "DUTS-TE", "ecssd", "BIG_small"))]
    for name in [*names, "HRSOD_small/b.2"]:
        write_pair(root / f"{name}.jpg", root / f"{name}.png", labels)


def write_voc2012(root: Path, *scenes: np.ndarray) -> None:
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    names = [f"2007_{i:06d}" for i in range(len(scenes or (SCENE,)))]
    for name, labels in zip(names, scenes or (SCENE,), strict=True):
        write_image(base / "JPEGImages" / f"{name}.jpg", coloured(labels))
        write_labels(base / "SegmentationObject" / f"{name}.png", labels)
    write_image(base / "JPEGImages" / "2008_000001.jpg", coloured(SCENE))  # without segmentation
    for split, listed in (("train", names[:1]), ("val", names[1:]), ("trainval", names)):
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{n}\n" for n in listed))


def write_sbd(root: Path, labels: np.ndarray = SCENE) -> None:
    base = root / "benchmark_RELEASE" / "dataset"
    (base / "inst").mkdir(parents=True)
    for split, name in (("train", "2008_000002"), ("val", "2008_000003")):
        write_image(base / "img" / f"{name}.jpg", coloured(labels))
        content = {"Segmentation": np.where(labels == 255, 0, labels), "Categories": np.array([[3], [15]], np.uint8)}
        scipy.io.savemat(base / "inst" / f"{name}.mat", {"GTinst": content}, do_compression=True)
        (base / f"{split}.txt").write_text(f"{name}\n")


WRITERS = {
    "ecssd": write_ecssd,
    "msra10k": write_msra10k,
    "stcn-static": write_stcn_static,
    "voc2012": write_voc2012,
    "sbd": write_sbd,
}


@pytest.fixture(scope="session")
def files() -> SimpleNamespace:
    """Writers of tiny data sets of images: `WRITERS[dataset](root)` and what they are made of."""
    return SimpleNamespace(
        SIZE=SIZE,
        SCENE=SCENE,
        PALETTE=PALETTE,
        WRITERS=WRITERS,
        scene=scene,
        coloured=coloured,
        write_image=write_image,
        write_ecssd=write_ecssd,
        write_voc2012=write_voc2012,
    )


# Archives of the data sets above


def archive_of(dataset: str, name: Path) -> str:
    """The official archive that a file belongs to (DAVIS: sequence plane is in test-dev)."""
    if len(ARCHIVES[dataset]) == 1:
        return ARCHIVES[dataset][0]
    if dataset == "davis":
        test_dev = name.parent.name == "plane" or name.stem == "test-dev"
        return "DAVIS-2017-test-dev-480p.zip" if test_dev else "DAVIS-2017-trainval-480p.zip"
    return "annotations_trainval2017.zip" if name.parts[0] == "annotations" else f"{name.parts[0]}.zip"


def pack(root: Path, dataset: str, folder: Path, rename=str) -> None:
    """Pack an extracted data set into its official archives."""
    folder.mkdir(parents=True)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root)
        target = folder / archive_of(dataset, name)
        if target.suffix == ".zip":
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(zipfile.ZipInfo(rename(str(name))), path.read_bytes())
        elif not target.exists():
            with tarfile.open(target, "w:gz" if target.suffix == ".tgz" else "w") as archive:
                archive.add(root, ".")


@pytest.fixture
def make(tmp_path):
    """Packs an extracted data set into its official archives, fetches and prepares them; returns the manifest."""

    def run(dataset, root, edition="subset", rename=str, **settings):
        mirror, archives = tmp_path / "mirror", tmp_path / "archives" / dataset
        shutil.rmtree(mirror, ignore_errors=True)
        pack(root, dataset, mirror / dataset, rename)
        entries = [{"archive": name} for name in ARCHIVES[dataset]]
        origin = {"dataset": dataset, "edition": edition, "mirror": str(mirror), "archives": entries}
        fetch({"settings": origin}, archives)
        return again(dataset, edition, **settings)

    def again(dataset, edition="subset", **settings):
        out, manifest = tmp_path / "out" / dataset, tmp_path / "out" / f"{dataset}.json"
        stamp = {"settings": {"dataset": dataset, "edition": edition} | settings}
        prepare(stamp, tmp_path / "archives" / dataset, out, manifest)
        return json.loads(manifest.read_text())

    run.again = again
    return run
