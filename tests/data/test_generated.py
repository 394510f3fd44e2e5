"""The generated archives: official layouts, valid annotations, separate worlds, reproducible bytes, a fair task."""

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pydantic import ValidationError
from segmetric.metrics import db_eval_boundary, db_eval_iou

from hodor.config.generated import GeneratedOptions
from hodor.data import generated, generated_coco
from hodor.data.generated import SPLITS, generate, scenes, textures_drawn
from hodor.data.generated_layout import SceneSpec
from hodor.data.generated_objects import KINDS, UNSEEN_KIND
from hodor.data.generated_scenes import CROWD, draw_scene
from hodor.data.generated_textures import PHOTOS, TextureBank, _load_photo
from hodor.data.images import DAVIS_PALETTE
from hodor.errors import HodorError

OPTIONS = GeneratedOptions(
    seed=3,
    coco_train=18,
    coco_val=4,
    davis_train=2,
    davis_val=4,
    davis_test_dev=1,
    youtube_train=4,
    youtube_valid=4,
    youtube_frames=8,
)
TINY = GeneratedOptions(
    coco_train=6,
    coco_val=2,
    davis_train=1,
    davis_val=1,
    davis_test_dev=1,
    youtube_train=2,
    youtube_valid=2,
    davis_size=(72, 128),
    youtube_sizes=[(80, 128), (96, 112)],
    coco_sizes=[(72, 96)],
    davis_frames=3,
    youtube_frames=4,
)
DATASETS = ("coco", "davis", "youtube-vos")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archive name -> open archive, of all three data sets with `OPTIONS`."""
    out = tmp_path_factory.mktemp("generated")
    paths = [path for dataset in DATASETS for path in generate(dataset, OPTIONS, out / dataset)]
    assert sorted(out.rglob("*.*")) == sorted(paths)  # nothing but the archives, no temporary file
    opened = {path.name: zipfile.ZipFile(path) for path in paths}
    yield opened
    for archive in opened.values():
        archive.close()


def read_json(archive, name):
    return json.loads(archive.read(name))


def decode(archive, name):
    """An image of an archive, as Pillow opens it (with its mode)."""
    image = Image.open(io.BytesIO(archive.read(name)))
    image.load()
    return image


def digests(out, options):
    paths = [path for dataset in DATASETS for path in generate(dataset, options, out / dataset)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def davis_videos(archive, split):
    """Name -> list of label maps, for the videos of a split's list."""
    names = archive.read(f"DAVIS/ImageSets/2017/{split}.txt").decode().split()
    return {
        name: [
            np.array(decode(archive, member))
            for member in sorted(archive.namelist())
            if member.startswith(f"DAVIS/Annotations/480p/{name}/")
        ]
        for name in names
    }


# --- Layouts


def test_davis_members(archives):
    splits = {"train": 2, "val": 4, "test-dev": 1}
    for archive_name, own in (
        ("DAVIS-2017-trainval-480p.zip", ("train", "val")),
        ("DAVIS-2017-test-dev-480p.zip", ("test-dev",)),
    ):
        archive = archives[archive_name]
        expected = [f"DAVIS/ImageSets/2017/{split}.txt" for split in own]
        for split in own:
            content = archive.read(f"DAVIS/ImageSets/2017/{split}.txt").decode()
            names = [f"{split}-{number:03d}" for number in range(splits[split])]
            assert content == "".join(f"{name}\n" for name in names)
            for name in names:
                for number in range(24):
                    expected.append(f"DAVIS/JPEGImages/480p/{name}/{number:05d}.jpg")
                    expected.append(f"DAVIS/Annotations/480p/{name}/{number:05d}.png")
        assert sorted(archive.namelist()) == sorted(expected)


def test_youtube_members(archives):
    frames = [f"{5 * number:05d}" for number in range(8)]
    for split in ("train", "valid"):
        archive = archives[f"{split}.zip"]
        videos = read_json(archive, f"{split}/meta.json")["videos"]
        assert len(videos) == 4 and all(re.fullmatch("[0-9a-f]{10}", name) for name in videos)
        expected = [f"{split}/meta.json"]
        for name, video in videos.items():
            expected += [f"{split}/JPEGImages/{name}/{frame}.jpg" for frame in frames]
            first = {entry["frames"][0] for entry in video["objects"].values()}
            masks = frames if split == "train" else sorted(first)
            expected += [f"{split}/Annotations/{name}/{frame}.png" for frame in masks]
        assert sorted(archive.namelist()) == sorted(expected)
    truth = archives["valid_truth.zip"]
    videos = read_json(archives["valid.zip"], "valid/meta.json")["videos"]
    expected = [f"valid_truth/Annotations/{name}/{frame}.png" for name in videos for frame in frames]
    assert sorted(truth.namelist()) == sorted([*expected, "valid_truth/meta.json"])
    known = read_json(truth, "valid_truth/meta.json")["videos"]
    for video in known.values():
        for entry in video["objects"].values():
            assert entry.pop("category") in KINDS
    for video in videos.values():
        for entry in video["objects"].values():
            assert entry.pop("category") is None
    assert known == videos


def test_youtube_train_lacks_a_kind_that_valid_has(tmp_path):
    options = GeneratedOptions(**TINY.model_dump() | {"youtube_train": 12, "youtube_valid": 12})
    kinds = {}
    for split, world in (("train", "train"), ("valid", "test")):
        drawn = scenes(f"youtube-vos-{split}", options, TextureBank(world, options))
        kinds[split] = {kind for scene in drawn for kind in scene.kinds.values()}
    assert kinds["train"] == set(KINDS) - {UNSEEN_KIND}
    assert kinds["valid"] == set(KINDS)


def test_coco_members(archives):
    annotations = archives["annotations_trainval2017.zip"]
    assert annotations.namelist() == [
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
    ]
    for split, count in (("train2017", 18), ("val2017", 4)):
        document = read_json(annotations, f"annotations/instances_{split}.json")
        names = [f"{split}/{image['id']:012d}.jpg" for image in document["images"]]
        assert archives[f"{split}.zip"].namelist() == sorted(names) == names
        assert len(names) == count


def test_same_forms_as_the_real_archives(archives, shared_data):
    def forms(archive):
        names = (re.sub(r"480p/[^/]+/", "480p/SEQUENCE/", name) for name in archive.namelist())
        return {re.sub(r"\d{12}|\d{5}", lambda found: "9" * len(found[0]), name) for name in names}

    for path in (
        "davis/DAVIS-2017-trainval-480p.zip",
        "davis/DAVIS-2017-test-dev-480p.zip",
        "coco/train2017.zip",
        "coco/val2017.zip",
        "coco/annotations_trainval2017.zip",
    ):
        with zipfile.ZipFile(shared_data / path) as real:
            assert forms(archives[path.split("/")[1]]) == forms(real), path

    def shape(document):
        entries = {key: [set(entry) for entry in document[key]] for key in document if key != "info"}
        return list(document), set(document["info"]), {key: sets[0] for key, sets in entries.items()}

    with zipfile.ZipFile(shared_data / "coco/annotations_trainval2017.zip") as real:
        for name in real.namelist():
            ours = read_json(archives["annotations_trainval2017.zip"], name)
            assert shape(ours) == shape(read_json(real, name))
    for split in ("train", "valid"):
        real = json.loads((shared_data / "youtube-vos" / split / "meta.json").read_text())
        ours = read_json(archives[f"{split}.zip"], f"{split}/meta.json")
        for meta in (real, ours):
            assert set(meta) == {"videos"}
            for video in meta["videos"].values():
                assert set(video) == {"objects"}
                for entry in video["objects"].values():
                    assert set(entry) == {"category", "frames"}
                    assert (entry["category"] is None) == (split == "valid")


def test_members_carry_no_time_and_no_compression(archives):
    for archive in archives.values():
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(2020, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


# --- COCO


def test_coco_document(archives):
    seen_images, seen_annotations = set(), set()
    for split in ("train2017", "val2017"):
        document = read_json(archives["annotations_trainval2017.zip"], f"annotations/instances_{split}.json")
        assert list(document) == ["info", "licenses", "images", "annotations", "categories"]
        assert [entry["name"] for entry in document["categories"]] == [*KINDS, "crowd"]
        sizes = {}
        for image in document["images"]:
            pixels = decode(archives[f"{split}.zip"], f"{split}/{image['file_name']}")
            assert pixels.format == "JPEG" and pixels.size == (image["width"], image["height"])
            assert image["license"] in {entry["id"] for entry in document["licenses"]}
            sizes[image["id"]] = (image["height"], image["width"])
        assert set(sizes.values()) == set(OPTIONS.coco_sizes)
        assert not seen_images & set(sizes)
        seen_images |= set(sizes)
        for entry in document["annotations"]:
            height, width = sizes[entry["image_id"]]
            x, y, w, h = entry["bbox"]
            assert 0 <= x and 0 <= y and w > 0 and h > 0 and x + w <= width and y + h <= height
            assert entry["id"] not in seen_annotations
            seen_annotations.add(entry["id"])
            assert entry["iscrowd"] in (0, 1)
            assert isinstance(entry["segmentation"], dict if entry["iscrowd"] else list)


def test_coco_has_grey_images_and_images_without_annotation(archives):
    document = read_json(archives["annotations_trainval2017.zip"], "annotations/instances_train2017.json")
    modes = [decode(archives["train2017.zip"], f"train2017/{image['file_name']}").mode for image in document["images"]]
    assert modes.count("L") == 1 and modes.count("RGB") == 17
    annotated = {entry["image_id"] for entry in document["annotations"]}
    assert len([image for image in document["images"] if image["id"] not in annotated]) == 1
    assert sum(entry["iscrowd"] for entry in document["annotations"]) == 2


def test_polygons_and_crowds_rasterise_to_the_masks(archives):
    document = read_json(archives["annotations_trainval2017.zip"], "annotations/instances_train2017.json")
    whole, crowds = 0, 0
    for image, scene in zip(document["images"], scenes("coco-train2017", OPTIONS, TextureBank("train", OPTIONS))):
        height, width = image["height"], image["width"]
        labels = scene.labels(0)
        entries = [entry for entry in document["annotations"] if entry["image_id"] == image["id"]]
        single = [entry for entry in entries if not entry["iscrowd"]]
        assert len(single) == len(scene.kinds)
        for entry, (label, kind) in zip(single, scene.kinds.items()):
            runs = coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], height, width))
            drawn, mask = coco_mask.decode(runs).astype(bool), labels == label
            overlap = (drawn & mask).sum() / (drawn | mask).sum()
            body = next(body for body in scene.bodies if body.label == label)
            alone = np.zeros_like(labels)
            body.draw(None, alone, 0)
            if (alone > 0).sum() == mask.sum():  # not occluded
                whole += 1
                assert overlap > 0.95, (image["id"], label, kind)
            assert overlap > 0.8, (image["id"], label, kind)
            assert entry["area"] == pytest.approx(mask.sum(), rel=0.2)
            assert entry["category_id"] == KINDS.index(kind) + 1
        for entry in entries:
            if entry["iscrowd"]:
                crowds += 1
                assert sum(entry["segmentation"]["counts"]) == height * width
                runs = coco_mask.frPyObjects(entry["segmentation"], height, width)
                np.testing.assert_array_equal(coco_mask.decode(runs).astype(bool), labels == CROWD)
                assert entry["area"] == (labels == CROWD).sum()
                assert list(coco_mask.toBbox(runs)) == entry["bbox"]
    assert whole >= 20 and crowds == 2


@pytest.mark.parametrize("kind", ["empty", "full", "corner", "noise"])
def test_run_lengths(kind):
    mask = np.zeros((5, 7), bool)
    if kind == "full":
        mask[:] = True
    elif kind == "corner":
        mask[0, 0] = mask[-1, -1] = True
    elif kind == "noise":
        mask = np.random.default_rng(0).random((5, 7)) < 0.5
    runs = generated_coco.to_rle(mask)
    assert runs["size"] == [5, 7] and sum(runs["counts"]) == 35
    decoded = coco_mask.decode(coco_mask.frPyObjects(runs, 5, 7)).astype(bool)
    np.testing.assert_array_equal(decoded, mask)


# --- Masks of videos


def test_masks_are_palette_images_of_their_frames_size(archives):
    checked = 0
    for archive in archives.values():
        for name in archive.namelist():
            if name.endswith(".png"):
                mask = decode(archive, name)
                assert mask.mode == "P"
                np.testing.assert_array_equal(np.array(mask.getpalette("RGB")).reshape(-1, 3), DAVIS_PALETTE)
                frame = name.replace("/Annotations/", "/JPEGImages/").replace(".png", ".jpg")
                if not name.startswith("valid_truth"):
                    assert decode(archive, frame).size == mask.size
                checked += 1
    assert checked == 7 * 24 + 2 * 4 * 8 + sum("valid/Annotations" in n for n in archives["valid.zip"].namelist())


def test_davis_objects_are_all_on_the_first_frame(archives):
    counts = set()
    for archive, split in (
        ("DAVIS-2017-trainval-480p.zip", "train"),
        ("DAVIS-2017-trainval-480p.zip", "val"),
        ("DAVIS-2017-test-dev-480p.zip", "test-dev"),
    ):
        for name, labels in davis_videos(archives[archive], split).items():
            ids = np.unique(labels[0])[1:]
            np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1), err_msg=name)
            assert OPTIONS.objects[0] <= len(ids) <= OPTIONS.objects[1]
            counts.add(len(ids))
            assert min((labels[0] == i).mean() for i in ids) >= OPTIONS.first_area
            assert set(np.unique(labels)) <= {0, *ids}
            assert labels[0].shape == OPTIONS.davis_size
    assert len(counts) > 1


def test_youtube_objects_appear_later_and_sizes_differ(archives):
    for split, masks, root in (("train", "train.zip", "train"), ("valid", "valid_truth.zip", "valid_truth")):
        videos = read_json(archives[f"{split}.zip"], f"{split}/meta.json")["videos"]
        sizes, late = set(), 0
        for name, video in videos.items():
            objects = {int(label): entry["frames"] for label, entry in video["objects"].items()}
            assert list(objects) == list(range(1, len(objects) + 1))
            last = f"{5 * 7:05d}"
            for label, frames in objects.items():
                expected = [f"{n:05d}" for n in range(int(frames[0]), int(last) + 1, 5)]
                assert frames == expected
                late += frames[0] != "00000"
                for number in range(8):
                    frame = f"{5 * number:05d}"
                    mask = np.array(decode(archives[masks], f"{root}/Annotations/{name}/{frame}.png")) == label
                    if frame < frames[0]:
                        assert not mask.any()
                    elif frame == frames[0]:
                        assert mask.mean() >= 0.5 * OPTIONS.first_area
            sizes.add(mask.shape)
            assert min(frames[0] for frames in objects.values()) == "00000"
        assert sizes == set(OPTIONS.youtube_sizes)
        assert late == 2  # half of the four videos


def test_valid_masks_hold_the_new_objects_alone(archives):
    videos = read_json(archives["valid.zip"], "valid/meta.json")["videos"]
    later = 0
    for name, video in videos.items():
        for frame in {entry["frames"][0] for entry in video["objects"].values()}:
            new = [int(label) for label, entry in video["objects"].items() if entry["frames"][0] == frame]
            given = np.array(decode(archives["valid.zip"], f"valid/Annotations/{name}/{frame}.png"))
            truth = np.array(decode(archives["valid_truth.zip"], f"valid_truth/Annotations/{name}/{frame}.png"))
            np.testing.assert_array_equal(given, np.where(np.isin(truth, new), truth, 0))
            later += frame != "00000"
    assert later == 2


# --- Worlds


def test_worlds_share_no_photograph():
    assert not set(PHOTOS["train"]) & set(PHOTOS["test"])
    content = {name: _load_photo(name).tobytes() for names in PHOTOS.values() for name in names}
    assert len(set(content.values())) == len(content)
    with pytest.raises(ValueError, match="not of the test world"):
        TextureBank("test", OPTIONS)._photo(PHOTOS["train"][0])


def test_worlds_share_no_texture_and_no_seed():
    drawn = {name: textures_drawn(name, OPTIONS) for name in SPLITS}
    seeds = {name: {texture.seed for texture in textures} for name, textures in drawn.items()}
    photos = {name: {texture.photo for texture in textures} for name, textures in drawn.items()}
    assert {SPLITS[name].world for name in SPLITS if name.startswith("coco")} == {"train"}
    assert [SPLITS[f"davis-{split}"].world for split in ("train", "val", "test-dev")] == [
        "train",
        "test",
        "test",
    ]
    assert [SPLITS[f"youtube-vos-{split}"].world for split in ("train", "valid")] == ["train", "test"]
    for one in SPLITS:
        assert len(seeds[one]) > 1
        for other in SPLITS:
            if one != other:
                assert not seeds[one] & seeds[other], (one, other)
            if SPLITS[one].world != SPLITS[other].world:
                assert not photos[one] & photos[other], (one, other)
    # Every photograph of the train world is in use, or the list above would prove less than it seems to.
    assert set().union(*(photos[n] for n in SPLITS if SPLITS[n].world == "train")) == set(PHOTOS["train"])


# --- The same bytes again


def test_same_seed_same_bytes_in_another_process_with_other_hashes_and_threads(tmp_path, root):
    here = digests(tmp_path / "here", TINY)
    code = (
        "import sys, json, hashlib, pathlib, cv2; cv2.setNumThreads(4)\n"
        "from hodor.data.generated import generate\n"
        "from hodor.config.generated import GeneratedOptions\n"
        "options = GeneratedOptions(**json.loads(sys.argv[1])); out = pathlib.Path(sys.argv[2])\n"
        "for dataset in ('coco', 'davis', 'youtube-vos'):\n"
        "    for path in generate(dataset, options, out / dataset):\n"
        "        print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "3", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, TINY.model_dump_json(), str(tmp_path / "there")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert dict(line.split() for line in done.stdout.splitlines()) == here


def test_another_seed_gives_other_bytes(tmp_path):
    one = digests(tmp_path / "one", TINY)
    other = digests(tmp_path / "other", TINY.model_copy(update={"seed": 1}))
    assert all(one[name] != other[name] for name in one)


def test_rendering_has_no_state():
    scene = next(scenes("davis-val", TINY, TextureBank("test", TINY)))
    first, labels = scene.render(2)
    scene.render(0)
    again, _ = scene.render(2)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, scene.labels(2))


def test_threads_of_opencv_are_given_back(tmp_path):
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        generate("coco", TINY.model_copy(update={"coco_train": 1, "coco_val": 1}), tmp_path)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


# --- The task


def test_copying_the_first_mask_is_bad_but_not_hopeless(archives):
    scores = []
    for labels in davis_videos(archives["DAVIS-2017-trainval-480p.zip"], "val").values():
        for label in range(1, labels[0].max() + 1):
            truth = np.stack([frame == label for frame in labels])
            copied = np.broadcast_to(truth[:1], truth.shape)
            iou = np.mean(db_eval_iou(truth[1:-1], copied[1:-1]))
            boundary = np.mean(db_eval_boundary(truth[1:-1], copied[1:-1]))
            scores.append((iou + boundary) / 2)
    assert 0.10 < np.mean(scores) < 0.35


def test_no_step_is_larger_than_asked():
    for split in ("davis-val", "youtube-vos-train"):
        for scene in scenes(split, OPTIONS, TextureBank(SPLITS[split].world, OPTIONS)):
            for body in scene.bodies:
                places = np.array([body.way.at(time) for time in range(scene.spec.frames)])
                steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
                assert steps.max() <= OPTIONS.largest_step * scene.spec.width


def test_objects_leave_and_come_back():
    options = OPTIONS.model_copy(update={"leaving": 1.0, "crossing": 0.0, "davis_val": 6})
    returned = 0
    for scene in scenes("davis-val", options, TextureBank("test", options)):
        labels = [scene.labels(time) for time in range(scene.spec.frames)]
        for label in scene.kinds:
            seen = [bool((frame == label).any()) for frame in labels]
            returned += seen[0] and seen[-1] and not all(seen)
    assert returned >= 3


def test_distractors_are_unlabelled_twins_of_an_object():
    options = OPTIONS.model_copy(update={"distractors": 1.0, "occluders": 0.0, "camouflage": 0.0})
    bank = TextureBank("test", options)
    for scene in scenes("davis-val", options, bank):
        assert 1 <= sum(body.label == 0 for body in scene.bodies) <= 2
        own, bank.drawn = bank.drawn, set()
        looks = [texture for texture in own if hasattr(texture, "pattern")]
        families = [(look.photo, look.pattern, look.saturation, look.dark) for look in looks]
        assert len(set(families)) == len(scene.kinds) < len(families)
        assert len({look.hue for look in looks}) == len(looks)


# --- Errors


def test_unknown_data_set(tmp_path):
    with pytest.raises(HodorError, match="'mars'.*coco, davis, davis2016, youtube-vos"):
        generate("mars", TINY, tmp_path)


def test_full_disk_names_the_archive_and_leaves_the_old_one(tmp_path, monkeypatch):
    old = tmp_path / "DAVIS-2017-trainval-480p.zip"
    old.write_bytes(b"old")

    def fail(labels):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(generated, "encode_labels", fail)
    with pytest.raises(HodorError, match=r"DAVIS-2017-trainval-480p\.zip.*No space left"):
        generate("davis", TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == b"old"


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "davis").write_text("a file")
    with pytest.raises(HodorError, match=re.escape(str(tmp_path / "davis"))):
        generate("davis", TINY, tmp_path / "davis")


def test_objects_without_room():
    spec = SceneSpec(72, 96, frames=3, objects=4, least_area=0.24, areas=(0.3, 0.3))
    with pytest.raises(HodorError, match="4 objects of at least 24.0%.*72 x 96"):
        draw_scene(np.random.default_rng(0), TextureBank("train", TINY), spec, TINY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"objects": (3, 2)},
        {"objects": (0, 2)},
        {"coco_objects": (1, 9)},
        {"objects": (1, 8), "first_area": 0.1},
        {"coco_sizes": []},
        {"davis_size": (16, 208)},
        {"distractors": 1.5},
        {"colour": "red"},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GeneratedOptions(**wrong)


def test_options_import_nothing_heavy(root):
    code = "import sys, hodor.config.generated; print({'cv2', 'numpy', 'torch', 'skimage'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"
