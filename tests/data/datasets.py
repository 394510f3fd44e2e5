"""Writers of tiny data sets in their official layouts, and of their archives."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from hodor.config.datasets import ARCHIVES
from hodor.data.fetch import fetch
from hodor.data.images import write_labels

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


def write_davis(root: Path, split: str, masks: dict[str, list[np.ndarray]], frames: int | None = None) -> None:
    """Write a split of DAVIS-2017: of each sequence the first masks, and frames of noise (as many, or `frames`)."""
    base = root / "DAVIS"
    (base / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)
    (base / "ImageSets" / "2017" / f"{split}.txt").write_text("".join(f"{name}\n" for name in masks))
    for name, given in masks.items():
        for t in range(frames or len(given)):
            write_frame(base / "JPEGImages" / "480p" / name / f"{t:05d}.jpg", t, given[0].shape)
        for t, labels in enumerate(given):
            write_labels(base / "Annotations" / "480p" / name / f"{t:05d}.png", labels)


def write_coco(root: Path, split: str, images: dict[int, np.ndarray], annotations: list[dict]) -> None:
    """Write a split: images by id, and annotations, numbered from 1, of dogs."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    listed = []
    for i, pixels in images.items():
        listed.append({"id": i, "file_name": f"{i:012d}.jpg", "height": pixels.shape[0], "width": pixels.shape[1]})
        Image.fromarray(pixels).save(root / split / listed[-1]["file_name"], quality=95)
    common = {"category_id": 18, "iscrowd": 0}
    annotations = [common | {"id": number} | entry for number, entry in enumerate(annotations, 1)]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}]}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


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


# Archives of the data sets above


def archive_of(dataset: str, name: Path) -> str:
    """The official archive that a file belongs to (DAVIS: sequence plane is in test-dev)."""
    if name.name in ARCHIVES[dataset]:
        return name.name
    if len(ARCHIVES[dataset]) == 1:
        return ARCHIVES[dataset][0]
    if dataset == "davis":
        return ARCHIVES[dataset]["test-dev" in str(name) or name.parent.name == "plane"]
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
        elif target.name == path.name:
            shutil.copy(path, target)
        elif not target.exists():
            with tarfile.open(target, "w:gz" if target.suffix == ".tgz" else "w") as archive:
                archive.add(root, ".")


def fetch_packed(dataset: str, root: Path, folder: Path, edition: str = "subset", rename=str) -> None:
    """Pack an extracted data set and fetch its archives to `folder/archives/<dataset>`."""
    mirror = folder / "mirror"
    shutil.rmtree(mirror, ignore_errors=True)
    pack(root, dataset, mirror / dataset, rename)
    origin = {"dataset": dataset, "edition": edition, "mirror": str(mirror)}
    entries = [{"archive": name} for name in ARCHIVES[dataset]]
    fetch({"settings": origin | {"archives": entries}}, folder / "archives" / dataset)
