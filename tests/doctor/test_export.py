"""`hodor export` packs what the records say, with its provenance, and nothing that was damaged."""

import hashlib
import json
import re
import zipfile

import pytest

from hodor.cli import main as cli
from hodor.provenance import read_json

from .conftest import ROW

pytest.importorskip("rocrate", reason="pip install 'hodor-repro[export]'")
RUN = f"runs/tiny/{ROW}/seed0"


def read(path) -> tuple[zipfile.ZipFile, dict[str, dict]]:
    """A zip and the entities of its metadata."""
    archive = zipfile.ZipFile(path)
    return archive, {entity["@id"]: entity for entity in json.loads(archive.read("ro-crate-metadata.json"))["@graph"]}


def ids(entity: dict, key: str) -> set[str]:
    found = entity.get(key, [])
    return {reference["@id"] for reference in (found if isinstance(found, list) else [found])}


def test_every_file_is_listed_with_its_digest_and_every_step_with_its_inputs(workplace, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    assert cli.main(["export", "all.zip"]) == 0
    archive, entities = read("all.zip")
    listed = {id: entity for id, entity in entities.items() if entity["@type"] == "File"}
    assert {name for name in archive.namelist() if name != "ro-crate-metadata.json"} == set(listed)
    assert all(hashlib.sha256(archive.read(id)).hexdigest() == entity["sha256"] for id, entity in listed.items())
    assert {"config/rows.yaml", "results/tiny/ablation_table.csv", f"{RUN}/model.safetensors"} <= listed.keys()
    assert not any("/masks/" in name for name in listed)
    actions = {entity["name"]: entity for entity in entities.values() if entity["@type"] == "CreateAction"}
    for action in actions.values():
        assert ids(action, "object") | ids(action, "result") | ids(action, "instrument") <= entities.keys()

    train, record = actions[f"train {ROW} seed0"], read_json(f"{RUN}/train.json")
    assert ids(train, "object") == {"data/tiny/coco.json"}
    assert ids(train, "result") == {f"{RUN}/{name}" for name in ("model.safetensors", "train.json", "train.jsonl")}
    software = entities[ids(train, "instrument").pop()]
    assert software["softwareVersion"] == record["commit"]
    assert f"#torch-{record['versions']['torch']}" in ids(software, "softwareRequirements")
    segment = actions[f"segment davis2017-val with {ROW} seed0"]
    assert ids(segment, "object") == {f"{RUN}/model.safetensors", "data/tiny/davis.json"}
    assert f"{RUN}/manifest.json" in ids(actions["make ablation of scale tiny"], "object")

    # Without the data's manifest the input is known by its digest.
    for manifest in workplace.folder.glob("data/tiny/*.json"):
        manifest.unlink()
    assert cli.main(["export", "one.zip", f"{ROW}/seed0"]) == 0
    archive, entities = read("one.zip")
    assert not any(name.startswith(("results/", "runs/tiny/copy")) for name in archive.namelist())
    (data,) = ids(entities[f"#train-{ROW}-seed0"], "object")
    assert entities[data]["identifier"] == f"sha256:{record['inputs']['coco.json']}"


def test_a_damaged_absent_or_existing_file_is_one_line(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace.folder)

    def refused(*arguments: str) -> str:
        assert cli.main(["export", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "seed7: no finished run" in refused("out.zip", f"{ROW}/seed7")
    before = (workplace.folder / "config/rows.yaml").read_bytes()
    assert "exists" in refused("config/rows.yaml")
    assert "nope: no such folder" in refused("out.zip", "--scale", "tiny", "--config", "nope")
    assert (workplace.folder / "config/rows.yaml").read_bytes() == before
    for file in ("results/tiny/ablation_table.csv", f"{RUN}/model.safetensors"):
        with open(file, "ab") as damaged:
            damaged.write(b"\0")
        assert re.search(f"{file}(:| is) not ", refused("out.zip"))
    assert not list(workplace.folder.glob("*.zip"))
