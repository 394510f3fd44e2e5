"""Data sets of the user: what the readers make of an entry, and every fault of one named."""

import json
import shutil

import pytest

from hodor.config import own_datasets
from hodor.config.benchmarks import BENCHMARKS, get_benchmark
from hodor.config.datasets import SPLITS
from hodor.config.loading import load
from hodor.data.fetch import fetch
from hodor.data.images import write_labels
from hodor.data.prepare import prepare
from hodor.data.readers import is_video, open_videos
from hodor.errors import HodorError
from hodor.scoring.score import open_benchmark
from hodor.stamps import Stamps
from tests.data.datasets import labels_with, write_frame
from tests.refused import refused

FRAMES = ("00000003", "00000005", "00000010", "00000012")


@pytest.fixture
def declared():
    """Declares entries, and removes them after the test."""
    yield lambda **entry: own_datasets.declare({"mine": {"layout": "youtube-vos", "splits": {"val": "valid"}} | entry})
    own_datasets.declare({})


@pytest.fixture
def mine(tmp_path):
    """One video in YouTube-VOS layout with 8 digits; frame 00000010 has no mask, object 7 appears on 00000005."""
    root = tmp_path / "mine"
    for number, frame in enumerate(FRAMES):
        write_frame(root / "valid" / "JPEGImages" / "cat" / f"{frame}.jpg", seed=number)
        if frame != "00000010":
            ids = (2,) if number == 0 else (2, 7)
            write_labels(root / "valid" / "Annotations" / "cat" / f"{frame}.png", labels_with(*ids))
    return root


def test_masks_tell_which_objects_appear_when(mine, declared):
    declared()
    assert is_video("mine") and SPLITS["mine"] == ("val",) and get_benchmark("mine-val").title == "mine val"
    (cat,) = open_videos(mine, "mine", "val")
    assert cat.frames == FRAMES and cat.first_seen == {2: FRAMES[0], 7: FRAMES[1]}
    _, (task,) = open_benchmark(get_benchmark("mine-val"), mine)
    assert task.demanded == cat.labelled == (FRAMES[0], FRAMES[1], FRAMES[3]) and task.category is None
    assert task.scored == {2: (FRAMES[1], FRAMES[3]), 7: (FRAMES[3],)}
    # meta.json limits objects and frames, where there is one.
    objects = {"2": {"frames": [FRAMES[0], FRAMES[3]]}}
    (mine / "valid" / "meta.json").write_text(json.dumps({"videos": {"cat": {"objects": objects}}}))
    _, (task,) = open_benchmark(get_benchmark("mine-val"), mine)
    assert task.scored == {2: (FRAMES[3],)} and task.demanded == (FRAMES[0], FRAMES[3])
    refused("mine has no split 'train'; there are val", open_videos, mine, "mine", "train")


def test_layout_and_protocol_are_independent(mine, declared):
    (mine / "val.txt").write_text("cat\n")
    places = {"frames": "valid/JPEGImages", "masks": "valid/Annotations", "splits": {"val": "val.txt"}}
    declared(layout="davis", protocol="youtube-vos", **places)
    assert open_videos(mine, "mine", "val")[0].first_seen == {2: FRAMES[0], 7: FRAMES[1]}
    declared(layout="davis", **places)
    refused("00000010.png: missing mask", open_videos, mine, "mine", "val")
    for frame in FRAMES:
        write_labels(mine / "valid" / "Annotations" / "cat" / f"{frame}.png", labels_with(1))
    _, (task,) = open_benchmark(get_benchmark("mine-val"), mine)
    assert task.scored == {1: FRAMES[1:3]} and task.demanded == FRAMES
    declared(protocol="davis")
    assert [video.name for video in open_videos(mine, "mine", "val")] == ["cat"]


OBJECTS = {"objects": {"1": {"frames": FRAMES[:1]}}}
FAULTS = [
    (lambda root: (root / "JPEGImages" / "cat" / "1.jpg").touch(), r"not a frame name like 0|1\.jpg: not a frame name"),
    (lambda root: shutil.rmtree(root / "JPEGImages" / "cat"), r"JPEGImages/cat: no such folder"),
    (lambda root: shutil.rmtree(root / "JPEGImages"), r"JPEGImages: no such folder"),
    (lambda root: (root / "meta.json").write_text('{"videos": {"dog": {"objects": {}}}}'), "no object"),
    (
        lambda root: (root / "meta.json").write_text(json.dumps({"videos": {"cat": OBJECTS, "ox": OBJECTS}})),
        r"meta\.json: lists video ox, which has no folder",
    ),
]


def test_hidden_files_are_no_videos(mine, declared):
    declared()
    (mine / "valid" / "JPEGImages" / ".DS_Store").touch()
    assert [video.name for video in open_videos(mine, "mine", "val")] == ["cat"]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_each_fault_names_its_file(mine, declared, damage, message):
    declared()
    damage(mine / "valid")
    refused(message, open_videos, mine, "mine", "val")


ENTRY = "datasets: {mine: {layout: youtube-vos, folder: FOLDER, splits: {val: valid}%s}}"


def config(folder, root, text: str):
    shutil.copytree(root / "config", folder, dirs_exist_ok=True)
    (folder / own_datasets.FILE).write_text(text)
    scale = folder / "scales" / "tiny.yaml"
    text = (root / "config" / "scales" / "tiny.yaml").read_text().replace("youtube-vos]", "youtube-vos, mine]")
    scale.write_text(text.replace("benchmarks: [davis2017-val]", "benchmarks: [davis2017-val, mine-val]"))
    return load(folder, {"scale": "tiny"})


def test_stamps_hold_what_a_result_depends_on(mine, declared, root, tmp_path):
    """Names and sizes of files, lists and the entry; not its title or the place of the folder."""

    def stamps(folder, extra=""):
        loaded = config(tmp_path / "config", root, (ENTRY % extra).replace("FOLDER", str(folder)))
        found = Stamps(loaded, tmp_path)
        names = ("prepare-mine", "segment-copy-first-mask-seed0-mine-val", "score-mine-val", "score-davis2017-val")
        return [found.digest(name) for name in names]

    first = stamps(mine)
    shutil.copytree(mine, tmp_path / "moved")
    assert stamps(tmp_path / "moved", ", title: Cats")[1:] == first[1:]
    with open(tmp_path / "moved" / "valid" / "JPEGImages" / "cat" / f"{FRAMES[0]}.jpg", "ab") as file:
        file.write(b"\0")
    changed = stamps(tmp_path / "moved")
    assert [a == b for a, b in zip(changed, first, strict=True)] == [False, False, False, True]
    refused("folder /nowhere: no such folder", stamps, "/nowhere")
    scale = tmp_path / "config" / "scales" / "tiny.yaml"
    there = "{mine: {benchmarks: [davis2017-val, mine-val], datasets: [coco, davis, youtube-vos, mine]}}"
    scale.write_text((root / "config" / "scales" / "tiny.yaml").read_text() + f"optional: {there}\n")
    for folder, benchmarks in (("/nowhere", ["davis2017-val"]), (mine, ["davis2017-val", "mine-val"])):
        (tmp_path / "config" / own_datasets.FILE).write_text((ENTRY % "").replace("FOLDER", str(folder)))
        assert load(tmp_path / "config", {"scale": "tiny"}).scale.benchmarks == benchmarks


def test_archives_hold_what_the_folder_holds(mine, declared, root, tmp_path):
    """Fetched from a mirror and extracted, or linked in place: the same data set."""
    (tmp_path / "mirror" / "mine").mkdir(parents=True)
    shutil.make_archive(str(tmp_path / "mirror" / "mine" / "all"), "zip", mine)
    manifests = []
    for place in (f"folder: {mine}", "archives: [all.zip]"):
        stamps = Stamps(
            config(tmp_path / "config", root, ENTRY.replace("folder: FOLDER", place) % ""), tmp_path
        ).contents
        mirror = {"mirror": str(tmp_path / "mirror")}
        fetch({"settings": stamps["fetch-mine"]["settings"] | mirror}, tmp_path / "archives")
        prepare(stamps["prepare-mine"], tmp_path / "archives", tmp_path / "out", tmp_path / "out.json")
        manifests.append(json.loads((tmp_path / "out.json").read_text()))
        assert open_videos(tmp_path / "out", "mine", "val")[0].frame(FRAMES[0]).any()
    folder, archive = manifests
    assert archive.pop("archives").keys() == {"all.zip"} and folder.pop("archives") == {}
    assert folder == archive and folder["files"] == 7 and folder["splits"]["val"]["objects"] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENTRY % ", archives: [a.zip]", "datasets.mine: give either `folder` or `archives`"),
        (ENTRY.replace("mine", "davis") % "", "datasets.davis: the project uses this name itself"),
        (ENTRY.replace("mine: ", "ytvos: ").replace("val:", "holdout:") % "", "would be named ytvos-holdout"),
        (ENTRY % ", masks: ../x", "datasets.mine: '../x' must be relative"),
        (ENTRY % ", protocol: davis2017", "protocol: 'davis2017' is none of davis or youtube-vos"),
        (ENTRY % ", mask: x", "datasets.mine.mask: unknown key"),
        (ENTRY.replace("{val: valid}", "{}") % "", "datasets.mine.splits"),
        ("datasets: {}", "tiny.yaml: datasets.3: 'mine' is none of coco"),
    ],
)
def test_a_fault_of_an_entry(declared, root, tmp_path, text, expected):
    with pytest.raises(HodorError) as error:
        config(tmp_path / "config", root, text)
    assert str(error.value).startswith("config/") and expected in str(error.value)
    assert not any(benchmark.own for benchmark in BENCHMARKS.values())
