"""Inputs made from public bug reports of this field, each with its right result, through the command line."""

import csv
import json
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodor.cli.main import main
from hodor.config.servers import load_server_scores
from hodor.data.images import read_labels
from hodor.errors import HodorError
from hodor.inference.video_io import open_frames

MOST_MEMORY = 1 << 20  # KiB


@pytest.fixture(scope="module")
def cases(shared) -> Path:
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip(f"no collected inputs: {folder} is absent")
    return folder


@pytest.fixture
def hodor(tmp_path, monkeypatch, capfd):
    """Calls the command line in an empty folder; returns its exit status and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str]:
        capfd.readouterr()
        status = main(list(map(str, arguments)))
        return status, "".join(capfd.readouterr())

    return call


@pytest.fixture
def prepare(hodor, cases, tmp_path):
    """Prepares the archives of a case; returns the exit status, the output and the folder of the data set."""

    def call(case: str) -> tuple[int, str, Path]:
        content = json.loads((cases / case / "stamp.json").read_text())
        content = {key: value for key, value in content.items() if key != "code"} | {"recipes": {}}
        stamp, out = tmp_path / "stamp.json", tmp_path / "out"
        stamp.write_text(json.dumps(content))
        given = ("--archives", cases / case / "archives", "--out", out, "--manifest", tmp_path / "out.json")
        status, output = hodor("prepare", "--stamp", stamp, *given)
        return status, output, out

    return call


@pytest.fixture
def track(hodor, cases, tmp_path, small_weights):
    """Tracks a video of a case; returns the exit status, the output and the labels of each frame."""

    def call(case: str, video: str = "v", mask: str = "mask.png") -> tuple[int, str, list[np.ndarray]]:
        folder, out = cases / case, tmp_path / "out"
        given = ("--mask", folder / mask, "--weights", small_weights, "--out", out, "--threads", "1", "--device", "cpu")
        status, output = hodor("track", folder / video, *given, "--short-side", "64")
        return status, output, [np.array(Image.open(path)) for path in sorted((out / "masks").glob("*.png"))]

    return call


def one_line_error(status: int, output: str) -> str:
    """The message of a refusal; a traceback or a second error line fails."""
    assert status == 1, output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if ": error: " in line]
    assert len(errors) == 1 and output.splitlines()[-1] == errors[0], output
    return errors[0]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("coco-image-id-string", ("image id '1' is a string", "whole number")),
        ("coco-polygon-huge", ("annotation 1:", "outside the image")),
        ("coco-rle-empty", ("annotation 1:", "run lengths")),
        ("coco-rle-null", ("annotation 1:", "run lengths")),
        ("coco-rle-short", ("annotation 1:", "1536", "3072")),
        ("zip-folder-above", ("DAVIS-2017/DAVIS/", "where DAVIS/ is expected")),
    ],
)
def test_archives_are_refused_for_what_is_wrong_in_them(prepare, case, words):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, output, out = prepare(case)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
    message = one_line_error(status, output)
    assert all(word in message for word in words), message
    assert not out.exists() and not out.with_suffix(".json").exists()


def test_an_absent_iscrowd_is_0(prepare):
    status, output, out = prepare("coco-no-iscrowd")
    assert status == 0, output
    counts = json.loads(out.with_suffix(".json").read_text())["splits"]["train2017"]
    assert counts["objects"] > 0 and counts["crowds"] == 0


def test_a_mask_of_davis_2016_with_an_alpha_channel_is_read_and_recorded(prepare):
    status, output, out = prepare("davis2016-la")
    assert status == 0, output
    defects = json.loads(out.with_suffix(".json").read_text())["known_defects"]
    (file,) = defects
    assert Path(file).parent.name == "bear" and "alpha" in defects[file]
    assert set(np.unique(read_labels(out / file))) == {0, 255}


@pytest.mark.parametrize(
    ("case", "defect", "left_out"),
    [("stcn-static-falcon", "fss/peregine_falcon/8.jpg", 1), ("stcn-static-stray-jpeg", ".jpeg", 0)],
)
def test_known_defects_of_the_static_images_are_left_out_and_recorded(prepare, case, defect, left_out):
    status, output, out = prepare(case)
    assert status == 0, output
    manifest = json.loads(out.with_suffix(".json").read_text())
    assert any(file.endswith(defect) for file in manifest["known_defects"])
    assert sum(split.get("left_out", 0) for split in manifest["splits"].values()) == left_out


def test_a_zip_of_a_windows_tool_is_extracted(prepare):
    status, output, out = prepare("zip-backslashes")
    assert status == 0, output
    assert (out / "DAVIS" / "JPEGImages").is_dir() and not [path for path in out.rglob("*") if "\\" in path.name]


@pytest.mark.parametrize(("case", "pred"), [("score-list-with-bom", "pred"), ("score-palette-order", "pred_plain")])
def test_masks_are_scored(hodor, cases, tmp_path, case, pred):
    truth, pred = cases / case / "truth", cases / case / pred
    given = ("--truth", truth, "--benchmark", "davis2017-val", "--out", tmp_path / "s", "--no-official")
    status, output = hodor("score", "--pred", pred, *given)
    assert status == 0, output
    found = next(csv.DictReader((tmp_path / "s" / "global.csv").open()))
    pairs = [
        (np.array(Image.open(pred / "one" / path.name)) > 0, np.array(Image.open(path)) > 0)
        for path in sorted((truth / "DAVIS" / "Annotations" / "480p" / "one").glob("*.png"))[1:-1]
    ]
    assert float(found["J-Mean"]) == pytest.approx(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))
    assert float(found["F-Mean"]) == pytest.approx(47 / 78)


def test_masks_whose_palette_contradicts_their_indices_are_not_scored(hodor, cases, tmp_path):
    case = cases / "score-palette-order"
    given = ("--truth", case / "truth", "--benchmark", "davis2017-val", "--out", tmp_path / "s", "--no-official")
    message = one_line_error(*hodor("score", "--pred", case / "pred", *given))
    assert "index 0" in message and "palette" in message
    assert not (tmp_path / "s" / "global.csv").exists()


def test_server_scores_that_look_like_fractions_are_refused(cases, tmp_path):
    text = (cases / "server-score-fraction" / "server_scores.yaml").read_text()
    (tmp_path / "server_scores.yaml").write_text(text)
    with pytest.raises(HodorError, match=r"0\.655 looks like a fraction; give points"):
        load_server_scores(tmp_path, "subset", ["subset"], ["copy-first-mask"])
    (tmp_path / "server_scores.yaml").write_text(text + "    unit: fraction\n")
    assert load_server_scores(tmp_path, "subset", ["subset"], ["copy-first-mask"])[0].overall()[
        "J&F-Mean"
    ] == pytest.approx(0.655)


@pytest.mark.parametrize(
    ("case", "video", "mask", "words"),
    [
        ("track-antialiased-mask", "v", "mask.png", ("mask.png", "62 grey levels", "anti-aliased", "threshold")),
        ("track-cut-mkv", "cut.mkv", "mask.png", ("cut.mkv", "damaged or cut off at frame 00020")),
        ("track-mask-among-frames", "v", "v/00000_mask.png", ("00000_mask.png", "frames")),
    ],
)
def test_videos_and_masks_are_refused_for_what_is_wrong_in_them(track, case, video, mask, words):
    status, output, _ = track(case, video, mask)
    message = one_line_error(status, output)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("case", "video", "ids"),
    [("track-mask-2-bit-grey", "v", [1, 2, 3]), ("track-avi-dropped-frames", "v.avi", [1, 2])],
)
def test_objects_are_those_of_the_mask_and_frames_those_that_are_there(track, case, video, ids):
    status, output, labels = track(case, video)
    assert status == 0, output
    assert np.unique(labels[0]).tolist() == [0, *ids] and len(labels) == 6


@pytest.mark.parametrize(("case", "video"), [("track-exif-3", "v"), ("track-mirrored", "v.mp4")])
def test_frames_are_seen_as_viewers_show_them(cases, case, video):
    """Each object of the mask, which is upright, has one colour in an upright frame."""
    labels = np.array(Image.open(cases / case / "mask.png"))
    _, frame = next(iter(open_frames(cases / case / video).frames()))

    def spread(image: np.ndarray) -> float:
        return max(image[labels == id].std(axis=0).mean() for id in (1, 2))

    assert spread(frame) < 20 < 30 < min(spread(frame[:, ::-1]), spread(frame[::-1, ::-1]))
