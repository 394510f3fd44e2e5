"""The synthetic data sets: official layouts, correct annotations, separate worlds, reproducible bytes, every event."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from segmetric.metrics import db_eval_boundary, db_eval_iou

from hodor.config.benchmarks import UNSEEN
from hodor.config.datasets import GeneratedOptions
from hodor.data.coco import load_coco
from hodor.data.images import DAVIS_PALETTE, read_labels
from hodor.data.prepare import check_dataset
from hodor.data.synthetic import archives, generate, scene
from hodor.data.synthetic.archives import SPLITS, draw_split
from hodor.data.synthetic.objects import KINDS, PHOTOS, load_photo
from hodor.data.synthetic.scene import CROWD, SceneSpec, draw_scene
from hodor.data.youtube_vos import load_ground_truth, load_youtube_vos, read_categories
from hodor.errors import HodorError
from tests.refused import refused

DATASETS = ("coco", "davis", "davis2016", "youtube-vos")
COUNTS = {"coco_val": 2, "davis_train": 2, "davis_val": 10, "davis_test_dev": 1, "youtube_train": 8, "youtube_valid": 4}
OPTIONS = GeneratedOptions(seed=3, coco_train=18, davis_frames=12, youtube_frames=8, **COUNTS)
SMALL = {"davis_size": (72, 128), "youtube_sizes": [(80, 128)], "davis_frames": 3, "youtube_frames": 4}
TINY = GeneratedOptions(**dict.fromkeys(COUNTS, 1), **SMALL, coco_train=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with the archives, and beside them each data set extracted."""
    folder = tmp_path_factory.mktemp("synthetic")
    for dataset in DATASETS:
        for archive in generate(dataset, OPTIONS, folder / "archives"):
            zipfile.ZipFile(archive).extractall(folder / dataset)
    return folder


def digests(out, options):
    paths = [path for dataset in DATASETS for path in generate(dataset, options, out / dataset)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def scenes(split, **changed):
    return list(draw_split(split, OPTIONS.model_copy(update=changed)))


def label_maps(video):
    return np.stack([video.expose(time)[1] for time in range(video.spec.frames)])


def test_the_strict_readers_accept_every_split(data):
    counts = {dataset: check_dataset(dataset, "generated", data / dataset) for dataset in DATASETS}
    assert counts["coco"]["train2017"]["images"] == 18 and counts["coco"]["val2017"]["images"] == 2
    videos = {dataset: {split: of["videos"] for split, of in counts[dataset].items()} for dataset in DATASETS[1:]}
    assert videos["davis"] == {"train": 2, "val": 10, "test-dev": 1} and videos["davis2016"] == {"train": 2, "val": 10}
    assert videos["youtube-vos"] == {"train": 8, "valid": 4} and counts["youtube-vos"]["train"]["frames"] == 64
    assert counts["davis"]["test-dev"]["masks"] == 12, "more than officially: the masks of all frames"
    for path in sorted(data.glob("*/**/*.png"))[::20]:
        assert Image.open(path).getpalette("RGB") == DAVIS_PALETTE.ravel().tolist(), path


def test_same_names_and_keys_as_the_official_archives(data, shared_data):
    def names(path):
        found = (re.sub(r"480p/[^/]+/", "480p/SEQUENCE/", name) for name in zipfile.ZipFile(path).namelist())
        return {re.sub(r"\d{12}|\d{5}", lambda digits: "9" * len(digits[0]), name) for name in found}

    for name in ("davis/DAVIS-2017-trainval-480p.zip", "davis/DAVIS-2017-test-dev-480p.zip", "coco/train2017.zip"):
        assert names(data / "archives" / name.split("/")[1]) == names(shared_data / name)

    def keys(document):
        return {key: set(part if isinstance(part, dict) else part[0]) for key, part in document.items()}

    with zipfile.ZipFile(shared_data / "coco" / "annotations_trainval2017.zip") as official:
        for name in official.namelist():
            ours = json.loads((data / "coco" / name).read_text())
            assert keys(ours) == keys(json.loads(official.read(name))), name
    for split in ("train", "valid"):
        metas = [json.loads((root / "youtube-vos" / split / "meta.json").read_text()) for root in (data, shared_data)]
        for meta in metas:
            entries = [entry for video in meta["videos"].values() for entry in video["objects"].values()]
            assert all(set(entry) == {"category", "frames"} for entry in entries)
            assert all((entry["category"] is None) == (split == "valid") for entry in entries)
        assert all(re.fullmatch("[0-9a-f]{10}", video) for video in metas[0]["videos"])


def test_coco_annotations_are_the_masks(data):
    images, crowds = {image.id: image for image in load_coco(data / "coco", "train2017")}, 0
    listed = json.loads((data / "coco/annotations/instances_train2017.json").read_text())["images"]
    for entry, drawn in zip(listed, scenes("coco-train2017"), strict=True):
        labels = drawn.expose(0)[1]
        objects = images[entry["id"]].objects if entry["id"] in images else ()
        assert [o.category for o in objects if not o.crowd] == list(drawn.categories.values())
        for number, found in enumerate(objects, start=1):
            mask, filled = labels == (CROWD if found.crowd else number), found.mask(*labels.shape)
            assert (filled & mask).sum() / (filled | mask).sum() > (0.999 if found.crowd else 0.85)
            y, x = np.nonzero(mask)
            assert found.bbox == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1) and found.area == mask.sum()
            crowds += found.crowd
    modes = [Image.open(data / "coco" / "train2017" / entry["file_name"]).mode for entry in listed]
    assert crowds == 2 and modes.count("L") == 1 and len(listed) - len(images) == 1
    assert {(entry["height"], entry["width"]) for entry in listed} == set(OPTIONS.coco_sizes)


def test_youtube_objects_appear_late_and_valid_shows_the_new_ones_alone(data):
    root = data / "youtube-vos"
    known, given, late = load_ground_truth(root), load_youtube_vos(root, "valid"), 0
    for video, masks in [(v, v) for v in load_youtube_vos(root, "train")] + list(zip(given, known, strict=True)):
        for i, first in video.first_seen.items():
            shown = [(masks.labels(frame) == i).sum() for frame in masks.frames]
            before = masks.frames.index(first)
            assert not any(shown[:before]) and 5 * shown[before] >= max(shown)
            late += first != "00000"
    assert late == (8 + 4) / 2, "in every second video"
    for video, masks in zip(given, known, strict=True):
        assert set(video.labelled) == set(video.first_seen.values())
        for frame in video.labelled:
            new = [i for i, first in video.first_seen.items() if first == frame]
            labels = masks.labels(frame)
            assert np.array_equal(read_labels(video.label_path(frame)), np.where(np.isin(labels, new), labels, 0))


def test_one_category_is_unseen_and_the_holdout_has_another(data):
    found = {split: read_categories(data / "youtube-vos" / split / "meta.json") for split in ("train", "valid_truth")}
    kinds = {split: {kind for of in videos.values() for kind in of.values()} for split, videos in found.items()}
    assert kinds == {"train": set(KINDS) - {"star"}, "valid_truth": set(KINDS)}
    assert {bool(set(UNSEEN) & set(objects.values())) for objects in found["train"].values()} == {True, False}


def test_worlds_share_no_photograph():
    assert len({load_photo(name).tobytes() for photos in PHOTOS.values() for name in photos}) == 12
    tested = {split for split, (world, _) in SPLITS.items() if world == "test"}
    assert tested == {"davis-val", "davis-test-dev", "youtube-vos-valid"}


def test_same_bytes_with_other_threads_and_hashes_and_others_with_another_seed(tmp_path, root):
    here = digests(tmp_path / "here", TINY)
    code = (
        "import sys, json, pathlib, cv2; cv2.setNumThreads(4); sys.path.insert(0, '.')\n"
        "from tests.data.test_synthetic import TINY, digests; print(json.dumps(digests(pathlib.Path(sys.argv[1]), TINY)))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "3"}
    command = [sys.executable, "-c", code, str(tmp_path / "there")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=root)
    assert json.loads(done.stdout) == here
    other = digests(tmp_path / "other", TINY.model_copy(update={"seed": 1}))
    assert len(here) == 9 and all(here[name] != other[name] for name in here)


def test_every_event_occurs_in_a_split_of_ten_videos():
    returned = crossed = lit = 0
    drawn = scenes("davis-val")
    for video in drawn:
        labels, spec = label_maps(video), video.spec
        if spec.leaving:
            seen = (labels == 1).any((1, 2))
            returned += seen[0] and seen[-1] and not all(seen)
        if spec.crossing and len(spec.kinds) > 1:
            places = [[np.argwhere(frame == i).mean(0) for i in (1, 2)] for frame in labels[[0, -1]]]
            crossed += np.dot(places[0][1] - places[0][0], places[1][1] - places[1][0]) < 0
        brightness = [video.render(time)[0].mean() for time in range(0, spec.frames, 3)]
        lit += spec.light_change and np.ptp(brightness) > 5
        assert sum(body.label == 0 for body in video.bodies) == spec.distractors
        assert np.array_equal(video.render(1)[0], video.render(1)[0]), "rendering has no state"
    assert returned >= 2 and crossed >= 2 and lit >= 3
    assert {video.spec.distractors for video in drawn} == {0, 1, 2}
    assert {video.spec.exposure > 0 for video in drawn} == {True, False}


def test_copying_the_first_mask_is_bad_but_not_hopeless():
    scores = []
    for video in scenes("davis-val", davis_frames=24):
        labels = label_maps(video)
        for i in video.categories:
            mask = labels == i
            assert mask[0].mean() > 0.02, "large enough to be an object of a clip"
            copied = np.broadcast_to(mask[:1], mask.shape)
            scores += [np.mean(metric(mask[1:-1], copied[1:-1])) for metric in (db_eval_iou, db_eval_boundary)]
    assert 0.10 < np.mean(scores) < 0.30


def test_faults_are_reported(tmp_path, monkeypatch):
    refused("'mars'.*coco, davis, davis2016, youtube-vos", generate, "mars", TINY, tmp_path)
    (tmp_path / "file").touch()
    refused("file.*cannot be written", generate, "davis", TINY, tmp_path / "file")
    monkeypatch.setattr(scene, "_ATTEMPTS", 1)
    with pytest.raises(HodorError, match="no room for 8 objects.*48 x 48.*`objects`"):
        draw_scene(np.random.default_rng(0), SceneSpec("train", 48, 48, 2, KINDS * 2, distractors=300))
    monkeypatch.setattr(archives, "encode_labels", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    refused(r"trainval-480p\.zip: cannot be written.*no space", generate, "davis", TINY, tmp_path)
