"""A stage that says `packed` trains from packs: made once, shared by rows, and the same weights come out."""

import json
import shutil

PACKED = ["--config", 'overrides={"stages.images.packed": {}, "stages.static-stm.packed": {}}']
WEIGHTS = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
PACK = "data/tiny/packed/coco-train2017-whole"


def test_rows_train_from_one_pack_to_the_same_weights(checkout, tmp_path):
    plain = (checkout.path / WEIGHTS).read_bytes()
    record = json.loads((checkout.path / WEIGHTS).with_name("train.json").read_text())
    assert "coco.json" in record["inputs"]

    # Both stages read the same split at the same size: one pack; data sets are there already.
    due = checkout.due(*PACKED)
    assert due["pack"] == 1 and due["train"] >= 6 and not {"fetch", "prepare"} & due.keys()
    checkout.snakemake(*PACKED, f"scratch={tmp_path / 'disk'}", "--", WEIGHTS)
    assert (checkout.path / WEIGHTS).read_bytes() == plain
    (copy,) = [path for path in (tmp_path / "disk").glob("hodor-packs/*") if len(path.name) == 64]
    assert {path.name for path in copy.iterdir()} == set(
        json.loads((checkout.path / f"{PACK}.json").read_text())["files"]
    )
    # Where it was read from is no part of the stamp.
    assert checkout.due(*PACKED, "--", WEIGHTS) == {}
    record = json.loads((checkout.path / WEIGHTS).with_name("train.json").read_text())
    assert list(record["inputs"]) == ["packed/coco-train2017-whole.json"]
    assert record["stamp_content"]["settings"]["packs"] == ["coco-train2017-whole"]

    # A pack needs its data set no more, a trained row needs neither.
    shutil.rmtree(checkout.path / "data/tiny/coco")
    assert checkout.due(*PACKED, "--", WEIGHTS) == {}
    other = "runs/tiny/stm/seed0/model.safetensors"
    assert checkout.due(*PACKED, "--", other) == {"train": 1}
    shutil.rmtree(checkout.path / PACK)
    assert checkout.due(*PACKED, "--", WEIGHTS) == {}
    assert checkout.due(*PACKED, "--", other) == {"prepare": 1, "pack": 1, "train": 1}

    # Back to plain data: another stamp, so the row trains again.
    assert checkout.due("--", WEIGHTS) == {"prepare": 1, "train": 1}
