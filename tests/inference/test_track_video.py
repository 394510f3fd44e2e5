"""`hodor track`: videos and folders in, masks, overlay and record out; bad input refused; memory that does not grow."""

import errno
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from hodor.cli import main as cli
from hodor.data.images import DAVIS_PALETTE, read_labels, write_labels
from hodor.inference import track_video as module
from hodor.inference.video_io import open_frames
from tests.videos import SIZE, box, frames


def block(top: int, left: int, id: int, size=SIZE) -> np.ndarray:
    return (box(top, left, size=size) * id).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Write a folder of six frames, 8.jpg to 13.jpg."""
    (tmp_path / "clip").mkdir()
    for t, frame in enumerate(frames(6), 8):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{t}.jpg", quality=95)
    return tmp_path / "clip"


@pytest.fixture
def mask(tmp_path) -> list:
    """Write the mask of an object on the first frame; return the arguments that name it."""
    write_labels(tmp_path / "m.png", block(8, 8, 1))
    return ["--mask", tmp_path / "m.png"]


@pytest.fixture
def track(tmp_path, small_weights, capsys, monkeypatch):
    """Return a function that runs the command in `tmp_path`, with output `out`, and returns status and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(video, *arguments, weights=small_weights, out="out") -> tuple[int, str]:
        common = ["--weights", weights, "--short-side", 64, "--device", "cpu", "--threads", 1]
        common += ["--out", tmp_path / out] if out else []
        status = cli.main(["track", *map(str, [video, *common, *arguments])])
        return status, capsys.readouterr().err

    return run


def test_a_folder_with_one_object_and_a_later_one(folder, track, tmp_path):
    write_labels(tmp_path / "first.png", block(8, 8, 3))
    later = block(8, 8, 3)  # as in DAVIS, the later mask contains the first object too
    later[36:60, 60:84] = 5
    write_labels(tmp_path / "later.png", later)
    both = ["--mask", tmp_path / "first.png", "--mask", f"10={tmp_path / 'later.png'}"]
    status, error = track(folder, *both)
    assert status == 1 and "later.png: a second mask of object 3" in error
    status, error = track(folder, *both, "--ignore-tracked", "--fps", 10)
    assert status == 0, error
    masks = sorted((tmp_path / "out" / "masks").iterdir(), key=lambda path: int(path.stem))
    assert [path.name for path in masks] == [f"{t}.png" for t in range(8, 14)]
    for path in masks:
        image = Image.open(path)
        assert image.mode == "P" and image.size == (96, 64)
        assert (np.array(image.getpalette()).reshape(-1, 3)[:20] == DAVIS_PALETTE[:20]).all()
    labels = [read_labels(path) for path in masks]
    assert np.array_equal(labels[0], block(8, 8, 3))
    assert set(np.unique(labels[1])) <= {0, 3} and (labels[2][36:60, 60:84] == 5).all()
    overlay = open_frames(tmp_path / "out" / "overlay.mp4")
    assert overlay.rate == 10 and len(list(overlay.frames())) == 6
    record = json.loads((tmp_path / "out" / "track.json").read_text())
    assert record["complete"] and record["frames"] == 6 and record["objects"] == {"3": "8", "5": "10"}
    assert record["inference"]["short_side"] == 64 and record["method"] == "hodor"
    assert re.search(r"clip: 100%.* 6/6 ", error) and "hodor, 0.1 M parameters; short_side 64" in error


def test_a_video_file_whose_object_appears_late(tmp_path, write_video, track):
    """Frames before the first mask are background."""
    video = write_video(tmp_path / "v.mp4", frames(5))
    Image.fromarray(block(8, 8, 255)).save(tmp_path / "m.png")  # black and white: one object
    assert track(video, "--mask", f"2={tmp_path / 'm.png'}")[0] == 0
    labels = [read_labels(tmp_path / "out" / "masks" / f"{t:05d}.png") for t in range(5)]
    assert not labels[0].any() and not labels[1].any() and np.array_equal(labels[2], block(8, 8, 1))
    assert open_frames(tmp_path / "out" / "overlay.mp4").rate == 12


@pytest.mark.parametrize(
    ("weights", "given", "amx", "expected"),
    [
        ("hodor", (), True, "bfloat16"),
        ("hodor", (), False, "float32"),
        ("hodor", ("--precision", "float32"), True, "float32"),
        ("stm", (), True, "float32"),
    ],
)
def test_default_precision_is_the_faster_one_of_the_cpu(
    folder, track, mask, networks, tmp_path, monkeypatch, weights, given, amx, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    status, error = track(folder, *mask, *given, weights=networks / f"{weights}.safetensors")
    assert status == 0 and f"on cpu in {expected}" in error
    assert json.loads((tmp_path / "out/track.json").read_text())["precision"] == expected


def test_boxes_are_segmented_and_followed(tmp_path, track):
    """A bright object on a dark background is cut out of its box; a box without background around it is used whole."""
    (tmp_path / "clip").mkdir()
    shape, noise = np.zeros(SIZE, np.uint8), np.random.default_rng(0)
    cv2.circle(shape, (30, 30), 12, 1, -1)
    for t in range(3):
        picture = np.where(shape[..., None] > 0, (230, 180, 40), (20, 40, 60)) + noise.integers(0, 20, (*SIZE, 3))
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "clip" / f"{t}.png")
    write_labels(tmp_path / "mask.png", block(36, 70, 7))
    status, error = track(
        tmp_path / "clip", "--box", "14,14,32,32", "--box", "1=60,0,20,20", "--mask", tmp_path / "mask.png"
    )
    assert status == 0, error
    first, second = (read_labels(tmp_path / "out" / "masks" / f"{t}.png") for t in range(2))
    found, true = first == 1, shape > 0
    assert (found & true).sum() / (found | true).sum() > 0.95 and np.array_equal(first == 7, block(36, 70, 7) > 0)
    assert set(np.unique(second)) <= {0, 1, 2, 7} and (second == 2).any()
    assert json.loads((tmp_path / "out/track.json").read_text())["objects"] == {"1": "0", "2": "1", "7": "0"}
    status, error = track(tmp_path / "clip", "--box", "0,0,96,64", out=None)
    assert "box 0,0,96,64: GrabCut finds no object; the whole box is used" in error
    assert status == 0 and (read_labels(tmp_path / "clip-tracked" / "masks" / "0.png") == 1).all()


# Bad input


def test_masks_that_are_refused_before_anything_is_written(folder, track, tmp_path):
    write_labels(tmp_path / "good.png", block(8, 8, 1))
    write_labels(tmp_path / "two.png", block(8, 8, 2))
    write_labels(tmp_path / "other.png", block(8, 8, 1, (64, 95)))
    write_labels(tmp_path / "empty.png", np.zeros(SIZE, np.uint8))
    Image.fromarray(block(8, 8, 255)).save(tmp_path / "white.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-30])
    good = ["--mask", tmp_path / "good.png"]
    for masks, message in (
        ([], "no mask; give the objects of the first frame with --mask FIRST.png"),
        (["--mask", tmp_path / "none.png"], "none.png: no such mask"),
        (["--mask", tmp_path / "other.png"], "other.png: 95x64 pixels (width x height) where 96x64"),
        (["--mask", tmp_path / "empty.png"], "empty.png: contains no object"),
        (["--mask", tmp_path / "cut.png"], "save the mask again"),
        ([*good, "--mask", f"9={tmp_path / 'white.png'}"], "white.png: contains 255 only; use a number"),
        ([*good, "--mask", f"8={tmp_path / 'white.png'}"], "good.png is a mask of the same frame"),
        (["--mask", folder / "8.jpg"], "8.jpg: is among the frames"),
        (["--mask", f"99={tmp_path / 'good.png'}"], "has no frame 99, only 6 frames"),
        (["--box", "8,8,24"], "--box 8,8,24: must be X,Y,W,H or FRAME=X,Y,W,H"),
        (["--box", "9=1.5,8,24,24"], "must be X,Y,W,H"),
        (["--box", "80,8,24,24"], "box 80,8,24,24: not in the frame of 96x64 pixels"),
        (["--box", "8,8,0,24"], "not in the frame"),
        (["--box", "99=8,8,24,24"], "has no frame 99, only 6 frames"),
        (["--box", "8,8,24,24", *good], "good.png: a second mask of object 1"),
        (["--box", "9=8,8,24,24", *good, "--ignore-tracked"], "good.png: a second mask of object 1"),
        (["--box", "30,30,1,1", "--box", "30,30,1,1"], "--box 30,30,1,1: later boxes cover its whole object"),
        (["--box", "10,10,1,1", "--mask", tmp_path / "two.png"], "two.png: covers the whole object of box 1"),
    ):
        status, error = track(folder, *masks)
        lines = [line for line in error.splitlines() if "the whole box is used" not in line]
        assert status == 1 and message in error and len(lines) == 1, error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "short_sid=3"], "short_sid: unknown key"),
        (["--set", "temporal_window"], "must be KEY=VALUE"),
        (["--set", "temporal_window=many"], "temporal_window: Input should be a valid integer"),
        (["--fps", "0"], "--fps 0: must be from"),
        (["--fps", "nan"], "--fps nan: must be from"),
        (["--fps", "1e-9"], "--fps 1e-09: must be from"),
        (["--threads", "0"], "--threads 0: must be 1 to 1024"),
        (["--threads", "999999999"], "must be 1 to 1024"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: no such weights"),
    ],
)
def test_options_that_are_refused(arguments, message, folder, mask, track, tmp_path):
    status, error = track(folder, *mask, *arguments)
    assert status == 1 and message in error and not (tmp_path / "out").exists()


def test_no_file_is_overwritten(folder, mask, track, tmp_path):
    (tmp_path / "out").mkdir()
    assert track(folder, *mask)[0] == 0  # an empty folder is accepted
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    status, error = track(folder, *mask)
    assert status == 1 and "out: not empty; use another folder" in error
    assert all(path.read_bytes() == content for path, content in before.items())
    assert "m.png: is a file; use a folder" in track(folder, *mask, out="m.png")[1]


def test_a_broken_frame_keeps_what_was_done(folder, mask, track, tmp_path):
    content = (folder / "11.jpg").read_bytes()
    (folder / "11.jpg").write_bytes(content[: len(content) // 2])
    status, error = track(folder, *mask)
    assert status == 1 and "11.jpg: " in error and "the 3 frames before it are done" in error
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["10.png", "8.png", "9.png"]
    assert len(list(open_frames(tmp_path / "out" / "overlay.mp4").frames())) == 3
    record = json.loads((tmp_path / "out" / "track.json").read_text())
    assert record["frames"] == 3 and not record["complete"]


def test_an_error_on_the_first_frame_leaves_no_folder(folder, track, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[30, 30] = 1
    write_labels(tmp_path / "m.png", labels)
    for _ in range(2):
        status, error = track(folder, "--mask", tmp_path / "m.png")
        assert status == 1 and error.rstrip().endswith("; no frame was done") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("writer", ["write_labels", "VideoWriter.write"])
def test_a_full_disk_keeps_what_was_done(writer, folder, mask, track, tmp_path, monkeypatch):
    owner, name = (module, writer) if "." not in writer else (module.VideoWriter, "write")
    real, calls = getattr(owner, name), []

    def write(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        return real(*arguments)

    monkeypatch.setattr(owner, name, write)
    status, error = track(folder, *mask)
    assert status == 1 and "hodor track: error: somewhere: No space left on device; free space" in error
    assert "the 2 frames before it are done" in error
    assert not json.loads((tmp_path / "out" / "track.json").read_text())["complete"]


def test_a_mask_beyond_the_end_of_a_video_of_unknown_length(folder, mask, track, tmp_path, monkeypatch):
    write_labels(tmp_path / "n.png", block(8, 8, 2))
    source = open_frames(folder)
    source.count = None
    monkeypatch.setattr(module, "open_frames", lambda path, rate: source)
    status, error = track(folder, *mask, "--mask", f"77={tmp_path / 'n.png'}")
    assert status == 1 and "has 6 frames, so the mask of frame 77 was never used" in error
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 6


@pytest.mark.long
def test_memory_does_not_grow_with_the_video(tmp_path, write_video, small_weights):
    """The peak of the whole process, decoder and encoder included: the 270 further frames alone would be 59 MiB."""
    size, peaks = (240, 320), []
    mask = np.zeros(size, np.uint8)
    mask[40:160, 80:200] = 1
    write_labels(tmp_path / "m.png", mask)
    for count in (150, 420):  # the first hundred frames fill buffers
        video = write_video(tmp_path / f"{count}.mp4", frames(count, size))
        command = ["track", video, "--mask", tmp_path / "m.png", "--weights", small_weights, "--short-side", 32]
        out = ["--out", tmp_path / str(count), "--device", "cpu", "--threads", 1]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "hodor", *map(str, [*command, *out])],
            check=True,
            env=environment,
            capture_output=True,
        )
        record = json.loads((tmp_path / str(count) / "track.json").read_text())
        assert record["frames"] == count
        peaks.append(record["peak_memory_mib"])
    assert peaks[1] - peaks[0] < 25, peaks
