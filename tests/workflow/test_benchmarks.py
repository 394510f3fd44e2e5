"""Every benchmark through the DAG: public truth is scored, secret truth becomes a zip and waits for its server."""

import json
import shutil
import zipfile

import yaml

from hodor.cli.main import main
from hodor.config.own_datasets import declare
from hodor.provenance import sha256_file
from tests.data.conftest import davis_root  # noqa: F401
from tests.data.datasets import pack


def extended(checkout, row, results="results"):
    lines = checkout.table(f"{results}/extended_table.csv")
    return {line["benchmark"]: line for line in lines if line["row"] == row}


def test_public_benchmarks_are_scored(fresh):
    checkout = fresh()
    overrides = {
        "benchmarks": ["davis2016-val", "davis2017-test-dev", "ytvos2019-val", "ytvos-holdout"],
        "datasets": ["coco", "davis", "davis2016", "youtube-vos"],
        "generated.youtube_train": 6,
        "generated.youtube_valid": 3,
    }
    changed = ["--config", f"overrides={json.dumps(overrides)}"]
    checkout.snakemake(*changed, "rows=copy-first-mask", "--", "results/extended_table.csv", "submissions")
    lines = extended(checkout, "copy-first-mask")
    assert list(lines) == overrides["benchmarks"]
    assert all(0 <= float(line["J&F"]) < 100 for line in lines.values())
    assert not (checkout.path / "results" / "submissions").exists()
    # The hold-out is no benchmark of a row that was trained on all of train: three to segment and to score.
    due = checkout.due(*changed, "rows=hodor-soft-cyclic", "--", "results/ablation_table.csv")
    assert (due["segment"], due["score"]) == (3, 3)


def test_a_secret_benchmark_waits_for_its_server(fresh, davis_root, tmp_path):  # noqa: F811
    """A sequence of test-dev, whose first mask alone is public."""
    checkout, mirror = fresh(), tmp_path / "mirror"
    pack(davis_root, "davis", mirror / "davis")
    settings = ["--config", "scale=subset", f"mirror={mirror}", "rows=copy-first-mask"]
    settings += ['overrides={"benchmarks": ["davis2017-test-dev"]}', "--", "results/extended_table.csv", "submissions"]
    checkout.snakemake(*settings)
    line = extended(checkout, "copy-first-mask")["davis2017-test-dev"]
    assert (line["J&F"], line["n"]) == ("server closed since 2026-01-20", "1")
    statement = "Server closed since 2026-01-20: codalab/codalab-competitions issues 3624"
    assert statement in (checkout.path / "results/extended_table.md").read_text()
    archive = checkout.path / "results/submissions/copy-first-mask/davis2017-test-dev.zip"
    record = checkout.path / "runs/subset/copy-first-mask/seed0/davis2017-test-dev/score.json"
    assert json.loads(record.read_text())["submission"]["sha256"] == sha256_file(archive)
    assert zipfile.ZipFile(archive).namelist() == [f"plane/{t:05d}.png" for t in range(3)]
    assert checkout.due(*settings) == {}

    scores = checkout.path / "config" / "server_scores.yaml"
    answer = {"scale": "subset", "row": "copy-first-mask", "benchmark": "davis2017-test-dev", "date": "2027-01-31"}
    answer |= {"submission": sha256_file(archive), "scores": {"J&F": 12.5, "J": 11.0, "F": 14.0}}
    scores.write_text(yaml.safe_dump({"scores": [answer]}))
    assert checkout.due(*settings) == {"tabulate_extended": 1, "publish_extended": 1}
    checkout.snakemake(*settings)
    line = extended(checkout, "copy-first-mask")["davis2017-test-dev"]
    assert [float(line[column]) for column in ("J&F", "J", "F")] == [12.5, 11.0, 14.0]

    scores.write_text(yaml.safe_dump({"scores": [answer | {"submission": "0" * 64}]}))
    assert "remove the entry" in checkout.snakemake(*settings, check=False)
    scores.write_text(yaml.safe_dump({"scores": [answer | {"scores": {"J&F": 112.5}}]}))
    assert "112.5 is not in 0..100" in checkout.snakemake(*settings, check=False)


OWN = {"layout": "davis", "folder": "videos", "frames": "frames", "masks": "labels"}
OWN |= {"splits": {"train": "lists/train.txt", "val": "lists/val.txt"}}
OWN |= {"title": "My videos", "source": "recorded by us", "licence": "CC0"}
ROW = {"tables": ["comparison", "extended"], "label": "Trained on own videos", "method": "hodor"}
ROW |= {"options": {"attention": "soft"}, "stage": "own", "init": None}
STAGE = {"like": "cyclic", "sources": [{"dataset": "my-videos", "split": "train", "max_distance": 2}]}


def test_own_videos_are_scored_and_trained_on(fresh, world, monkeypatch, capsys):
    """A folder in DAVIS layout with names of its own: planned by the workflow, made by the verbs."""
    checkout, davis = fresh(), world / "davis" / "DAVIS"
    for kind, folder in (("JPEGImages/480p", "frames"), ("Annotations/480p", "labels"), ("ImageSets/2017", "lists")):
        shutil.copytree(davis / kind, checkout.path / "videos" / folder)
    checkout.set("own_datasets", "datasets.my-videos", OWN)
    checkout.set("rows", "systems.own", ROW)
    checkout.set("config", "rows", ["copy-first-mask", "own"])
    checkout.set("scales/tiny", "stages.own", STAGE)
    checkout.set("scales/tiny", "datasets", ["coco", "davis", "youtube-vos", "my-videos"])
    checkout.set("scales/tiny", "benchmarks", ["my-videos-val"])
    due = {"fetch": 1, "prepare": 1, "train": 2, "segment": 2, "score": 2, "manifest": 2}
    due |= {"tabulate_extended": 1, "publish_extended": 1}
    assert checkout.due("--", "results/extended_table.csv") == due

    monkeypatch.chdir(checkout.path)
    for verb in ("fetch my-videos", "prepare my-videos"):
        assert main(verb.split()) == 0, capsys.readouterr().err
    for row in ("copy-first-mask", "own"):
        for verb in (f"train {row}", f"segment {row} my-videos-val", f"score {row} my-videos-val", f"manifest {row}"):
            assert main(verb.split()) == 0, capsys.readouterr().err
    for name in ("comparison", "extended"):
        assert main(["tabulate", name]) == 0, capsys.readouterr().err
    manifest = json.loads((checkout.path / "data/tiny/my-videos.json").read_text())
    assert manifest["splits"]["val"]["videos"] == 1 and manifest["files"] > 10 and manifest["edition"] == "own"
    assert (checkout.path / "data/tiny/my-videos/lists/val.txt").is_symlink(), "read in place"
    line = extended(checkout, "own", "results/tiny")["my-videos-val"]
    assert 0 <= float(line["J&F"]) <= 100 and float(line["J&F_low"]) <= float(line["J&F_high"])
    assert line["training_data"] == "my-videos/train"
    compared = {row["row"]: row for row in checkout.table("results/tiny/comparison_table.csv")}
    assert compared["own"]["my-videos-val_J&F"] == line["J&F"]
    assert "My videos val J&F" in (checkout.path / "results/tiny/comparison_table.md").read_text()
    # A fault names the user's own file.
    mask = next((checkout.path / "videos" / "labels").glob("val*/00001.png"))
    mask.unlink()
    assert main(["prepare", "my-videos"]) == 1
    assert f"{mask}: missing mask" in capsys.readouterr().err
    declare({})
