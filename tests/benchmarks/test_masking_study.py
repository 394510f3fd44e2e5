"""Losses on held-out clips: what the clips show, and how rows are compared on them."""

import numpy as np
import pytest

from hodor.config.stages import StageOptions
from hodor.data.video import Video


class GreyVideo(Video):
    """Every frame has one grey value, ten times its number, and one square object."""

    def frame(self, frame):
        return np.full((self.height, self.width, 3), 10 * int(frame), np.uint8)

    def labels(self, frame):
        labels = np.zeros((self.height, self.width), np.uint8)
        labels[20:80, 20:80] = 1
        return labels


class Greys:
    """A method whose loss is the grey value of a clip's frames; it keeps the clips."""

    def __init__(self):
        self.clips = []

    def loss(self, clip, step):
        self.clips.append(clip)
        return {"loss": clip.frames[:, :, :, 40, 40].float().mean()}


@pytest.fixture
def study(script):
    """Return the script as a module."""
    return script("masking_study")


@pytest.fixture
def losses(study, monkeypatch):
    """Return losses by kind on a long and a short video, and the clips of each kind."""
    method = Greys()
    videos = [
        GreyVideo(name, tuple(f"{i:05d}" for i in range(frames)), None, None, 100, 120, (), {1: "00000"})
        for name, frames in (("long", 11), ("short", 3))
    ]
    source = {"dataset": "coco", "split": "train2017"}
    stage = StageOptions(
        kind="images", sources=[source], steps=1, batch=1, learning_rate=0.1, pixels=12000, colour=False
    )
    monkeypatch.setattr(study, "DISTANCES", (0, 1, 5))
    found = study.held_out_losses({"row": method}, videos, stage, clips=2)["row"]
    return found, [[clip.frames[0, :, 0, 40, 40].tolist() for clip in method.clips[i : i + 4]] for i in (0, 4, 8)]


def test_clips_show_one_warped_frame_or_frames_n_apart(losses):
    found, (warped, near, far) = losses
    assert list(found) == ["warped", "1 apart", "5 apart"]
    assert all(len(set(frames)) == 1 for frames in warped)
    assert all(np.diff(frames).tolist() == [10, 10] for frames in near)
    assert far == [[0, 50, 100], [0, 50, 100]]  # the short video has no such frames
    assert found["5 apart"].sequences.tolist() == ["long"] and found["1 apart"].sequences.tolist() == ["long", "short"]


def test_rows_are_compared_on_the_same_clips(study, losses):
    found, _ = losses
    assert study.compared(found, found)["5 apart"] == "50.000"
    other = {kind: study.Sample({0: dict.fromkeys(sample.objects, 7.0)}) for kind, sample in found.items()}
    assert study.compared(other, found)["5 apart"] == "7.000 (-43.000, -43.000 to -43.000)"
