"""Zips for the servers, and the scores that come back."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from hodor.cli.main import main
from hodor.config.datasets import GeneratedOptions
from hodor.config.servers import load_server_scores, load_servers, pending_text, server_overall
from hodor.data.images import write_labels
from hodor.data.synthetic import generate
from hodor.data.youtube_vos import load_youtube_vos, read_meta
from hodor.errors import HodorError
from hodor.provenance import sha256_file
from hodor.scoring.score import submit
from tests.refused import refused

from .conftest import read_record, relabel, set_pixel

TEST_DEV = "davis2017-test-dev"


@pytest.fixture
def secret(make_tree):
    """A test-dev tree with the first masks alone, and predictions."""
    tree = make_tree({"walk": (6, 2), "run": (5, 1)}, split="test-dev")
    for sequence, frames in (("walk", 6), ("run", 5)):
        for frame in range(1, frames):
            tree.truth_path(sequence, frame).unlink()
    return tree


def test_the_zip_of_test_dev(secret, tmp_path):
    archive = tmp_path / "results" / "a.zip"
    digest = submit(secret.pred, secret.root, TEST_DEV, archive, tmp_path / "out")
    assert digest == sha256_file(archive)
    with zipfile.ZipFile(archive) as zipped:
        names = [f"run/{t:05d}.png" for t in range(5)] + [f"walk/{t:05d}.png" for t in range(6)]
        assert zipped.namelist() == names and zipped.testzip() is None
        for name in names:
            assert zipped.read(name) == (secret.pred / name).read_bytes()
    record = read_record(tmp_path / "out")
    assert record["submission"] == {"sha256": digest, "bytes": archive.stat().st_size}
    assert (record["sequences"], record["objects"], record["frames"]) == (2, 3, 11)
    assert (tmp_path / "out" / "global.csv").read_text() == "J&F-Mean,J-Mean,F-Mean\n"
    relabel(secret.pred_path("run", 2), lambda labels: 255 * labels)  # the foreground of the one object
    assert submit(secret.pred, secret.root, TEST_DEV, tmp_path / "b.zip", None) == digest, (
        "the same masks, the same bytes"
    )


def test_the_zip_of_youtube_vos_has_the_listed_frames(tmp_path):
    options = GeneratedOptions(
        youtube_train=1, youtube_valid=2, youtube_sizes=[(64, 112)], youtube_frames=5, objects=(1, 2)
    )
    for archive in generate("youtube-vos", options, tmp_path / "archives")[:2]:
        zipfile.ZipFile(archive).extractall(tmp_path / "youtube-vos")
    root = tmp_path / "youtube-vos"
    first = load_youtube_vos(root, "valid")[0]
    shutil.copy(first.frame_path("00000"), first.frame_folder / "00999.jpg")
    for video in load_youtube_vos(root, "valid"):
        for frame in video.frames:
            labels = np.zeros((video.height, video.width), np.uint8)
            write_labels(tmp_path / "masks" / video.name / f"{frame}.png", labels)
    submit(tmp_path / "masks", root, "ytvos2019-val", tmp_path / "a.zip", None)
    listed = {
        f"Annotations/{video}/{frame}.png"
        for video, objects in read_meta(root / "valid" / "meta.json").items()
        for frames in objects.values()
        for frame in frames
    }
    assert set(zipfile.ZipFile(tmp_path / "a.zip").namelist()) == listed
    assert not any("00999" in name for name in listed)


DAMAGES = {
    "missing": (lambda path: path.with_name("00000.png").unlink(), r"walk/00000\.png: frame missing; the server"),
    "id": (lambda path: relabel(path, set_pixel(3)), r"walk/00003\.png: object id 3"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_masks_that_the_server_would_not_accept(secret, tmp_path, name):
    damage, message = DAMAGES[name]
    damage(secret.pred_path("walk", 3))
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"of an older run")
    refused(message, submit, secret.pred, secret.root, TEST_DEV, archive, tmp_path / "out")
    assert not archive.exists() and not list(tmp_path.glob(".*part")), "neither an old zip nor half a new one"


def test_the_masks_and_the_last_zip_are_kept_when_the_call_is_wrong(secret, tmp_path):
    masks = Path(shutil.make_archive(str(tmp_path / "masks"), "zip", secret.pred))
    before = masks.read_bytes()
    for pred, message in ((masks, "holds the masks themselves"), (tmp_path / "none", "none: no such folder")):
        refused(message, submit, pred, secret.root, TEST_DEV, masks, None)
        assert masks.read_bytes() == before


def test_the_verb(secret, tmp_path, capsys):
    flags = ["--pred", str(secret.pred), "--truth", str(secret.root), "--benchmark", TEST_DEV]
    assert main(["score", *flags, "--out", str(tmp_path / "out")]) == 1
    assert "`hodor submit`" in capsys.readouterr().err
    assert main(["submit", *flags, "--zip", str(tmp_path / "a.zip")]) == 0
    assert sha256_file(tmp_path / "a.zip") in capsys.readouterr().err


SCORE = {
    "scale": "paper",
    "row": "stcn",
    "seed": 0,
    "benchmark": TEST_DEV,
    "submission": "0" * 64,
    "date": "2027-01-31",
    "scores": {"J&F": 51.7, "J": 50.0, "F": 53.4},
}
YOUTUBE = SCORE | {
    "benchmark": "ytvos2019-val",
    "scores": {"G": 70.0, "J_seen": 71.0, "F_seen": 73.0, "J_unseen": 66.0, "F_unseen": 70.0},
}


def load(tmp_path, *entries, scale="paper"):
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "server_scores.yaml").write_text(yaml.safe_dump({"scores": list(entries)}))
    return load_server_scores(tmp_path / "config", scale, ["mini", "paper"], ["stcn"])


def test_scores_become_columns(tmp_path):
    davis, youtube = load(tmp_path, SCORE, YOUTUBE)
    assert davis.overall() == pytest.approx({"J&F-Mean": 0.517, "J-Mean": 0.5, "F-Mean": 0.534})
    found = youtube.overall()
    assert found["G"] == found["J&F-Mean"] == pytest.approx(0.7)
    assert (found["J-Mean"], found["F-Mean"], found["J-unseen"]) == pytest.approx((0.685, 0.715, 0.66))
    assert load(tmp_path, SCORE, YOUTUBE, scale="mini") == ()
    assert load(tmp_path, SCORE | {"scores": {"J&F": 51.7}})[0].overall() == {"J&F-Mean": 0.517}
    fraction = SCORE | {"scores": {"J&F": 0.655, "J": 0.627, "F": 0.683}, "unit": "fraction"}
    assert load(tmp_path, fraction)[0].overall() == {"J&F-Mean": 0.655, "J-Mean": 0.627, "F-Mean": 0.683}
    assert load(tmp_path, SCORE | {"scores": {"J&F": 0.5}, "unit": "points"})[0].overall() == {"J&F-Mean": 0.005}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scores": {"J&F": 151.7}}, r"J&F: 151.7 is not in 0\.\.100"),
        ({"scores": {"J&F": 0.655, "J": 0.627, "F": 0.683}}, "looks like a fraction"),
        ({"scores": {"J&F": 1}}, "looks like a fraction"),
        ({"scores": {"J&F": 65.5}, "unit": "fraction"}, r"is not in 0\.\.1"),
        ({"scores": {"J&F": 60.0, "J": 50.0, "F": 53.4}}, "is not the mean of J, F"),
        ({"scores": {"J&F": 51.7, "J": 51.7}}, "give all of J, F"),
        ({"scores": {"G": 51.7}}, "J&F is missing"),
        ({"scores": {"J&F": 51.7, "K": 3}}, "'K' is none of J&F, J, F"),
        ({"benchmark": "davis2017-val"}, "'davis2017-val' is none of davis2017-test-dev"),
        ({"submission": "abc"}, "submission"),
        ({"date": "soon"}, "date"),
        ({"points": 3}, "unknown key"),
        ({"scale": "papr"}, r"scores\.0\.scale: 'papr' is none of mini, paper"),
    ],
)
def test_scores_that_are_refused(tmp_path, change, message):
    with pytest.raises(HodorError, match=message) as error:
        load(tmp_path, SCORE | change)
    assert str(error.value).startswith("config/server_scores.yaml")


def test_a_score_given_twice(tmp_path):
    refused("paper, stcn, 0, davis2017-test-dev is given twice", load, tmp_path, SCORE, SCORE)


def test_a_score_of_another_zip(tmp_path):
    (entry,) = load(tmp_path, SCORE)
    content = entry.model_dump(mode="json")
    assert server_overall(content, "0" * 64, tmp_path)["J&F-Mean"] == pytest.approx(0.517)
    with pytest.raises(HodorError, match="the score is of the zip 000000000000..., the current one is 111111111111"):
        server_overall(content, "1" * 64, tmp_path)


def test_every_secret_benchmark_has_a_server(root, tmp_path):
    servers = load_servers(root / "config")
    assert set(servers) == {"davis2017-test-dev", "ytvos2018-val", "ytvos2019-val"}
    for server in servers.values():
        assert server.how and pending_text(server.closed) == f"server closed since {server.closed}"
    assert pending_text() == "server: pending"
    content = yaml.safe_load((root / "config" / "servers.yaml").read_text())
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "servers.yaml"
    del content["servers"][TEST_DEV]["source"]
    path.write_text(yaml.safe_dump(content))
    refused("closed and source", load_servers, path.parent)
    del content["servers"][TEST_DEV]["closed"]
    content["servers"]["ytvos2017-val"] = content["servers"].pop(TEST_DEV)
    path.write_text(yaml.safe_dump(content))
    refused("'ytvos2017-val' is none of davis2017-test-dev", load_servers, path.parent)
