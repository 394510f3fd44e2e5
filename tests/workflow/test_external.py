"""External masks in the DAG: absent ones say how to get them; present ones are imported, scored and shown."""

import json
import shutil

import pytest

from hodor.data.images import read_labels, write_labels
from tests.checkouts import ROWS

TABLE = "results/extended_table.csv"
ROW = """
  external:
    tables: [ablation, extended]
    label: Copied elsewhere
    masks: {davis2017-val: data/masks/elsewhere}
    edition: generated
    source: https://example.org
    licence: CC0
"""
DUE = dict.fromkeys(("segment", "score", "manifest"), 1)


@pytest.mark.long
def test_masks_of_others_are_a_row(checkout):
    """The masks of another row, as if they came from elsewhere: its scores, without training and segmentation."""
    checkout.append("config/rows.yaml", ROW)
    chosen = ["--config", f"rows={','.join([*ROWS, 'external'])}", "--"]
    tables = {f"{kind}_{table}": 1 for kind in ("tabulate", "publish") for table in ("extended",)}
    assert checkout.due(*chosen, TABLE) == tables
    checkout.snakemake(*chosen, TABLE)
    assert "not run: get it by: place the masks in data/masks/elsewhere" in line(checkout)["note"]
    masks = checkout.path / "data" / "masks" / "elsewhere"
    shutil.copytree(checkout.path / "runs/tiny/copy-first-mask/seed0/davis2017-val/masks", masks)
    assert checkout.due(*chosen, TABLE) == DUE | tables

    checkout.snakemake("--config", f"rows={','.join([*ROWS, 'external'])}")
    copied, ours = line(checkout), line(checkout, "copy-first-mask")
    same = ("benchmark", "J&F", "J&F_low", "J&F_high", "J", "F", "seeds")
    assert [copied[key] for key in same] == [ours[key] for key in same]
    assert copied["label"] == "Copied elsewhere (external)" and copied["training_data"] == "external masks"
    assert copied["parameters"] == "" and "https://example.org" in copied["note"]
    manifest = json.loads((checkout.path / copied["manifest"]).read_text())
    assert manifest["scale"] == "tiny" and list(manifest["steps"]) == ["davis2017-val/segment", "davis2017-val/score"]
    assert not (checkout.path / "runs/tiny/external/seed0/train.json").exists()
    assert "external" in (checkout.path / "reports" / "runs" / "external-seed0.html").read_text()
    assert checkout.due(*chosen, "all") == {}

    changed = next(masks.rglob("00002.png"))
    write_labels(changed, 0 * read_labels(changed))
    assert checkout.due(*chosen, TABLE) == DUE | tables
    changed.unlink()
    assert f"{changed.relative_to(checkout.path)}: frame missing" in checkout.snakemake(*chosen, TABLE, check=False)
    shutil.rmtree(masks)
    assert checkout.due(*chosen, TABLE) == tables


def line(checkout, row: str = "external") -> dict:
    return {line["row"]: line for line in checkout.table(TABLE)}[row]
