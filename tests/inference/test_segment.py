"""Segmenting videos: palette masks, ids, later objects, memory, errors."""

import gc
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch

from hodor.data.images import read_labels, write_labels
from hodor.errors import HodorError
from hodor.inference.segment import MaskWriter, segment, segment_video
from hodor.provenance import sha256_file
from tests.narrow import small
from tests.refused import refused
from tests.videos import SIZE, boxes, save_video


def test_a_video_without_objects_is_refused(tmp_path):
    refused("nothing to track in video 'v'", list, segment_video(small("copy"), save_video(tmp_path, 2, {})))


def test_a_first_object_of_a_pixel_does_not_cost_the_benchmark_its_masks(tmp_path, capsys):
    """Its own mask stays on its frame, later objects are tracked."""
    video = save_video(tmp_path, 6, {4: 1, 9: 3})
    pixel = np.zeros(SIZE, np.uint8)
    pixel[30, 30] = 4
    write_labels(tmp_path / "00001.png", pixel)
    out = dict(segment_video(small("hodor"), video))
    assert np.array_equal(out["00001"], pixel) and not out["00002"].any()
    assert (out["00003"][boxes(4, 9)[9]] == 9).all() and set(np.unique(out["00005"])) <= {0, 9}
    reported = capsys.readouterr().err
    assert all(part in reported for part in ("/00001.png", "[4]", "short_side")) and reported.count("\n") == 1


@pytest.mark.parametrize("at", [0, 3])
def test_a_mask_of_another_size_is_refused(at, tmp_path):
    """On the first frame, and of an object that appears later."""
    video = save_video(tmp_path, 5, {4: 0, 9: 3})
    write_labels(tmp_path / f"{at:05d}.png", np.ones((SIZE[0], SIZE[1] + 1), np.uint8))
    refused(rf"/{at:05d}\.png: 97x64 pixels .* where 96x64 are expected", list, segment_video(small("copy"), video))


def test_memory_does_not_grow_with_the_video(tmp_path):
    """Long videos hold as much as short ones: only the window and one batch of frames."""

    def held(frames: int) -> tuple[int, int]:
        video = save_video(tmp_path / str(frames), frames, {1: 0}, (32, 48))
        method = small("hodor", inference={"short_side": 32, "feature_batch": 3})
        largest = 0
        tracemalloc.start()
        for number, _ in enumerate(segment_video(method, video)):
            if number % 10 == 9:  # with batches of three, at each place in a batch
                gc.collect()  # garbage of earlier tests is not held by this one
                # Without subclasses: the symbolic tensors of exported graphs have no number of elements.
                alive = sum(o.numel() for o in gc.get_objects() if type(o) is torch.Tensor)
                largest = max(largest, alive)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest, memory

    (short, short_memory), (long, long_memory) = held(32), held(62)
    assert long <= 1.05 * short and long_memory <= 1.1 * short_memory


def test_step_writes_masks_checksums_and_costs(tmp_path, networks, world):
    shutil.copy(networks / "hodor.safetensors", tmp_path / "model.safetensors")
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
    refused("masks/gone: not of davis2017-val", segment, stamp, tmp_path / "model.safetensors", world, tmp_path / "out")
    (tmp_path / "out" / "masks.json").write_text("{}")  # the folder is of an earlier call
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


def test_a_damaged_frame_is_named_while_reading_ahead(tmp_path):
    video = save_video(tmp_path, 8, {1: 0})
    video.frame_path("00005").write_bytes(video.frame_path("00005").read_bytes()[:200])
    done = []
    with pytest.raises(HodorError, match=r"00005\.jpg"):
        for name, _ in segment_video(small("hodor", inference={"feature_batch": 3}), video):
            done.append(name)
    assert done == ["00000", "00001"], "the batch before it, but for the frame that was still being computed"
