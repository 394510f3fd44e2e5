"""The Python API of tracking: the same labels as a benchmark's, objects at any frame, weights of every kind."""

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hodor.cli.main import main
from hodor.data.images import write_labels
from hodor.errors import HodorError
from hodor.inference import pretrained
from hodor.inference.pretrained import save_pretrained
from hodor.inference.segment import segment_video
from hodor.inference.tracker import MEMORY_FRAMES, Tracker
from hodor.inference.weights import open_weights
from hodor.models.base import load_model, read_weights, save_run, write_weights
from hodor.models.checkpoints.convert import convert_to_ours
from hodor.models.checkpoints.releases import FORMATS
from hodor.provenance import sha256_file, write_manifest
from tests.golden.inputs import no_random_weights, original
from tests.refused import refused
from tests.videos import SIZE, box, boxes, frames, save_video


@pytest.fixture
def make(networks):
    """Return a function that makes a tracker with the network of a method."""

    def tracker(name: str = "hodor", **settings) -> Tracker:
        return Tracker(networks / f"{name}.safetensors", **{"device": "cpu", "short_side": 64} | settings)

    return tracker


@pytest.mark.parametrize("name", ["hodor", "stm", "copy"])
def test_labels_are_those_of_a_benchmark(name, make, tmp_path):
    """One object appears on frame 0, one on frame 2; ids have gaps."""
    video, masks = save_video(tmp_path / "v", 6, {4: 0, 9: 2}), boxes(4, 9)
    tracker = make(name, feature_batch=1)
    expected = dict(segment_video(tracker.method, video))
    tracker.start(video.frame("00000"), {4: masks[4]})
    ours = {"00000": tracker.labels}
    for t, name in enumerate(video.frames[1:], 1):
        ours[name] = tracker.step(video.frame(name), {9: masks[9]} if t == 2 else None)
    assert tracker.ids == [4, 9] and tracker.lost == []
    assert all(np.array_equal(ours[name], expected[name]) for name in video.frames)
    assert (ours["00002"][masks[9]] == 9).all()


def test_probabilities_on_request(make):
    tracker = make().start(frames(1)[0], {1: box(8, 8), 7: box(30, 60)})
    labels, probabilities = tracker.step(frames(2)[1], probabilities=True)
    assert probabilities.shape == (3, *SIZE) and probabilities.dtype == torch.float32
    assert np.array_equal(labels, np.array([0, 1, 7], np.uint8)[probabilities.argmax(0).numpy()])


def test_masks_may_be_labels(make):
    image, labels = frames(1)[0], box(8, 8).astype(np.uint8) * 3
    labels[60:] = 255  # void is no object
    tracker = make().start(image, labels)
    assert tracker.ids == [3] and set(np.unique(tracker.labels)) == {0, 3}
    again = box(40, 40).astype(np.uint8) * 3
    refused("a second mask of object 3", tracker.step, image, again)
    assert tracker.step(image, again, ignore_tracked=True) is tracker.labels and tracker.ids == [3]


def test_an_object_too_small_is_named(make):
    tracker = make().start(frames(1)[0], {1: box(8, 8), 2: box(50, 50, 1)})
    assert tracker.ids == [1] and tracker.lost == [2] and tracker.labels[50, 50] == 2
    labels = tracker.step(frames(2)[1], {3: box(40, 70, 1)})
    assert tracker.ids == [1] and tracker.lost == [2, 3]
    assert labels[40, 70] == 3 and labels[50, 50] != 2, "it appears on the frame of its mask only"


def test_a_new_start_forgets_the_last_video(make):
    tracker = make()
    video = frames(4)
    once = [tracker.start(video[0], {1: box(8, 8)}).step(frame) for frame in video[1:]]
    tracker.start(video[2], {5: box(20, 20)}).step(video[3])
    again = tracker.start(video[0], {1: box(8, 8)})
    assert np.array_equal(again.step(video[1]), once[0]) and again.ids == [1]


def test_objects_whose_probabilities_would_fill_the_memory_are_refused(make, monkeypatch):
    monkeypatch.setattr("hodor.inference.tracker.MOST_VALUES", 2 * SIZE[0] * SIZE[1])
    tracker, video = make(), frames(2)
    refused("2 objects in frames of .* GiB", tracker.start, video[0], {1: box(8, 8), 2: box(30, 30)})
    refused("2 objects in frames of .* GiB", tracker.start(video[0], {1: box(8, 8)}).step, video[1], {2: box(30, 30)})


def test_bad_calls_are_refused(make):
    tracker, image = make(), frames(1)[0]
    refused(r"before Tracker\.start", tracker.step, image)
    refused("contains no object", tracker.start, image, np.zeros(SIZE, np.uint8))
    refused("the mask of object 1 has size", tracker.start, image, {1: np.ones((3, 4), bool)})
    refused("must be uint8 RGB", tracker.start, image.astype(float), {1: box(8, 8)})
    tracker.start(image, {1: box(8, 8)})
    refused(r"size \(64, 95\), but the first has \(64, 96\)", tracker.step, image[:, :-1])
    if not torch.cuda.is_available():
        refused("torch finds no GPU", make, "copy", device="cuda")


def test_a_memory_method_memorises_a_bounded_number_of_frames(make):
    """STM memorises one frame in five without a limit; a tracker has one, unless its settings set another."""
    tracker = make("stm")
    assert tracker.method.inference.memory_frames == MEMORY_FRAMES
    small = make("stm", memory_every=1, memory_frames=3)
    small.start(frames(1)[0], {1: box(8, 8)})
    for image in frames(6)[1:]:
        small.step(image)
    assert small._state.bank.frames == [0, 4, 5]


# Weights


def write_settings(path, **settings) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"settings": settings} if "stamps" in str(path) else {"stamp_content": {"settings": settings}})
    )


def test_settings_come_from_the_runs_record_then_from_its_stamp(networks, tmp_path):
    run = tmp_path / "small" / "hodor" / "seed0"
    run.mkdir(parents=True)
    shutil.copy(networks / "hodor.safetensors", run / "model.safetensors")
    stamps = tmp_path / "small" / "stamps"
    names = {"a-first": 48, "davis2017-val": 96}
    for name, digest, side in (*((n, "a" * 64, s) for n, s in names.items()), ("davis2017-val", "b" * 64, 32)):  # old
        planned = stamps / f"segment-hodor-seed0-{name}-{digest[:12]}.json"
        write_settings(planned, inference={"short_side": side, "long_side": 200}, precision="bfloat16")
    write_settings(stamps / f"segment-another-seed0-a-first-{'d' * 12}.json", inference={"short_side": 64})
    other = {"train-hodor-seed0": "c" * 64, "segment-another-seed0-a-first": "d" * 64}
    (stamps / "present.json").write_text(json.dumps(other))
    assert open_weights(run).settings_from.startswith("scale paper")  # nothing of this run
    current = {f"segment-hodor-seed0-{name}": "a" * 64 for name in names} | other
    (stamps / "present.json").write_text(json.dumps(current))
    loaded = open_weights(run)
    assert loaded.method.inference.short_side == 96 and loaded.precision == "bfloat16"
    for benchmark, side in (("a-first", 48), ("davis2017-val", 80)):
        inference = {"short_side": side, "long_side": 2 * side}
        write_settings(run / benchmark / "segment.json", inference=inference, precision="float32")
    for given in (run, run / "model.safetensors"):
        loaded = open_weights(given)
        assert loaded.method.inference.short_side == 80 and loaded.precision == "float32"
        assert loaded.settings_from.endswith("davis2017-val/segment.json")
    # The long side keeps its ratio to a given short side.
    assert open_weights(run, {"short_side": 120}).method.inference.long_side == 240
    assert open_weights(run, {"short_side": 120, "long_side": 150}).method.inference.long_side == 150


def test_weights_without_a_run_have_the_published_settings(networks):
    for name, sides in (("hodor", (512, 987)), ("stm", (480, None))):
        loaded = open_weights(networks / f"{name}.safetensors")
        found = loaded.method.inference
        assert found.short_side == sides[0] and found.long_side == (sides[1] or found.long_side)
        assert "paper" in loaded.settings_from


@pytest.fixture(scope="module")
def stcn():
    """Return the entries of an original checkpoint of STCN."""
    return original("stcn", dead=False)


def test_an_authors_checkpoint_is_converted_on_the_fly(stcn, tmp_path):
    torch.save(stcn, tmp_path / "stcn_s0.pth")
    with no_random_weights():
        loaded = open_weights(tmp_path / "stcn_s0.pth")
        expected, _, _ = convert_to_ours(FORMATS["stcn"], stcn)
    assert loaded.name == "stcn" and not loaded.method.training and loaded.method.inference.short_side == 480
    state = loaded.method.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.mark.parametrize("kind", ["meta", "sparse", "complex"])
def test_tensors_of_unsupported_kinds_are_one_line(kind, stcn, tmp_path):
    change = {"meta": lambda t: t.to("meta"), "sparse": torch.Tensor.to_sparse, "complex": lambda t: t.to(torch.cfloat)}
    key = next(name for name, value in stcn.items() if value.ndim == 4)
    torch.save(stcn | {key: change[kind](stcn[key])}, tmp_path / "stcn_s0.pth")
    with no_random_weights():
        refused("stcn_s0.pth: ", open_weights, tmp_path / "stcn_s0.pth")


def test_files_that_are_no_weights(make, networks, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "x.pth")
    for given, message in (
        (tmp_path / "empty", "not a run folder, it has no model.safetensors"),
        (tmp_path / "none.pth", "no such weights"),
        (tmp_path / "notes.txt", "unknown kind of weights"),
        (tmp_path / "x.pth", "of no known format"),
    ):
        refused(message, open_weights, given)
    refused("short_sid: unknown key", open_weights, networks / "hodor.safetensors", {"short_sid": 3})
    refused("temporal_window: .*greater than or equal to 1", make, "copy", temporal_window=0)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"options": {"dims": 32}}, "dims: Extra inputs are not permitted"),
        ({"options": {"dim": "wide"}}, "dim: Input should be a valid integer"),
        ({"options": {"dim": -8}}, "x.safetensors: "),
        ({"options": [1]}, "x.safetensors: "),
        ({"method": "another"}, "'another' is none of"),
        ({"method": None}, "x.safetensors: "),
        ("no json", "x.safetensors: "),
        ("{}", "x.safetensors: "),
    ],
)
def test_a_model_file_with_malformed_options_is_one_line(metadata, message, networks, tmp_path):
    state = load_file(networks / "hodor.safetensors")
    if isinstance(metadata, dict):
        metadata = json.dumps({"method": "hodor", "options": {}} | metadata)
    save_file(state, tmp_path / "x.safetensors", metadata={"model": metadata})
    refused(message, open_weights, tmp_path / "x.safetensors")


def test_weights_that_are_not_finite_are_refused(networks, tmp_path):
    state, metadata = read_weights(networks / "hodor.safetensors")
    key = next(name for name in state if name.endswith("q_proj.weight"))
    state[key][0, 0] = float("inf")
    save_file(state, tmp_path / "x.safetensors", metadata=metadata)
    refused(f"{key} contains NaN or infinity", open_weights, tmp_path / "x.safetensors")


# Checkpoints for others


@pytest.fixture
def scored(networks, tmp_path):
    """Write a run of `hodor-soft-coco` at scale tiny with scores and a manifest."""
    name, method = load_model(networks / "hodor.safetensors")
    run = tmp_path / "tiny" / "hodor-soft-coco" / "seed0"
    stamp = {"sha256": "0", "scale": "tiny", "settings": {"method": name}}
    save_run(run, method, stamp, options=method.options.model_dump(mode="json"), seconds=1, log="")
    inference = {"short_side": 64, "long_side": 200}
    write_settings(run / "davis2017-val" / "segment.json", inference=inference, precision="float32")
    for file, content in {"masks": {"weights": "x"}, "score": {"truth": "x", "sequences": 30}}.items():
        (run / "davis2017-val" / f"{file}.json").write_text(json.dumps(content))
    (run / "davis2017-val" / "global.csv").write_text("J&F-Mean,J-Mean,F-Mean\n0.8125,0.8,0.825\n")
    write_manifest(run, "hodor-soft-coco", 0)
    return run


def test_a_run_is_exchanged_as_a_folder_with_a_model_card(scored, tmp_path, capsys):
    folder = tmp_path / "card"
    assert main(["convert", str(scored), str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    theirs, ours = Tracker.from_pretrained(folder, device="cpu"), Tracker(scored, device="cpu")
    assert theirs.method.inference == ours.method.inference and theirs.method.inference.short_side == 64
    video = frames(2)
    labels = [tracker.start(video[0], {1: box(8, 8)}).step(video[1]) for tracker in (theirs, ours)]
    assert np.array_equal(*labels)
    card, digest = (folder / "README.md").read_text(), sha256_file(scored / "model.safetensors")
    recorded = json.loads((scored / "manifest.json").read_text())
    for text in ("| DAVIS-2017 val (generated data) | J&F | 81.2 | 30 |", "say nothing about", "0.11 million"):
        assert text in card
    for text in ("HODOR", "| coco | generated |", digest, recorded["commit"], recorded["versions"]["torch"]):
        assert text in card
    theirs.save_pretrained(tmp_path / "again")
    for file in ("README.md", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
    capsys.readouterr()

    def unconverted(message: str, target=tmp_path / "new") -> None:
        assert main(["convert", str(scored), str(target)]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "new").exists()

    unconverted("card: exists; use a folder that is absent or empty", folder)
    manifest = scored / "manifest.json"
    manifest.write_text(json.dumps(recorded | {"model": "0"}))
    unconverted("manifest.json: not of these weights; run hodor manifest hodor-soft-coco again")
    recorded["config"]["train"]["settings"]["stage"] = {"sources": [{"dataset": "davis2016", "split": "train"}]}
    manifest.write_text(json.dumps(recorded))
    unconverted("seed0: trained on other data than scale tiny uses here")
    manifest.unlink()
    unconverted("manifest.json: no such file")
    (folder / "config.json").write_text("{}")
    refused("config.json: has no `inference` settings", Tracker.from_pretrained, folder)


def test_names_of_checkpoints(scored, tmp_path, monkeypatch, capsys):
    """The package's own, those on the Hub, and what is neither."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "shipped")
    track = ["track", "video", "--mask", "first.png", "--out", "out", "--device", "cpu"]
    (tmp_path / "video").mkdir()
    for t, image in enumerate(frames(2)):
        Image.fromarray(image).save(tmp_path / "video" / f"{t}.png")
    write_labels(tmp_path / "first.png", box(8, 8).astype(np.uint8))
    assert main(track) == 1
    error = capsys.readouterr().err
    assert "ships no checkpoint; name weights: --weights PATH" in error and error.count("\n") == 1
    save_pretrained(open_weights(scored), tmp_path / "shipped" / "ours")
    assert main(track) == 0
    assert json.loads((tmp_path / "out/track.json").read_text())["weights"].endswith("shipped/ours/model.safetensors")
    found = [Tracker.from_pretrained(*names, device="cpu").loaded.file for names in ((), ("ours",))]
    assert found[0] == found[1]

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HodorError, match=r"owner/name: no such file or folder; .* pip install 'hodor-repro\[hub\]'"):
        Tracker.from_pretrained("owner/name")
    for path in ("owner/name.pth", "owner/deep/name", "name", "shipped/name"):
        refused(f"{path}: no such weights", Tracker.from_pretrained, path)
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["revision"]))
        if name != "owner/name":
            raise OSError("404 Client Error\nmore")
        return str(tmp_path / "shipped" / "ours")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    Tracker.from_pretrained("owner/name", revision="v1", device="cpu")
    with pytest.raises(HodorError, match=r"owner/none: neither a file .* \(404 Client Error\); check the name"):
        Tracker.from_pretrained("owner/none")
    assert asked == [("owner/name", "v1"), ("owner/none", None)]


def test_a_run_is_stored_in_half_the_size(scored, tmp_path, capsys):
    folder = tmp_path / "half"
    assert main(["convert", str(scored), str(folder), "--half"]) == 0
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, scored)]
    assert sizes[0] < 0.6 * sizes[1] and "Stored as float16" in (folder / "README.md").read_text()
    theirs, ours = (Tracker(path, device="cpu").method.state_dict() for path in (folder, scored))
    for name, value in ours.items():
        assert theirs[name].dtype == value.dtype
        assert torch.equal(theirs[name], value.half().to(value.dtype) if value.is_floating_point() else value)

    assert main(["convert", str(folder / "model.safetensors"), str(tmp_path / "model.pth"), "--half"]) == 1
    assert "--half is for a run folder" in capsys.readouterr().err
    weights, metadata = read_weights(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] = weights[name].float().fill_(1e6)
    write_weights(folder / "model.safetensors", weights, "model", json.loads(metadata["model"]))
    assert main(["convert", str(folder), str(tmp_path / "new"), "--half"]) == 1
    assert f"{name} is beyond the range of float16" in capsys.readouterr().err and not (tmp_path / "new").exists()
