"""COCO 2017 instances in the official layout.

    train2017/<12 digits>.jpg   val2017/<12 digits>.jpg   annotations/instances_{train,val}2017.json

Segmentations are lists of polygons or, for crowds, uncompressed run lengths (compressed ones are read too). Facts of
the official files: some JPEGs are grayscale (they become RGB), some images have no annotation (skipped and counted),
crowd entries cover groups (flagged, never dropped here).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.data.images import read_rgb
from hodor.errors import HodorError

SPLITS = ("train2017", "val2017")


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Attributes:
        id: annotation id, unique in the file.
        category: name of the category, for example "person".
        area: pixels (of the segmentation, as COCO states it).
        bbox: x, y, width, height in pixels.
        crowd: covers a group of objects.
        segmentation: polygons, each float64 (2 * points,) as x, y, x, y, ..., or run lengths
            {"size": [H, W], "counts": list or str}.
    """

    id: int
    category: str
    area: float
    bbox: tuple[float, float, float, float]
    crowd: bool
    segmentation: tuple[np.ndarray, ...] | dict

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool (H, W), drawn by COCO's own code; a tiny object may cover no pixel."""
        from pycocotools import mask as coco_mask

        if isinstance(self.segmentation, dict):
            runs = self.segmentation
            if isinstance(runs["counts"], list):
                runs = coco_mask.frPyObjects(runs, height, width)
        else:
            polygons = [polygon.tolist() for polygon in self.segmentation]
            runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return coco_mask.decode(runs).astype(bool)


@dataclass(frozen=True)
class CocoImage:
    """One annotated image: `height` and `width` in pixels as the JSON states them, `objects` in the file's order."""

    id: int
    path: Path
    height: int
    width: int
    objects: tuple[CocoObject, ...]

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB; HodorError if the file is damaged or has another size than the JSON states."""
        return read_rgb(self.path, size=(self.height, self.width))

    def void(self) -> None:
        """COCO has no pixels without a decision."""


@dataclass(frozen=True)
class CocoSet:
    """The annotated images of a split, in the order of their ids, and how many had no annotation."""

    images: list[CocoImage]
    skipped_unannotated: int


def annotation_file(root: Path, split: str) -> Path:
    """The JSON file of a split."""
    return Path(root) / "annotations" / f"instances_{split}.json"


def load_coco(root: Path, split: str) -> CocoSet:
    """Opens a split: reads its JSON and lists its folder; decodes no image.

    Args:
        root: folder that holds `annotations/` and `<split>/`.
        split: "train2017" or "val2017".

    Raises:
        HodorError: the JSON is broken or incomplete, an annotation is for an unknown image, an image file is absent,
            or a file is in no entry.
    """
    if split not in SPLITS:
        raise HodorError(f"COCO has no split {split!r}; there are {', '.join(SPLITS)}")
    path, folder = annotation_file(root, split), Path(root) / split
    content = _read(path)
    if not folder.is_dir():
        raise HodorError(f"{folder}: no such folder; the images come in {split}.zip: fetch and prepare it")
    try:
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        images = {entry["id"]: _image(entry, folder) for entry in content["images"]}
        paths = {image.path for image in images.values()}
        if not len(paths) == len(images) == len(content["images"]):
            raise ValueError("two images have the same id or file_name")
        _compare_files(images, folder, path)
        objects: dict[int, list[CocoObject]] = {key: [] for key in images}
        seen = set()
        for entry in content["annotations"]:
            if entry["id"] in seen:
                raise ValueError(f"two annotations have the id {entry['id']}")
            seen.add(entry["id"])
            if entry["image_id"] not in images:
                raise ValueError(f"annotation {entry['id']} is for image {entry['image_id']}, which is not listed")
            objects[entry["image_id"]].append(_object(entry, categories, images[entry["image_id"]]))
    except KeyError as error:
        raise HodorError(f"{path}: incomplete, key {error} is missing; prepare the data set again") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise HodorError(f"{path}: broken ({error}); prepare the data set again") from error
    annotated = [
        CocoImage(image.id, image.path, image.height, image.width, tuple(objects[key]))
        for key, image in sorted(images.items())
        if objects[key]
    ]
    return CocoSet(annotated, skipped_unannotated=len(images) - len(annotated))


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; fetch and prepare the data set again") from None
    except (OSError, ValueError) as error:
        raise HodorError(f"{path}: broken JSON ({error}); prepare the data set again") from error
    if not isinstance(content, dict):
        raise HodorError(f"{path}: holds {type(content).__name__}, not a JSON object; prepare the data set again")
    return content


def _image(entry: dict, folder: Path) -> CocoImage:
    name, height, width = entry["file_name"], entry["height"], entry["width"]
    if not isinstance(entry["id"], int) or not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"image {entry['id']!r}: file_name {name!r} is no plain file name")
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"image {entry['id']}: height and width must be positive whole numbers")
    return CocoImage(entry["id"], folder / name, height, width, ())


def _compare_files(images: dict[int, CocoImage], folder: Path, path: Path) -> None:
    listed = {image.path.name for image in images.values()}
    files = {file.name for file in folder.iterdir()}
    if listed - files:
        name = min(listed - files)
        raise HodorError(
            f"{folder / name}: missing image, {path.name} lists it ({len(listed - files)} such); "
            "prepare the data set again"
        )
    if files - listed:
        name = min(files - listed)
        raise HodorError(
            f"{folder / name}: not listed in {path.name} ({len(files - listed)} such); prepare the data set again"
        )


def _object(entry: dict, categories: dict[int, str], image: CocoImage) -> CocoObject:
    name = f"annotation {entry['id']}"
    if entry["category_id"] not in categories:
        raise ValueError(f"{name}: category {entry['category_id']} is not listed")
    bbox, area = tuple(map(float, entry["bbox"])), float(entry["area"])
    if len(bbox) != 4 or not all(map(math.isfinite, (*bbox, area))):
        raise ValueError(f"{name}: bbox must be four finite numbers and area one")
    if entry["iscrowd"] not in (0, 1):
        raise ValueError(f"{name}: iscrowd must be 0 or 1")
    return CocoObject(
        id=entry["id"],
        category=categories[entry["category_id"]],
        area=area,
        bbox=bbox,
        crowd=bool(entry["iscrowd"]),
        segmentation=_segmentation(name, entry["segmentation"], image),
    )


def _segmentation(name: str, segmentation: list | dict, image: CocoImage) -> tuple[np.ndarray, ...] | dict:
    if isinstance(segmentation, dict):
        size, counts = list(segmentation["size"]), segmentation["counts"]
        if size != [image.height, image.width]:
            raise ValueError(f"{name}: run lengths of size {size} on an image of {[image.height, image.width]}")
        if isinstance(counts, list) and sum(counts) != image.height * image.width:
            raise ValueError(f"{name}: run lengths do not sum to the image's pixels")
        return {"size": size, "counts": counts}
    # Arrays, not lists: the 860,000 objects of train2017 would fill gigabytes as Python floats.
    polygons = tuple(np.asarray(polygon, dtype=np.float64) for polygon in segmentation)
    if not polygons:
        raise ValueError(f"{name}: empty segmentation")
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError(f"{name}: a polygon needs three points or more, as x, y, x, y, ...")
    return polygons
