"""Rows of released weights and of external masks: their entries in rows.yaml, their stamps, and what files change."""

import shutil
from pathlib import Path

import pytest
import yaml

from hodor import paths
from hodor.config.loading import Config, load
from hodor.errors import HodorError
from hodor.provenance import sha256_json
from hodor.records import Records
from hodor.stamps import Stamps
from tests.checkouts import set_yaml

STCN = "stcn-released"
MASKS = {"tables": ["extended"], "label": "SAM 2", "source": "https://example.org", "licence": "CC0"}
MASKS |= {"masks": {"davis2017-val": "data/masks/sam2", "davis2016-val": "data/masks/sam2-2016"}}


@pytest.fixture
def folder(root, tmp_path, monkeypatch) -> Path:
    """A working directory with a copy of the settings files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "CITATION.cff", tmp_path)
    return Path(shutil.copytree(root / "config", tmp_path / "config"))


def tiny(folder: Path, **overrides) -> Config:
    return load(folder, {"scale": "tiny"} | overrides)


def enter(folder: Path, row: str, change: dict) -> None:
    """Changes an entry of rows.yaml; that of external masks is new."""
    old = yaml.safe_load((folder / "rows.yaml").read_text())["systems"].get(row, MASKS)
    set_yaml(folder / "rows.yaml", f"systems.{row}", old | change)


def place(file: str) -> None:
    path = paths.weights() / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_the_five_released_checkpoints_are_rows(folder):
    rows = {id: row for id, row in tiny(folder).rows.items() if row.weights}
    assert {row.compare for row in rows.values()} == {
        *("hodor-soft-coco", "hodor-soft-cyclic", "hodor-soft-dense", "stm", "stcn")
    }
    assert all("authors' weights" in row.label for row in rows.values())
    assert "of images alone" in rows["stm-released"].note, "STM's released weights are of another training than its row"
    assert not set(rows) & set(tiny(folder).selected), "no file, no run"


@pytest.mark.parametrize("benchmark", ["davis2017-val", "davis2017-test-dev"])
def test_a_checkpoint_segments_as_its_row_at_scale_paper(root, benchmark):
    other = load(root / "config", {"scale": "mini", "overrides": {"inference.short_side": 32}})
    paper = load(root / "config", {"scale": "paper", "rows": "all"})
    for id, row in paper.rows.items():
        if row.weights:
            assert other.inference(id, benchmark) == paper.inference(row.compare, benchmark), id


@pytest.mark.parametrize(
    ("row", "change", "expected"),
    [
        (STCN, {"compare": "stnc"}, "'stnc' is none of"),
        (STCN, {"compare": "stm-released"}, "'stm-released' is none of"),
        (STCN, {"weights": "../stcn_s0.pth"}, "without folders"),
        (STCN, {"weights": None}, "neither `weights` nor `masks`"),
        (STCN, {"stage": "images"}, "has no `stage`"),
        (STCN, {"source": ""}, "needs `source`"),
        (STCN, {"inference": {"top_q": 5}}, "top_q"),
        (STCN, {"options": {"top_q": 5}}, "top_q"),
        ("sam2", {"masks": {"davis2017": "x"}}, "davis2017-val"),
        ("sam2", {"masks": {"davis2017-val": "/x"}}, "relative to the repository"),
        ("sam2", {"method": "copy"}, "has no `method`"),
        ("sam2", {"stage": "images"}, "has no `stage`"),
        ("sam2", {"weights": "stcn_s0.pth"}, "has no `weights`"),
        ("sam2", {"compare": "stm"}, "has no `compare`"),
        ("sam2", {"source": ""}, "needs `source`"),
        ("sam2", {"licence": ""}, "needs `licence`"),
        ("sam2", {"masks": {}, "source": "", "licence": ""}, "needs `method`"),
        ("sam2", {"masks": {}, "source": "", "licence": "", "method": "copy"}, "`stage` is missing"),
    ],
)
def test_faulty_entries_are_named(folder, row, change, expected):
    enter(folder, row, change)
    with pytest.raises(HodorError) as error:
        tiny(folder)
    assert all(part in str(error.value) for part in (expected, row, "rows.yaml"))


@pytest.mark.parametrize("file", ["stcn_s0.pth", "stcn-released/stcn_s0.pth"])
def test_a_checkpoint_that_appears_adds_its_own_steps(folder, file):
    before = Stamps(tiny(folder, seeds=[1, 2]), folder.parent).contents
    place(file)
    config = tiny(folder, seeds=[1, 2])
    assert config.checkpoints == {STCN: paths.weights() / file} and config.seeds_of(STCN) == (0,)
    stamps = Stamps(config, folder.parent)
    after = stamps.contents
    assert after.keys() - before.keys() == {f"train-{STCN}-seed0", f"segment-{STCN}-seed0-davis2017-val"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"tabulate-extended", "tabulate-costs", "render"}
    segment = after[f"segment-{STCN}-seed0-davis2017-val"]
    assert segment["settings"]["inference"]["short_side"] == 480 and segment["settings"]["method"] == "stcn"
    settings = after["tabulate-extended"]["settings"]
    assert [id for id, row in settings["rows"].items() if row["weights"] and not row["absent"]] == [STCN]
    assert settings["stamps"][f"{STCN}/seed0/davis2017-val/segment"] == sha256_json(segment)
    records = Records(stamps)
    assert records.train_data(STCN, 0) == [] and records.segment_data(STCN, 0, "davis2017-val")


def test_external_masks_add_their_own_steps(folder):
    enter(folder, "sam2", {"edition": "generated"})
    absent = tiny(folder)
    assert "sam2" not in absent.selected and absent.absent_files("sam2") == ("data/masks/sam2",), (
        "tiny has one benchmark"
    )
    mask = folder.parent / "data" / "masks" / "sam2" / "val-000" / "00000.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"x")
    config = tiny(folder, seeds=[1, 2])
    assert config.seeds_of("sam2") == (0,) and config.benchmarks("sam2") == ("davis2017-val",)
    before, stamps = Stamps(absent, folder.parent).contents, Stamps(config, folder.parent)
    assert {name for name in stamps.contents if "sam2" in name} == {"segment-sam2-seed0-davis2017-val"}
    shown = [stamp["tabulate-extended"]["settings"]["rows"]["sam2"] for stamp in (before, stamps.contents)]
    assert "data/masks/sam2" in shown[0]["absent"] and shown[1]["absent"] == ""
    assert shown[1]["label"] == "SAM 2 (external)" and shown[1]["trained_on"] == "external masks"
    assert "https://example.org" in shown[1]["note"] and "CC0" in shown[1]["note"]
    assert "sam2" not in stamps.contents["tabulate-costs"]["settings"]["rows"]
    assert Records(stamps).train_data("sam2", 0) == [] and Records(stamps).segment_data("sam2", 0, "davis2017-val")
    mask.write_bytes(b"y")
    changed = Stamps(tiny(folder, seeds=[1, 2]), folder.parent).contents
    different = {name for name in changed if changed[name] != stamps.contents[name]}
    assert different == {"segment-sam2-seed0-davis2017-val", "tabulate-extended"}
    enter(folder, "sam2", {"edition": "official"})
    assert "sam2" not in tiny(folder).selected and tiny(folder).absent_files("sam2") == (), (
        "generated data, official masks"
    )
