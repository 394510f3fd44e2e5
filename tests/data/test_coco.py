"""COCO's reader: masks as COCO's code draws them, and every fault of the annotations named with its annotation."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hodor.data.coco import load_coco
from hodor.data.readers import load_images
from tests.data.datasets import SIZE, write_frame
from tests.refused import refused


def change(root, edit):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_opens_a_split(coco_root):
    found = load_coco(coco_root, "train2017")
    assert [image.id for image in found] == [9, 86]  # the third one has no annotation
    image = found[0]
    assert (image.height, image.width) == SIZE and image.read().shape == (*SIZE, 3)
    one, crowd = image.objects
    assert (one.id, one.category, one.area, one.bbox, one.crowd) == (1, "dog", 64.0, (4, 4, 8, 8), False)
    assert crowd.crowd and crowd.id == 2 and len(load_coco(coco_root, "val2017")) == 1
    grey = found[1].read()
    assert grey.shape == (*SIZE, 3) and (grey == grey[..., :1]).all()


def test_polygons_and_run_lengths_become_masks(coco_root):
    first, second = load_coco(coco_root, "train2017")
    square = first.objects[0].mask(*SIZE)
    expected = np.zeros(SIZE, bool)
    expected[4:12, 4:12] = True
    assert square.dtype == bool and (square == expected).mean() > 0.97 and square[5:11, 5:11].all()
    joined = second.objects[0].mask(*SIZE)  # of two polygons
    assert joined[8, 8] and joined[3, 22] and not joined[15, 30]
    crowd = first.objects[1].mask(*SIZE)  # run lengths go down the columns
    assert crowd[:, 10:15].all() and crowd.sum() == 5 * SIZE[0]


def compressed(mask: np.ndarray) -> dict:
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999, 1.0])
def test_compressed_run_lengths_are_read(coco_root, share):
    expected = np.random.default_rng(0).random(SIZE) < share
    change(coco_root, lambda content: content["annotations"][1].update(segmentation=compressed(expected)))
    assert (load_coco(coco_root, "train2017")[0].objects[1].mask(*SIZE) == expected).all()


def test_opening_decodes_nothing_and_reading_is_strict(coco_root):
    path = coco_root / "train2017" / "000000000009.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    image = load_coco(coco_root, "train2017")[0]
    refused(r"000000000009\.jpg: truncated", image.read)
    write_frame(path, size=(25, 40))
    refused(r"000000000009\.jpg: 40x25 pixels .* where 40x24", image.read)


def test_an_annotation_without_crowd_flag_is_no_crowd(coco_root):
    change(coco_root, lambda content: content["annotations"][0].pop("iscrowd"))
    assert load_coco(coco_root, "train2017")[0].objects[0].crowd is False


def remove(list_name, key):
    return lambda content: content[list_name][0].pop(key)


def put(list_name, key, value):
    return lambda content: content[list_name][0].update({key: value})


def runs(counts, size=(24, 40)):
    return put("annotations", "segmentation", {"size": list(size), "counts": counts})


HALF = compressed(np.ones((12, 40), bool))["counts"]
FAULTS = {
    "no images": (lambda content: content.pop("images"), "incomplete, key 'images'"),
    "image without height": (remove("images", "height"), "incomplete, key 'height'"),
    "image with text as width": (put("images", "width", "40"), "image 9: height and width"),
    "image elsewhere": (put("images", "file_name", "../a.jpg"), "not a plain file name"),
    "image id a string": (put("images", "id", "9"), "image id '9' is a string, it must be a whole number"),
    "image_id a string": (put("annotations", "image_id", "9"), "annotation 1: image_id '9' is a string"),
    "image file twice": (put("images", "file_name", "000000000086.jpg"), "the same id or file_name"),
    "no segmentation": (remove("annotations", "segmentation"), "annotation 1: incomplete, key 'segmentation'"),
    "three numbers in bbox": (put("annotations", "bbox", [1, 2, 3]), "annotation 1: bbox"),
    "unknown image": (put("annotations", "image_id", 7), "annotation 1 is for image 7, which is not listed"),
    "category id twice": (lambda content: content["categories"].append(content["categories"][0]), "two categories"),
    "no annotation": (lambda content: content["annotations"].clear(), "has no annotation"),
    "annotation id twice": (put("annotations", "id", 3), "two annotations have the id 3"),
    "no polygon": (put("annotations", "segmentation", []), "annotation 1: empty segmentation"),
    "two points": (put("annotations", "segmentation", [[1, 1, 2, 2]]), "annotation 1: a polygon needs three"),
    "text polygon": (put("annotations", "segmentation", [["a"] * 6]), "annotation 1: could not convert"),
    "endless outline": (put("annotations", "segmentation", [[0, 0, 39, 23] * 60_000]), "annotation 1: .*an outline of"),
    "bbox beyond floats": (put("annotations", "bbox", [10**400] * 4), "annotation 1: int too large"),
    "polygon far right": (put("annotations", "segmentation", [[1, 1, 2e8, 9, 3, 3]]), "annotation 1: .* far outside"),
    "runs of another size": (runs([960], (40, 24)), "annotation 1: run lengths of size"),
    "runs too short": (runs([5, 6]), "annotation 1: run lengths sum to 11 of .* 960"),
    "runs negative": (runs([970, -10]), "annotation 1: run lengths must be whole numbers from 0"),
    "runs null": (runs(None), "annotation 1: run lengths must be"),
    "compressed too short": (runs(HALF), "annotation 1: run lengths sum to 480 of .* 960"),
    "compressed too long": (runs(HALF + HALF[1:] * 2), "annotation 1: run lengths"),
    "compressed broken off": (runs("o"), "annotation 1: run lengths must be"),
}


@pytest.mark.parametrize("edit, message", FAULTS.values(), ids=list(FAULTS))
def test_faults_in_the_json_name_it(coco_root, edit, message):
    change(coco_root, edit)
    refused(rf"instances_train2017\.json: .*{message}", load_coco, coco_root, "train2017")


@pytest.mark.parametrize("content", ["", "[]", '{"images": [', '{"annotations": [1], "annotations": []}'])
def test_broken_json_is_named(coco_root, content):
    (coco_root / "annotations/instances_train2017.json").write_text(content)
    refused(r"instances_train2017\.json: broken \(.*(twice|Expecting|holds list)", load_coco, coco_root, "train2017")


def test_files_and_entries_must_agree(coco_root):
    write_frame(coco_root / "train2017" / "000000000777.jpg")
    refused(r"000000000777\.jpg: not listed in instances_train2017", load_coco, coco_root, "train2017")
    (coco_root / "train2017/000000000250.jpg").unlink()
    refused(r"train2017/000000000250\.jpg: missing image, instances_train2017", load_coco, coco_root, "train2017")
    (coco_root / "train2017").rename(coco_root / "gone")
    refused(r"train2017: no such folder; the images come in train2017\.zip", load_coco, coco_root, "train2017")
    (coco_root / "annotations/instances_val2017.json").unlink()
    refused(r"instances_val2017\.json: no such file", load_coco, coco_root, "val2017")
    refused("no split 'train'; there are train2017, val2017", load_images, coco_root, "coco", "train")
