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

from hodor.cli.convert import convert
from hodor.cli.main import main
from hodor.data.images import write_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.inference import pretrained
from hodor.inference.pretrained import save_pretrained
from hodor.inference.segment import segment_video
from hodor.inference.tracker import MEMORY_FRAMES, Tracker
from hodor.inference.weights import open_weights
from hodor.models.base import build_method, load_model, read_weights, save_model, save_run, write_weights
from hodor.provenance import sha256_file, write_manifest
from tests.golden.inputs import no_random_weights
from tests.models.releases import original
from tests.narrow import MEMORY, NARROW

SIZE = (64, 96)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Write model files of small networks, named by method."""
    folder = tmp_path_factory.mktemp("networks")
    for name, options in (("hodor", NARROW), ("stm", MEMORY), ("copy", {})):
        torch.manual_seed(0)
        method = build_method(name, options)
        options = method.options.model_dump(mode="json") if options else {}
        save_model(folder / name, method, name=name, options=options)
    return folder


@pytest.fixture
def weights(tmp_path, networks):
    """Return a function that writes a run folder `small/<method>/seed0` below tmp_path."""

    def write(name: str = "hodor"):
        run = tmp_path / "small" / name / "seed0"
        run.mkdir(parents=True)
        shutil.copy(networks / name, run / "model.safetensors")
        return run

    return write


def frames(count: int) -> list[np.ndarray]:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.ascontiguousarray(np.roll(coarse, 2 * t, axis=1)) for t in range(count)]


def box(top: int, left: int, side: int = 24) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("name", ["hodor", "stm", "copy"])
def test_labels_are_those_of_a_benchmark(name, weights, tmp_path):
    """One object appears on frame 0, one on frame 2; ids have gaps."""
    video, given = frames(6), {0: (4, box(8, 8)), 2: (9, box(30, 60))}
    for t, image in enumerate(video):
        Image.fromarray(image).save(tmp_path / f"{t:05d}.jpg", quality=95)
    for t, (id, mask) in given.items():
        write_labels(tmp_path / f"{t:05d}.png", mask.astype(np.uint8) * id)
    names = tuple(f"{t:05d}" for t in range(6))
    disk = Video("v", names, tmp_path, tmp_path, *SIZE, ("00000", "00002"), {4: "00000", 9: "00002"})
    tracker = Tracker(weights(name), device="cpu", short_side=64)
    method = tracker.method
    method.inference = method.inference.model_copy(update={"feature_batch": 1})
    expected = dict(segment_video(method, disk))

    tracker.start(disk.frame("00000"), {4: box(8, 8)})
    ours = {"00000": tracker.labels}
    for t in range(1, 6):
        new = {9: given[2][1]} if t == 2 else None
        ours[names[t]] = tracker.step(disk.frame(names[t]), new)
    assert tracker.ids == [4, 9] and tracker.lost == []
    assert all(np.array_equal(ours[frame], expected[frame]) for frame in names)
    assert (ours["00002"][box(30, 60)] == 9).all()


def test_probabilities_on_request(weights):
    tracker = Tracker(weights(), device="cpu", short_side=64).start(frames(1)[0], {1: box(8, 8), 7: box(30, 60)})
    labels, probabilities = tracker.step(frames(2)[1], probabilities=True)
    assert probabilities.shape == (3, *SIZE) and probabilities.dtype == torch.float32
    assert np.array_equal(labels, np.array([0, 1, 7], np.uint8)[probabilities.argmax(0).numpy()])


def test_masks_may_be_labels(weights):
    image, labels = frames(1)[0], box(8, 8).astype(np.uint8) * 3
    labels[60:] = 255  # void is no object
    tracker = Tracker(weights(), device="cpu", short_side=64).start(image, labels)
    assert tracker.ids == [3] and set(np.unique(tracker.labels)) == {0, 3}
    again = box(40, 40).astype(np.uint8) * 3
    with pytest.raises(HodorError, match="a second mask of object 3"):
        tracker.step(image, again)
    assert tracker.step(image, again, ignore_followed=True) is tracker.labels and tracker.ids == [3]


def test_an_object_too_small_is_named(weights):
    tracker = Tracker(weights(), device="cpu", short_side=64).start(frames(1)[0], {1: box(8, 8), 2: box(50, 50, 1)})
    assert tracker.ids == [1] and tracker.lost == [2] and tracker.labels[50, 50] == 2
    labels = tracker.step(frames(2)[1], {3: box(40, 70, 1)})
    assert tracker.ids == [1] and tracker.lost == [2, 3]
    assert labels[40, 70] == 3 and labels[50, 50] != 2, "it appears on the frame of its mask only"


def test_a_new_start_forgets_the_last_video(weights):
    tracker = Tracker(weights(), device="cpu", short_side=64)
    video = frames(4)
    once = [tracker.start(video[0], {1: box(8, 8)}).step(frame) for frame in video[1:]]
    tracker.start(video[2], {5: box(20, 20)}).step(video[3])
    again = tracker.start(video[0], {1: box(8, 8)})
    assert np.array_equal(again.step(video[1]), once[0]) and again.ids == [1]


def test_objects_whose_probabilities_would_fill_the_memory_are_refused(weights, monkeypatch):
    monkeypatch.setattr("hodor.inference.tracker.MOST_VALUES", 2 * SIZE[0] * SIZE[1])
    tracker, video = Tracker(weights(), device="cpu", short_side=64), frames(2)
    with pytest.raises(HodorError, match="2 objects in frames of .* GiB"):
        tracker.start(video[0], {1: box(8, 8), 2: box(30, 30)})
    with pytest.raises(HodorError, match="2 objects in frames of .* GiB"):
        tracker.start(video[0], {1: box(8, 8)}).step(video[1], {2: box(30, 30)})


def test_bad_calls_are_refused(weights):
    tracker, image = Tracker(weights(), device="cpu", short_side=64), frames(1)[0]
    with pytest.raises(HodorError, match=r"before Tracker\.start"):
        tracker.step(image)
    with pytest.raises(HodorError, match="contains no object"):
        tracker.start(image, np.zeros(SIZE, np.uint8))
    with pytest.raises(HodorError, match="the mask of object 1 has size"):
        tracker.start(image, {1: np.ones((3, 4), bool)})
    with pytest.raises(HodorError, match="must be uint8 RGB"):
        tracker.start(image.astype(float), {1: box(8, 8)})
    tracker.start(image, {1: box(8, 8)})
    with pytest.raises(HodorError, match=r"size \(64, 95\), but the first has \(64, 96\)"):
        tracker.step(image[:, :-1])
    if not torch.cuda.is_available():
        with pytest.raises(HodorError, match="torch finds no GPU"):
            Tracker(weights("copy"), device="cuda")


def test_a_memory_method_memorises_a_bounded_number_of_frames(weights):
    """STM memorises one frame in five without a limit; a tracker has one, unless its settings set another."""
    tracker = Tracker(weights("stm"), device="cpu", short_side=64)
    assert tracker.method.inference.memory_frames == MEMORY_FRAMES
    small = Tracker(tracker.loaded.file, device="cpu", short_side=64, memory_every=1, memory_frames=3)
    small.start(frames(1)[0], {1: box(8, 8)})
    for frame in frames(6)[1:]:
        small.step(frame)
    assert small._state.bank.frames == [0, 4, 5]


# Weights


def write_settings(path, **settings) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"settings": settings} if "stamps" in str(path) else {"stamp_content": {"settings": settings}})
    )


def test_settings_come_from_the_runs_record_then_from_its_stamp(weights, tmp_path):
    run = weights()
    planned = tmp_path / "small" / "stamps" / "segment-hodor-seed0-davis2017-val.json"
    write_settings(planned, inference={"short_side": 96, "long_side": 200}, precision="bfloat16")
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


def test_weights_without_a_run_have_the_published_settings(networks, tmp_path):
    for name, sides in (("hodor", (512, 987)), ("stm", (480, None))):
        shutil.copy(networks / name, tmp_path / f"{name}.safetensors")
        loaded = open_weights(tmp_path / f"{name}.safetensors")
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
        convert(tmp_path / "stcn_s0.pth", tmp_path / "ours.safetensors")
        theirs, ours = (open_weights(tmp_path / name) for name in ("stcn_s0.pth", "ours.safetensors"))
    assert theirs.name == "stcn" and not theirs.method.training
    state = theirs.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.method.state_dict().items())
    assert theirs.method.inference == ours.method.inference


@pytest.mark.parametrize("kind", ["meta", "sparse", "complex"])
def test_tensors_of_unsupported_kinds_are_one_line(kind, stcn, tmp_path):
    change = {"meta": lambda t: t.to("meta"), "sparse": torch.Tensor.to_sparse, "complex": lambda t: t.to(torch.cfloat)}
    key = next(name for name, value in stcn.items() if value.ndim == 4)
    torch.save(stcn | {key: change[kind](stcn[key])}, tmp_path / "stcn_s0.pth")
    with no_random_weights(), pytest.raises(HodorError, match="stcn_s0.pth: ") as error:
        open_weights(tmp_path / "stcn_s0.pth")
    assert "\n" not in str(error.value)


def test_files_that_are_no_weights(weights, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "x.pth")
    for given, message in (
        (tmp_path / "empty", "not a run folder, it has no model.safetensors"),
        (tmp_path / "none.pth", "no such weights"),
        (tmp_path / "notes.txt", "unknown kind of weights"),
        (tmp_path / "x.pth", "of no known format"),
    ):
        with pytest.raises(HodorError, match=message):
            open_weights(given)
    with pytest.raises(HodorError, match="short_sid: unknown key"):
        open_weights(weights(), {"short_sid": 3})
    with pytest.raises(HodorError, match="temporal_window: .*greater than or equal to 1"):
        Tracker(weights("copy"), temporal_window=0)


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
def test_a_model_file_with_malformed_options_is_one_line(metadata, message, weights, tmp_path):
    state = load_file(weights() / "model.safetensors")
    if isinstance(metadata, dict):
        metadata = json.dumps({"method": "hodor", "options": {}} | metadata)
    save_file(state, tmp_path / "x.safetensors", metadata={"model": metadata})
    with pytest.raises(HodorError, match=message) as error:
        open_weights(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(weights):
    file = weights() / "model.safetensors"
    state, metadata = read_weights(file)
    key = next(name for name in state if name.endswith("q_proj.weight"))
    state[key][0, 0] = float("inf")
    save_file(state, file, metadata=metadata)
    with pytest.raises(HodorError, match=f"{key} contains NaN or infinity"):
        open_weights(file)


# Checkpoints for others


@pytest.fixture
def scored(weights, tmp_path):
    """Write a run of `hodor-soft-coco` at scale tiny with scores and a manifest."""
    name, method = load_model(weights() / "model.safetensors")
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

    def refused(message: str, target=tmp_path / "new") -> None:
        assert main(["convert", str(scored), str(target)]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "new").exists()

    refused("card: exists; use a folder that is absent or empty", folder)
    manifest = scored / "manifest.json"
    manifest.write_text(json.dumps(recorded | {"model": "0"}))
    refused("manifest.json: not of these weights; run hodor manifest hodor-soft-coco again")
    manifest.unlink()
    refused("manifest.json: no such file")
    (folder / "config.json").write_text("{}")
    with pytest.raises(HodorError, match="config.json: has no `inference` settings"):
        Tracker.from_pretrained(folder)


def test_names_of_checkpoints(scored, tmp_path, monkeypatch, capsys):
    """The package's own, those on the Hub, and what is neither."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "shipped")
    track = ["track", "video", "--mask", "first.png", "--out", "out", "--device", "cpu"]
    (tmp_path / "video").mkdir()
    for t, frame in enumerate(frames(2)):
        Image.fromarray(frame).save(tmp_path / "video" / f"{t}.png")
    write_labels(tmp_path / "first.png", box(8, 8).astype(np.uint8))
    assert main(track) == 1
    error = capsys.readouterr().err
    assert "ships no checkpoint; name weights: --weights PATH" in error and error.count("\n") == 1
    save_pretrained(open_weights(scored), tmp_path / "shipped" / "ours")
    assert main(track) == 0
    assert json.loads((tmp_path / "out/track.json").read_text())["weights"].endswith("shipped/ours/model.safetensors")
    assert (
        Tracker.from_pretrained(device="cpu").loaded.file == Tracker.from_pretrained("ours", device="cpu").loaded.file
    )

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HodorError, match=r"owner/name: no such file or folder; .* pip install 'hodor-repro\[hub\]'"):
        Tracker.from_pretrained("owner/name")
    for path in ("owner/name.pth", "owner/deep/name", "name", "shipped/name"):
        with pytest.raises(HodorError, match=f"{path}: no such weights"):
            Tracker.from_pretrained(path)
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
