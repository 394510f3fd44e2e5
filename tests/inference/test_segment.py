"""Segmenting videos: palette masks, ids, later objects, memory, errors."""

import gc
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hodor.config.stages import InferenceOptions
from hodor.data.images import read_labels, write_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.inference.segment import MaskWriter, segment, segment_video
from hodor.models.base import build_method, save_model
from hodor.provenance import sha256_file
from tests.narrow import NARROW

SIZE = (64, 96)


def make_video(folder: Path, frames: int, objects: dict[int, int]) -> Video:
    """Random frames; each object (id -> first frame) is a square given in its first frame."""
    names = tuple(f"{t:05d}" for t in range(frames))
    for part in ("frames", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(folder / "frames" / f"{name}.jpg")
    for first in set(objects.values()):
        labels = np.zeros(SIZE, np.uint8)
        for place, (object_id, at) in enumerate(objects.items()):
            if at == first:
                labels[20:50, 5 + 30 * place : 30 + 30 * place] = object_id
        write_labels(folder / "labels" / f"{first:05d}.png", labels)
    labelled = tuple(f"{t:05d}" for t in sorted(set(objects.values())))
    first_seen = {object_id: f"{at:05d}" for object_id, at in objects.items()}
    return Video("v", names, folder / "frames", folder / "labels", *SIZE, labelled, first_seen)


@pytest.fixture(params=["hodor", "copy"])
def method(request):
    torch.manual_seed(0)
    options = NARROW if request.param == "hodor" else {}
    return build_method(request.param, options, InferenceOptions(short_side=64, feature_batch=3)).eval()


def test_every_frame_is_labelled_with_the_videos_own_ids(tmp_path, method):
    video = make_video(tmp_path, 7, {4: 0, 9: 3})
    out = dict(segment_video(method, video))
    assert tuple(out) == video.frames
    assert all(labels.shape == SIZE and labels.dtype == np.uint8 for labels in out.values())
    assert set(np.unique(out["00002"])) <= {0, 4} and set(np.unique(out["00006"])) <= {0, 4, 9}
    for frame, object_id in (("00000", 4), ("00003", 9)):
        given = read_labels(tmp_path / "labels" / f"{frame}.png") == object_id
        assert (out[frame][given] == object_id).all()


def test_a_video_without_objects_is_refused(tmp_path, method):
    with pytest.raises(HodorError, match="nothing to follow in video 'v'"):
        list(segment_video(method, make_video(tmp_path, 2, {})))


@pytest.mark.parametrize("method", ["hodor"], indirect=True)
def test_a_first_object_of_a_pixel_does_not_cost_the_benchmark_its_masks(tmp_path, method, capsys):
    """Its own mask stays on its frame, later objects are followed."""
    video = make_video(tmp_path, 6, {4: 1, 9: 3})
    pixel = np.zeros(SIZE, np.uint8)
    pixel[30, 30] = 4
    write_labels(tmp_path / "labels" / "00001.png", pixel)
    out = dict(segment_video(method, video))
    assert np.array_equal(out["00001"], pixel) and not out["00002"].any()
    given = read_labels(tmp_path / "labels" / "00003.png") == 9
    assert (out["00003"][given] == 9).all() and set(np.unique(out["00005"])) <= {0, 9}
    told = capsys.readouterr().err
    assert "labels/00001.png" in told and "[4]" in told and "short_side" in told and told.count("\n") == 1


@pytest.mark.parametrize("at", [0, 3])
def test_a_mask_of_another_size_is_refused(at, tmp_path, method):
    """On the first frame, and of an object that appears later."""
    video = make_video(tmp_path, 5, {4: 0, 9: 3})
    write_labels(tmp_path / "labels" / f"{at:05d}.png", np.ones((SIZE[0], SIZE[1] + 1), np.uint8))
    with pytest.raises(HodorError, match=rf"labels/{at:05d}\.png: 97x64 pixels .* where 96x64 are expected") as error:
        list(segment_video(method, video))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["hodor"], indirect=True)
def test_memory_does_not_grow_with_the_video(tmp_path, method):
    """Long videos hold as much as short ones: only the window and one batch of frames."""

    def held(frames: int) -> tuple[int, int]:
        video = make_video(tmp_path / str(frames), frames, {1: 0})
        largest = 0
        tracemalloc.start()
        for number, _ in enumerate(segment_video(method, video)):
            if number % 10 == 9:
                # Without subclasses: the symbolic tensors of exported graphs have no number of elements.
                alive = sum(o.numel() for o in gc.get_objects() if type(o) is torch.Tensor)
                largest = max(largest, alive)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest, memory

    (short, short_memory), (long, long_memory) = held(20), held(80)
    assert long <= 1.05 * short and long_memory <= 1.1 * short_memory


def test_step_writes_masks_checksums_and_costs(tmp_path, method, world):
    name = "copy" if type(method).__name__ == "Copy" else "hodor"
    options = method.options.model_dump(mode="json") if name == "hodor" else {}
    save_model(tmp_path / "model.safetensors", method, name=name, options=options)
    settings = {
        "benchmark": {"id": "davis2017-val", "dataset": "davis", "split": "val"},
        "inference": {"short_side": 64, "temporal_window": 3},
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
    }
    stamp = {"step": "segment", "scale": "test", "settings": settings, "recipes": {}, "sha256": "digest"}
    stale = tmp_path / "out" / "masks" / "gone"
    stale.mkdir(parents=True)
    segment(stamp, tmp_path / "model.safetensors", world, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "masks.json").read_text())
    files = {str(p.relative_to(tmp_path / "out" / "masks")) for p in (tmp_path / "out" / "masks").rglob("*.png")}
    assert set(record) == {"stamp", "weights", "data", "masks"} and set(record["masks"]) == files
    assert not stale.exists() and len(files) == 5
    costs = json.loads((tmp_path / "out" / "segment.json").read_text())
    assert costs["frames"] == 5 and costs["fps"] > 0 and costs["stamp_content"]["recipes"] == {}
    before = (tmp_path / "out" / "masks.json").read_bytes()
    segment(stamp, tmp_path / "model.safetensors", world, tmp_path / "out")
    assert (tmp_path / "out" / "masks.json").read_bytes() == before  # same weights, same bytes


def test_masks_are_written_beside_segmenting(tmp_path, monkeypatch):
    monkeypatch.setattr(MaskWriter, "WAITING", 2)
    masks = [np.full((4, 6), number, np.uint8) for number in range(5)]
    with MaskWriter(tmp_path) as writer:
        for number, labels in enumerate(masks):
            writer.write(f"{number:05d}", labels)
            assert len(writer._under_way) <= 2
        assert writer.finish() >= 0
    assert list(writer.checksums) == [f"{number:05d}.png" for number in range(5)]
    for number, labels in enumerate(masks):
        path = tmp_path / f"{number:05d}.png"
        assert np.array_equal(read_labels(path), labels) and sha256_file(path) == writer.checksums[path.name]


def test_a_mask_that_cannot_be_written_ends_the_step(tmp_path):
    (tmp_path / "00000.png").mkdir()
    with pytest.raises(OSError), MaskWriter(tmp_path) as writer:
        writer.write("00000", np.zeros((4, 6), np.uint8))
        writer.finish()


def test_a_damaged_frame_is_named_while_reading_ahead(tmp_path, method):
    video = make_video(tmp_path, 8, {1: 0})
    video.frame_path("00005").write_bytes(video.frame_path("00005").read_bytes()[:200])
    done = []
    with pytest.raises(HodorError, match=r"00005\.jpg"):
        for name, _ in segment_video(method, video):
            done.append(name)
    assert done == ["00000", "00001"], "the batch before it, but for the frame that was still being computed"
