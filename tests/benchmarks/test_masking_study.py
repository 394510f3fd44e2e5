"""What held-out clips show, what is pasted into sequences, and how rows are compared."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hodor.config.loading import load
from hodor.config.stages import StageOptions
from hodor.data.video import Video
from tests.benchmarks.conftest import FindsTheFirst
from tests.refused import refused


class GreyVideo(Video):
    """Every frame has one grey value, ten times its number, and one square object whose left edge is its name."""

    def frame(self, frame):
        return np.full((self.height, self.width, 3), 10 * int(frame), np.uint8)

    def labels(self, frame):
        labels, left = np.zeros((self.height, self.width), np.uint8), int(self.name)
        labels[20:80, left : left + 60] = 1
        return labels


def grey_video(left, frames):
    names = tuple(f"{i:05d}" for i in range(frames))
    return GreyVideo(str(left), names, None, None, 100, 120, names, {1: "00000"})


class Greys:
    """A method whose loss is the grey value of a clip's frames; it keeps the clips."""

    def __init__(self):
        self.clips = []

    def loss(self, clip, step):
        self.clips.append(clip)
        return {"loss": clip.frames[:, :, :, 40, 40].float().mean()}


@pytest.fixture
def losses(study, monkeypatch):
    """Return losses by kind on a long and a short video, and the clips of each kind."""
    method, videos = Greys(), [grey_video(20, frames=11), grey_video(21, frames=3)]
    source = {"dataset": "coco", "split": "train2017"}
    stage = StageOptions(
        kind="images", sources=[source], steps=1, batch=1, learning_rate=0.1, pixels=12000, colour=False
    )
    monkeypatch.setattr(study, "DISTANCES", (0, 1, 5))
    found = study.held_out_losses({("row", 0): method}, videos, stage, clips=2)["row", 0]
    return found, [[clip.frames[0, :, 0, 40, 40].tolist() for clip in method.clips[i : i + 4]] for i in (0, 4, 8)]


def test_clips_show_one_warped_frame_or_frames_n_apart(losses):
    found, (warped, near, far) = losses
    assert list(found) == ["warped", "1 apart", "5 apart"]
    assert all(len(set(frames)) == 1 for frames in warped)
    assert all(np.diff(frames).tolist() == [10, 10] for frames in near)
    assert far == [[0, 50, 100], [0, 50, 100]]  # the short video has no such frames
    assert [set(name for name, _ in found[kind]) for kind in ("1 apart", "5 apart")] == [{"20", "21"}, {"20"}]


def test_rows_are_compared_on_the_same_clips_over_all_seeds(study, losses):
    found, _ = losses
    others = [{kind: dict.fromkeys(of, loss) for kind, of in found.items()} for loss in (6.0, 8.0)]
    first, second = study.compared({("a", 0): found, ("b", 0): others[0], ("b", 1): others[1]}, 3)
    assert (first["row"], first["5 apart"]) == ("a", "50.000")
    assert (second["row"], second["5 apart"]) == ("b", "7.000 (-43.000, -44.000 to -42.000)")


def test_variants_without_the_first_frame_and_those_of_soft_masking_alone(study, root, monkeypatch):
    def load_model(path, inference=None):
        return None, SimpleNamespace(options=SimpleNamespace(attention=path.parent.name), inference=inference)

    def measure(method, videos, variant):
        return {"first kept": method.inference.keep_first, "frames": len(videos[0].frames)}

    monkeypatch.setattr(study, "load_model", load_model)
    monkeypatch.setattr(study, "measure", measure)
    options = SimpleNamespace(frames=4, split="train", variants=["as trained", "first frame forgotten", "binary masks"])
    folders = {("a", 0): Path("none"), ("b", 0): Path("soft")}
    config = load(root / "config", {"scale": "subset"})
    _, _, lines = study.variants(options, config, folders, [grey_video(0, 9)])
    assert [(line["row"], line["inference"], line["first kept"]) for line in lines] == [
        ("a", "as trained", True),
        ("a", "first frame forgotten", False),
        ("b", "as trained", True),
        ("b", "first frame forgotten", False),
        ("b", "binary masks", True),
    ]
    assert {line["frames"] for line in lines} == {4}


def test_objects_of_the_next_videos_that_hide_less_than_half_are_pasted(study):
    videos = [grey_video(left, frames) for left, frames in ((0, 9), (29, 9), (60, 4), (31, 9))]
    video = study.paste(2, 0, videos, frames=8)
    assert [of.name for of in video.videos] == ["0", "60"]  # that at 29 would hide more than half
    assert len(video.frames) == 4 and video.first_seen == {1: "00000", 2: "00000"}
    labels = video.labels("00002")
    assert (labels[50, 59], labels[50, 60], labels[10, 60]) == (1, 2, 0)
    around = study.paste(2, 3, videos, frames=8)  # from the last on to the first
    assert [of.name for of in around.videos] == ["31", "0"]
    refused("fewer than 3 other sequences", study.paste, 4, 0, videos, frames=8)


def test_pasted_pixels_are_those_of_the_same_frame_of_the_other_video(study):
    class Black(GreyVideo):
        def frame(self, frame):
            return 0 * super().frame(frame)

    under, over = Black(**vars(grey_video(0, 3))), grey_video(60, 3)
    frame = study.pasted([under, over], frames=3).frame("00002")
    assert (frame[50, 59, 0], frame[50, 60, 0], frame[10, 60, 0]) == (0, 20, 0)


def test_scores_by_number_of_objects_are_those_of_each_object(study):
    videos = [grey_video(0, 3), grey_video(60, 3)]
    by_number = {number: [study.paste(number, at, videos, frames=3) for at in (0, 1)] for number in (1, 2)}
    found = study.scores_by_number(FindsTheFirst(), by_number)
    assert list(found) == ["1 object", "2 objects", "own of 2"]
    assert found["1 object"] == {("0", "1"): 100, ("60", "1"): 100} == found["own of 2"]
    assert found["2 objects"]["0", "2"] == 0 and len(found["2 objects"]) == 4


def test_scores_are_means_of_j_and_f_on_annotated_frames(study):
    class FindsHalf(FindsTheFirst):
        def start(self, frame, masks):
            masks[1][50:] = False
            return masks

    video = replace(grey_video(0, 4), labelled=("00000", "00003"))
    assert len(list(study.segment(FindsHalf(), video, [1], perfect=False))) == 1
    ((j, f),) = study.object_scores(FindsHalf(), video)
    assert j == 0.5 != f
    assert study.scores_by_number(FindsHalf(), {1: [video]})["1 object"] == {("0", "1"): pytest.approx(50 * (j + f))}
