import json

import numpy as np
import pytest

from hodor.data.coco import load_coco
from hodor.errors import HodorError


def change(root, edit):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_opens_a_split(coco_root, draw):
    found = load_coco(coco_root, "train2017")
    assert [image.id for image in found.images] == [9, 86] and found.skipped_unannotated == 1
    image = found.images[0]
    assert (image.height, image.width) == draw.size and image.read().shape == (*draw.size, 3)
    one, crowd = image.objects
    assert (one.id, one.category, one.area, one.bbox, one.crowd) == (1, "dog", 64.0, (4, 4, 8, 8), False)
    assert crowd.crowd and crowd.id == 2
    assert len(load_coco(coco_root, "val2017").images) == 1


def test_grayscale_becomes_rgb(coco_root, draw):
    pixels = load_coco(coco_root, "train2017").images[1].read()
    assert pixels.shape == (*draw.size, 3) and (pixels == pixels[..., :1]).all()


def test_polygon_mask_covers_the_square(coco_root, draw):
    mask = load_coco(coco_root, "train2017").images[0].objects[0].mask(*draw.size)
    expected = np.zeros(draw.size, bool)
    expected[4:12, 4:12] = True
    assert mask.dtype == bool and (mask == expected).mean() > 0.97 and mask[5:11, 5:11].all()


def test_polygons_of_one_object_are_joined(coco_root, draw):
    mask = load_coco(coco_root, "train2017").images[1].objects[0].mask(*draw.size)
    assert mask[8, 8] and mask[3, 22] and not mask[15, 30]


def test_run_lengths_go_down_the_columns(coco_root, draw):
    mask = load_coco(coco_root, "train2017").images[0].objects[1].mask(*draw.size)
    expected = np.zeros(draw.size, bool)
    expected[:, 10:15] = True
    assert (mask == expected).all()


def test_compressed_run_lengths_are_read(coco_root, draw):
    from pycocotools import mask as coco_mask

    expected = np.random.default_rng(0).random(draw.size) > 0.7
    runs = coco_mask.encode(np.asfortranarray(expected.astype(np.uint8)))

    def edit(content):
        content["annotations"][1]["segmentation"] = {
            "size": list(draw.size),
            "counts": runs["counts"].decode(),
        }

    change(coco_root, edit)
    assert (load_coco(coco_root, "train2017").images[0].objects[1].mask(*draw.size) == expected).all()


def test_opening_decodes_nothing_and_reading_is_strict(coco_root, draw):
    path = coco_root / "train2017" / "000000000009.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    image = load_coco(coco_root, "train2017").images[0]
    with pytest.raises(HodorError, match=r"000000000009\.jpg: truncated"):
        image.read()
    draw.frame(path, size=(25, 40))
    with pytest.raises(HodorError, match=r"000000000009\.jpg: 40x25 pixels .* where 40x24"):
        image.read()


def remove(list_name, key):
    return lambda content: content[list_name][0].pop(key)


def put(list_name, key, value, place=0):
    return lambda content: content[list_name][place].update({key: value})


RUNS = {"size": [24, 40], "counts": [24 * 40]}
FAULTS = {
    "no images": (lambda content: content.pop("images"), "incomplete, key 'images'"),
    "no annotations": (lambda content: content.pop("annotations"), "incomplete, key 'annotations'"),
    "no categories": (lambda content: content.pop("categories"), "incomplete, key 'categories'"),
    "image without height": (remove("images", "height"), "incomplete, key 'height'"),
    "image without name": (remove("images", "file_name"), "incomplete, key 'file_name'"),
    "image with text as width": (put("images", "width", "40"), "broken .*image 9: height and width"),
    "image elsewhere": (put("images", "file_name", "../a.jpg"), "broken .*no plain file name"),
    "image id twice": (put("images", "id", 86), "two images have the same id"),
    "image file twice": (
        put("images", "file_name", "000000000086.jpg"),
        "two images have the same id or file_name",
    ),
    "no segmentation": (remove("annotations", "segmentation"), "incomplete, key 'segmentation'"),
    "no bbox": (remove("annotations", "bbox"), "incomplete, key 'bbox'"),
    "no crowd flag": (remove("annotations", "iscrowd"), "incomplete, key 'iscrowd'"),
    "crowd flag 2": (put("annotations", "iscrowd", 2), "annotation 1: iscrowd"),
    "three numbers in bbox": (put("annotations", "bbox", [1, 2, 3]), "annotation 1: bbox"),
    "area not finite": (put("annotations", "area", float("nan")), "annotation 1: bbox must be four finite"),
    "unknown image": (put("annotations", "image_id", 7), "annotation 1 is for image 7, which is not listed"),
    "unknown category": (put("annotations", "category_id", 7), "annotation 1: category 7 is not listed"),
    "annotation id twice": (put("annotations", "id", 3), "two annotations have the id 3"),
    "no polygon": (put("annotations", "segmentation", []), "annotation 1: empty segmentation"),
    "two points": (put("annotations", "segmentation", [[1, 1, 2, 2]]), "annotation 1: a polygon needs three"),
    "odd polygon": (
        put("annotations", "segmentation", [[1, 1, 2, 2, 3, 3, 4]]),
        "annotation 1: a polygon needs",
    ),
    "text polygon": (put("annotations", "segmentation", [["a"] * 6]), "broken"),
    "runs of another size": (
        put("annotations", "segmentation", RUNS | {"size": [40, 24]}),
        "annotation 1: run len",
    ),
    "runs too short": (
        put("annotations", "segmentation", RUNS | {"counts": [5, 6]}),
        "annotation 1: run lengths do",
    ),
    "annotations no list": (lambda content: content.update(annotations=None), "broken"),
}


@pytest.mark.parametrize("edit, message", FAULTS.values(), ids=list(FAULTS))
def test_faults_in_the_json_name_it(coco_root, edit, message):
    load_coco(coco_root, "train2017")
    change(coco_root, edit)
    with pytest.raises(HodorError, match=rf"instances_train2017\.json: .*{message}|{message}") as caught:
        load_coco(coco_root, "train2017")
    assert "instances_train2017.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"images": ['])
def test_broken_json_is_named(coco_root, content):
    (coco_root / "annotations/instances_train2017.json").write_text(content)
    with pytest.raises(HodorError, match=r"instances_train2017\.json: (broken JSON|holds list)"):
        load_coco(coco_root, "train2017")


def test_missing_files_are_named(coco_root):
    (coco_root / "train2017/000000000250.jpg").unlink()
    with pytest.raises(HodorError, match=r"train2017/000000000250\.jpg: missing image, instances_train2017"):
        load_coco(coco_root, "train2017")
    (coco_root / "annotations/instances_val2017.json").unlink()
    with pytest.raises(HodorError, match=r"instances_val2017\.json: no such file"):
        load_coco(coco_root, "val2017")
    (coco_root / "train2017").rename(coco_root / "gone")
    with pytest.raises(HodorError, match=r"train2017: no such folder; the images come in train2017\.zip"):
        load_coco(coco_root, "train2017")


def test_image_in_no_entry_is_named(coco_root, draw):
    draw.frame(coco_root / "train2017" / "000000000777.jpg")
    with pytest.raises(HodorError, match=r"000000000777\.jpg: not listed in instances_train2017"):
        load_coco(coco_root, "train2017")


def test_unknown_split(coco_root):
    with pytest.raises(HodorError, match="no split 'train'; there are train2017, val2017"):
        load_coco(coco_root, "train")
