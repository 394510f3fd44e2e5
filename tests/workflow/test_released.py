"""The authors' checkpoints in the DAG: absent ones say how to get them, one that appears is converted and scored."""

import csv
import json

import pytest
import torch

from hodor.cli.convert import convert
from hodor.models.base import build_method, save_model

TABLE = "results/released_weights.csv"
DUE = {"adopt_released": 1, "segment_released": 1, "score_released": 1, "tabulate_released": 1, "publish_released": 1}


def lines(checkout) -> dict[str, dict]:
    with open(checkout.path / TABLE, newline="") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


def test_absent_checkpoints_say_how_to_get_them(finished):
    table = lines(finished)
    assert len(table) == 5
    for line in table.values():
        assert line["status"].startswith("absent: put ") and line["released_J&F"] == ""
        assert "into data/weights/" in line["status"] and line["status"].endswith("or: hodor fetch weights")


def test_a_checkpoint_that_appears_makes_its_own_line_and_nothing_else(checkout):
    file = checkout.path / "data" / "weights" / "stcn_s0.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no checkpoint")
    assert checkout.due("--", TABLE) == DUE
    # A file that is no checkpoint ends in one line that names it, and the tables stay.
    said = checkout.snakemake("--", TABLE, check=False)
    assert "data/weights/stcn_s0.pth: damaged, truncated or no checkpoint" in said
    assert lines(checkout)["stcn-s0"]["status"].startswith("absent")
    file.unlink()
    assert checkout.due("--", TABLE) == {}


@pytest.mark.long
def test_checkpoints_are_scored_like_rows(checkout):
    """Made-up weights of HODOR and STCN at their published sizes under the released names; small frames."""
    weights = checkout.path / "data" / "weights"
    weights.mkdir(parents=True)
    for name, file in (("hodor", "static_image.pth"), ("stcn", "stcn_s0.pth")):
        torch.manual_seed(0)
        method = build_method(name, {})
        ours = weights / "ours.safetensors"
        save_model(ours, method, name=name, options=method.options.model_dump(mode="json"))
        convert(ours, weights / file)
        ours.unlink()
    for row in ("hodor-soft-coco", "stcn"):
        checkout.edit(
            "config/released.yaml", f"    row: {row}\n", f"    row: {row}\n    inference: {{short_side: 64}}\n"
        )
    others = ["results/ablation_table.csv", "results/comparison_table.csv"]
    assert checkout.due("--", *others) == {}, "no table of ours waits for them"
    checkout.snakemake("--", TABLE)
    table = lines(checkout)
    for id, parameters in (("hodor-images", 40.84), ("stcn-s0", 54.43)):
        line = table[id]
        assert line["status"] == "scored" and round(int(line["parameters"]) / 1e6, 2) == parameters
        run = checkout.path / "runs" / "tiny" / f"released-{id}" / "seed0"
        with open(run / "davis2017-val" / "global.csv", newline="") as file:
            score = 100 * float(next(csv.DictReader(file))["J&F-Mean"])
        assert float(line["released_J&F"]) == pytest.approx(score, abs=1e-4)
        manifest = json.loads((checkout.path / line["manifest"]).read_text())
        assert manifest["config"]["davis2017-val/segment"]["settings"]["inference"]["short_side"] == 64
        assert manifest["data"]["checkpoint"] == line["checkpoint_sha256"]
    assert sum(line["status"] == "scored" for line in table.values()) == 2
    assert checkout.due("--", TABLE) == {}
    (weights / "stcn_s0.pth").unlink()
    checkout.snakemake("--", TABLE)
    assert lines(checkout)["stcn-s0"]["status"].startswith("absent")
    assert lines(checkout)["hodor-images"]["status"] == "scored"
