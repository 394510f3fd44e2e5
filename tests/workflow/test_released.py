"""The authors' checkpoints in the DAG: absent ones say how to get them, one that appears is converted and scored."""

import json
import re

import pytest
import torch
import yaml

from hodor.cli.convert import convert
from hodor.models.base import build_method, save_model
from hodor.provenance import sha256_file
from tests.checkouts import planned

TABLE = "results/released_weights.csv"
DUE = dict.fromkeys(("train", "segment", "score", "manifest", "tabulate_extended", "publish_extended"), 1)


def lines(checkout) -> dict[str, dict]:
    return {line["id"]: line for line in checkout.table(TABLE)}


def test_absent_checkpoints_say_how_to_get_them(finished):
    table = lines(finished)
    assert len(table) == 5
    for line in table.values():
        assert line["status"].startswith("not run") and line["released_J&F"] == ""
        assert "data/weights/" in line["status"] and "hodor fetch weights" in line["status"]


def test_a_checkpoint_that_appears_makes_its_own_row_and_nothing_else(checkout):
    file = checkout.path / "data" / "weights" / "stcn_s0.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no checkpoint")
    output = checkout.dry_run("--", TABLE)
    assert planned(output) == DUE
    assert re.search(r"^rule train:\n    input: .*data/weights/stcn_s0\.pth", output, re.MULTILINE), "a later one, too"
    # It has one run, seed 0, whatever the seeds of trainings.
    assert checkout.due("--config", "rows=stcn-released", "seeds=1", "--", TABLE) == DUE
    assert checkout.due("--", "results/ablation_table.csv", "results/comparison_table.csv") == {}
    # A file that is no checkpoint ends in one line that names it, and the tables stay.
    assert "data/weights/stcn_s0.pth: " in checkout.snakemake("--", TABLE, check=False)
    assert lines(checkout)["stcn-released"]["status"].startswith("not run")
    file.unlink()
    assert checkout.due("--", TABLE) == {}


@pytest.mark.long
def test_checkpoints_are_scored_like_rows(checkout):
    """Made-up weights of HODOR and STCN at their published sizes under the released names; small frames."""
    weights, config = checkout.path / "data" / "weights", checkout.path / "config" / "rows.yaml"
    weights.mkdir(parents=True)
    made = {"hodor-soft-coco-released": ("static_image.pth", 40.84), "stcn-released": ("stcn_s0.pth", 54.43)}
    rows = yaml.safe_load(config.read_text())
    for row, (file, _) in made.items():
        torch.manual_seed(0)
        name = rows["systems"][row]["method"]
        method = build_method(name, {})
        ours = weights / "ours.safetensors"
        save_model(ours, method, name=name, options=method.options.model_dump(mode="json"))
        convert(ours, weights / file)
        ours.unlink()
        rows["systems"][row]["inference"]["short_side"] = 64
    config.write_text(yaml.safe_dump(rows, sort_keys=False))
    checkout.snakemake("--", TABLE)
    table = lines(checkout)
    for row, (file, parameters) in made.items():
        line = table[row]
        assert line["status"] == "scored" and round(int(line["parameters"]) / 1e6, 2) == parameters
        (scores,) = checkout.table(f"runs/tiny/{row}/seed0/davis2017-val/global.csv")
        score = 100 * float(scores["J&F-Mean"])
        assert float(line["released_J&F"]) == pytest.approx(score, abs=1e-4)
        manifest = json.loads((checkout.path / line["manifest"]).read_text())
        assert manifest["config"]["davis2017-val/segment"]["settings"]["inference"]["short_side"] == 64
        assert line["checkpoint_sha256"] == sha256_file(weights / file)
    assert sum(line["status"] == "scored" for line in table.values()) == 2
    assert checkout.due("--", TABLE) == {}
    (weights / "stcn_s0.pth").unlink()
    checkout.snakemake("--", TABLE)
    assert lines(checkout)["stcn-released"]["status"].startswith("not run")
    assert lines(checkout)["hodor-soft-coco-released"]["status"] == "scored"
