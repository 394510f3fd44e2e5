"""COCO 2017 instances in the official layout.

    train2017/<12 digits>.jpg   val2017/<12 digits>.jpg   annotations/instances_{train,val}2017.json

Segmentations are lists of polygons or, for crowds, uncompressed run lengths; compressed ones are read too. In the
official files some JPEGs are grayscale (read as RGB), some images have no annotation (skipped and counted), and crowd
entries cover groups (flagged, never dropped here). `iscrowd` may be absent, as in LVIS; it is then 0.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hodor.data.images import read_rgb
from hodor.data.video import broken, read_annotations
from hodor.errors import HodorError

_LONGEST_OUTLINE = 4_000_000


@dataclass(frozen=True)
class CocoObject:
    """One annotation."""

    id: int
    category: str  # its name, for example "person"
    area: float  # pixels of the segmentation, as COCO states it
    bbox: tuple[float, float, float, float]  # x, y, width, height in pixels
    crowd: bool  # covers a group of objects
    # Polygons, each float64 (2 * points,) as x, y, x, y, ..., or run lengths {"size": [H, W], "counts": list or str}.
    segmentation: tuple[np.ndarray, ...] | dict

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return bool (H, W), drawn by COCO's own code; a tiny object may cover no pixel."""
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
        """Return uint8 (H, W, 3) RGB; HodorError if the file is damaged or has another size than the JSON states."""
        return read_rgb(self.path, size=(self.height, self.width), upright=False)

    def void(self) -> None:
        """COCO has no void pixels."""


def load_coco(root: Path, split: str) -> list[CocoImage]:
    """Open a split: read its JSON and list its folder; no image is decoded.

    Args:
        root: folder that holds `annotations/` and `<split>/`.
        split: "train2017" or "val2017".

    Returns:
        The annotated images, in the order of their ids.

    Raises:
        HodorError: the JSON is broken or incomplete, a segmentation does not fit its image, an annotation is of an
            unknown image, an image file is absent, or a file is in no entry.
    """
    path, folder = Path(root) / "annotations" / f"instances_{split}.json", Path(root) / split
    if not folder.is_dir():
        raise HodorError(f"{folder}: no such folder; the images come in {split}.zip: fetch and prepare it")
    files = {file.name for file in folder.iterdir()}
    with read_annotations(path) as content:
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        if len(categories) < len(content["categories"]):
            raise ValueError("two categories have the same id")
        images = [_image(entry, folder) for entry in content["images"]]
        by_id = {image.id: image for image in images}
        if not len({image.path for image in images}) == len(by_id) == len(images):
            raise ValueError("two images have the same id or file_name")
        listed = {image.path.name for image in images}
        for fault, odd in (
            (f"missing image, {path.name} lists it", listed - files),
            (f"not listed in {path.name}", files - listed),
        ):
            if odd:
                raise broken(folder / min(odd), f"{fault} ({len(odd)} such)")
        objects: dict[int, list[CocoObject]] = {key: [] for key in by_id}
        seen = set()
        for entry in content["annotations"]:
            name = f"annotation {_whole('annotation id', entry['id'])}"
            if entry["id"] in seen:
                raise ValueError(f"two annotations have the id {entry['id']}")
            seen.add(entry["id"])
            image = by_id.get(_whole(f"{name}: image_id", entry["image_id"]))
            if image is None:
                raise ValueError(f"{name} is for image {entry['image_id']}, which is not listed")
            try:
                objects[image.id].append(_object(entry, categories, image))
            except KeyError as error:
                raise ValueError(f"{name}: incomplete, key {error} is missing") from error
            except (ValueError, TypeError, OverflowError) as error:
                raise ValueError(f"{name}: {error}") from error
    if not seen:
        raise broken(path, "has no annotation")
    return [replace(by_id[id], objects=tuple(objects[id])) for id in sorted(by_id) if objects[id]]


def _whole(name: str, value: object) -> int:
    """Return a whole number; ValueError for another type, most often a string."""
    if not isinstance(value, int) or isinstance(value, bool):
        kind = {str: "a string", float: "a decimal number"}.get(type(value), type(value).__name__)
        raise ValueError(f"{name} {value!r} is {kind}, it must be a whole number")
    return value


def _image(entry: dict, folder: Path) -> CocoImage:
    id = _whole("image id", entry["id"])
    name, height, width = entry["file_name"], entry["height"], entry["width"]
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"image {id}: file_name {name!r} is not a plain file name")
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"image {id}: height and width must be positive whole numbers")
    return CocoImage(id, folder / name, height, width, ())


def _object(entry: dict, categories: dict[int, str], image: CocoImage) -> CocoObject:
    if entry["category_id"] not in categories:
        raise ValueError(f"category {entry['category_id']!r} is not listed")
    bbox, area, crowd = tuple(map(float, entry["bbox"])), float(entry["area"]), entry.get("iscrowd", 0)
    if len(bbox) != 4 or not all(map(math.isfinite, (*bbox, area))):
        raise ValueError("bbox must be four finite numbers and area one")
    if crowd not in (0, 1):
        raise ValueError("iscrowd must be 0 or 1")
    segmentation = _segmentation(entry["segmentation"], image)
    return CocoObject(entry["id"], categories[entry["category_id"]], area, bbox, bool(crowd), segmentation)


def _segmentation(segmentation: list | dict, image: CocoImage) -> tuple[np.ndarray, ...] | dict:
    size = [image.height, image.width]
    if isinstance(segmentation, dict):
        if segmentation["size"] != size:
            raise ValueError(f"run lengths of size {segmentation['size']} on an image of {size}")
        counts = segmentation["counts"]
        runs = _decompressed(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or any(type(run) is not int or run < 0 for run in runs):
            raise ValueError("run lengths must be whole numbers from 0, as a list or as COCO's string")
        if sum(runs) != image.height * image.width:
            raise ValueError(f"run lengths sum to {sum(runs)} of the image's {image.height * image.width} pixels")
        return {"size": size, "counts": counts}
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("empty segmentation")
    # Arrays, not lists: the 860,000 objects of train2017 would fill gigabytes as Python floats.
    polygons = tuple(np.asarray(polygon, dtype=np.float64) for polygon in segmentation)
    limit, outline = max(size), 0.0
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError("a polygon needs three points or more, as x, y, x, y, ...")
        points = polygon.reshape(-1, 2)
        if (points < -limit).any() or (points > [image.width + limit, image.height + limit]).any():
            raise ValueError(f"a polygon reaches {np.abs(polygon).max():.0f}, far outside the image of {size}")
        outline += np.abs(np.diff(points, axis=0)).max(axis=1).sum()
    if outline > _LONGEST_OUTLINE:  # drawing takes memory in proportion
        raise ValueError(f"polygons with an outline of {outline:.0f} pixels, at most {_LONGEST_OUTLINE} are drawn")
    return polygons


def _decompressed(text: str) -> list[int] | None:
    """Decode COCO's compressed run lengths: 5 bits a character, from the third on as a difference to the last but one.

    None for an invalid text: COCO's own decoder checks nothing and leaves the pixels of missing runs undefined.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs
