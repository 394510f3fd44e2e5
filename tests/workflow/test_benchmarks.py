"""Every benchmark through the DAG: public truth is scored, secret truth becomes a zip and waits for its server."""

import csv
import json
import zipfile

import yaml

from hodor.provenance import sha256_file


def comparison(checkout, row):
    with open(checkout.path / "results" / "extended_table.csv", newline="") as file:
        return {line["benchmark"]: line for line in csv.DictReader(file) if line["row"] == row}


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
    lines = comparison(checkout, "copy-first-mask")
    assert list(lines) == overrides["benchmarks"]
    assert all(0 <= float(line["J&F"]) < 100 for line in lines.values())
    assert not (checkout.path / "results" / "submissions").exists()
    # The hold-out is no benchmark of a row that was trained on all of train: three to segment and to score.
    due = checkout.due(*changed, "rows=hodor-soft-cyclic", "--", "results/ablation_table.csv")
    assert (due["segment"], due["score"]) == (3, 3)


def test_a_secret_benchmark_waits_for_its_server(fresh, shared_data):
    """The real test-dev sequence, whose first mask alone is public."""
    checkout = fresh()
    settings = ["--config", "scale=subset", f"mirror={shared_data}", "rows=copy-first-mask"]
    settings += ['overrides={"benchmarks": ["davis2017-test-dev"]}', "--", "results/extended_table.csv", "submissions"]
    checkout.snakemake(*settings)
    line = comparison(checkout, "copy-first-mask")["davis2017-test-dev"]
    assert (line["J&F"], line["n"]) == ("server closed since 2026-01-20", "1")
    archive = checkout.path / "results/submissions/copy-first-mask/davis2017-test-dev.zip"
    record = checkout.path / "runs/subset/copy-first-mask/seed0/davis2017-test-dev/score.json"
    assert json.loads(record.read_text())["submission"]["sha256"] == sha256_file(archive)
    names = zipfile.ZipFile(archive).namelist()
    assert names[0] == "planes-crossing/00000.png" and len(names) > 30
    assert checkout.due(*settings) == {}

    scores = checkout.path / "config" / "server_scores.yaml"
    answer = {"scale": "subset", "row": "copy-first-mask", "benchmark": "davis2017-test-dev", "date": "2027-01-31"}
    answer |= {"submission": sha256_file(archive), "scores": {"J&F": 12.5, "J": 11.0, "F": 14.0}}
    scores.write_text(yaml.safe_dump({"scores": [answer]}))
    assert checkout.due(*settings) == {"tabulate_extended": 1, "publish_extended": 1}
    checkout.snakemake(*settings)
    line = comparison(checkout, "copy-first-mask")["davis2017-test-dev"]
    assert [float(line[column]) for column in ("J&F", "J", "F")] == [12.5, 11.0, 14.0]

    scores.write_text(yaml.safe_dump({"scores": [answer | {"submission": "0" * 64}]}))
    assert "remove the entry" in checkout.snakemake(*settings, check=False)
    scores.write_text(yaml.safe_dump({"scores": [answer | {"scores": {"J&F": 112.5}}]}))
    assert "112.5 is not in 0..100" in checkout.snakemake(*settings, check=False)
