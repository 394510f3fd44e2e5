"""COCO annotations of generated images: polygons of single objects, uncompressed RLE of crowds.

The form is that of `instances_train2017.json`: `info licenses images annotations categories`; coordinates in
pixels, pixel (0, 0) covering [0, 1) x [0, 1), two decimals.
"""

import cv2
import numpy as np

from hodor.data.generated_objects import KINDS
from hodor.data.generated_scenes import CROWD

INFO = {
    "description": "Generated images in the layout of COCO 2017; no photograph of COCO is among them",
    "url": "",
    "version": "1.0",
    "year": 2017,
    "contributor": "hodor.data.generated",
    "date_created": "2020/01/01",
}
LICENSES = [{"url": "http://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "Public domain or CC0"}]
CATEGORIES = [
    {"supercategory": "generated", "id": index, "name": name} for index, name in enumerate((*KINDS, "crowd"), start=1)
]

_UPSAMPLING = 4
_LEAST_AREA = 4.0  # square pixels; smaller pieces of an object are dropped


def image_entry(image_id: int, height: int, width: int) -> dict:
    """The entry of `images`."""
    return {
        "license": 1,
        "file_name": f"{image_id:012d}.jpg",
        "coco_url": "",
        "height": height,
        "width": width,
        "date_captured": "2020-01-01 00:00:00",
        "flickr_url": "",
        "id": image_id,
    }


def annotate(labels: np.ndarray, kinds: dict[int, str], image_id: int, first_id: int) -> list[dict]:
    """Entries of `annotations` for the visible objects of one image.

    Args:
        labels: uint8 (H, W): id of the object, `CROWD`, or 0.
        kinds: id -> kind of the object, which is its category.
        first_id: id of the first annotation; the others count on.
    """
    categories = {category["name"]: category["id"] for category in CATEGORIES}
    entries = []
    for label, kind in kinds.items():
        polygons = to_polygons(labels == label)
        if polygons:
            points = [np.array(polygon).reshape(-1, 2) for polygon in polygons]
            area = sum(_shoelace(p) for p in points)
            low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
            box = [*low, *(high - low)]
            entries.append((polygons, area, 0, box, categories[kind]))
    crowd = labels == CROWD
    if crowd.any():
        y, x = np.nonzero(crowd)
        box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
        entries.append((to_rle(crowd), int(crowd.sum()), 1, box, categories["crowd"]))
    return [
        {
            "segmentation": segmentation,
            "area": round(float(area), 4) if not is_crowd else area,
            "iscrowd": is_crowd,
            "image_id": image_id,
            "bbox": [round(float(value), 2) if not is_crowd else value for value in box],
            "category_id": category,
            "id": first_id + index,
        }
        for index, (segmentation, area, is_crowd, box, category) in enumerate(entries)
    ]


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of a bool (H, W) mask, one `[x0, y0, x1, y1, ...]` a connected piece; as in COCO, without holes."""
    height, width = mask.shape
    fine = cv2.resize(
        mask.astype(np.uint8) * 255,
        (width * _UPSAMPLING, height * _UPSAMPLING),
        interpolation=cv2.INTER_LINEAR,
    )
    contours, _ = cv2.findContours((fine > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        contour = cv2.approxPolyDP(contour, 0.3 * _UPSAMPLING, True)[:, 0].astype(np.float64)
        points = np.round((contour + 0.5) / _UPSAMPLING, 2)
        if len(points) >= 3 and _shoelace(points) >= _LEAST_AREA:
            polygons.append([float(value) for value in points.ravel()])
    return polygons


def to_rle(mask: np.ndarray) -> dict:
    """Uncompressed RLE of a bool (H, W) mask: lengths of runs down the columns, the first of background."""
    flat = np.concatenate(([False], mask.ravel(order="F"), [not mask[-1, -1]]))
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return {
        "counts": [int(run) for run in np.diff(ends, prepend=0)],
        "size": [int(side) for side in mask.shape],
    }


def _shoelace(points: np.ndarray) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
