"""config/released.yaml and the stamps of the authors' checkpoints."""

import shutil
from pathlib import Path

import pytest

from hodor import paths
from hodor.config import loading as config
from hodor.errors import HodorError
from hodor.provenance import sha256_json
from hodor.records import Records
from hodor.released import inference, load_released, locate, present
from hodor.stamps import Stamps


@pytest.fixture
def folder(root, tmp_path, monkeypatch) -> Path:
    """A working directory with a copy of the settings files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "CITATION.cff", tmp_path)
    return Path(shutil.copytree(root / "config", tmp_path / "config"))


def load(folder: Path, **overrides) -> config.Config:
    return config.load(folder, {"scale": "tiny"} | overrides)


def put(file: str) -> None:
    path = paths.weights() / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_the_five_released_checkpoints_are_listed(root):
    entries = load_released(load(root / "config"))
    assert {entry.row for entry in entries.values()} == {
        "hodor-soft-coco",
        "hodor-soft-cyclic",
        "hodor-soft-dense",
        "stm",
        "stcn",
    }
    assert "of images alone" in entries["stm"].note, "STM's released weights are of another training than its row"


@pytest.mark.parametrize(("id", "sides"), [("hodor-images", (512, 987)), ("hodor-video-sparse", (576, 1200))])
def test_a_checkpoint_segments_as_its_row_at_scale_paper(id, sides, root):
    tiny = load(root / "config", overrides={"inference.short_side": 32})
    options = inference(tiny, load_released(tiny)[id], "davis2017-val")
    assert (options.short_side, options.long_side) == sides
    paper = config.load(root / "config", {"scale": "paper"})
    assert inference(paper, load_released(paper)[id], "davis2017-val") == options


def test_its_own_settings_win(folder):
    path = folder / "released.yaml"
    path.write_text(path.read_text().replace("    row: stcn\n", "    row: stcn\n    inference: {top_k: 50}\n"))
    loaded = load(folder)
    assert inference(loaded, load_released(loaded)["stcn-s0"], "davis2017-val").top_k == 50
    path.write_text(path.read_text().replace("top_k: 50", "top_q: 50"))
    with pytest.raises(HodorError, match="config/released.yaml: stcn.inference.top_q: unknown key"):
        inference(loaded, load_released(loaded)["stcn-s0"], "davis2017-val")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("row: stcn", "row: stnc", "released.stcn-s0.row: 'stnc' is none of"),
        ("row: stcn", "row: stm", "released.stcn-s0.row: stm has another checkpoint"),
        ("file: stcn_s0.pth", "file: ../stcn_s0.pth", "released.stcn-s0.file: must be the name of a file"),
        ("file: stcn_s0.pth", "fil: stcn_s0.pth", "released.stcn-s0.file: missing"),
    ],
)
def test_faults_are_named(old, new, told, folder):
    path = folder / "released.yaml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(HodorError) as error:
        Stamps(load(folder), folder.parent)
    assert told in str(error.value) and "config/released.yaml" in str(error.value)


def test_without_the_file_there_is_nothing_to_do(folder):
    (folder / "released.yaml").unlink()
    stamps = Stamps(load(folder), folder.parent)
    assert stamps.released == {} and "tabulate-released" not in stamps.contents


def test_a_checkpoint_that_appears_changes_the_table_and_nothing_else(folder):
    before = Stamps(load(folder), folder.parent).contents
    put("stcn_s0.pth")
    stamps = Stamps(load(folder), folder.parent)
    after = stamps.contents
    assert list(stamps.released) == ["stcn-s0"] == list(present(load_released(load(folder))))
    new = {"train-released-stcn-s0-seed0", "segment-released-stcn-s0-seed0-davis2017-val"}
    assert after.keys() - before.keys() == new
    assert {name for name in before if before[name] != after[name]} == {"tabulate-released"}
    segment = after["segment-released-stcn-s0-seed0-davis2017-val"]
    assert segment["settings"]["inference"]["short_side"] == 480 and segment["settings"]["method"] == "stcn"
    settings = after["tabulate-released"]["settings"]
    assert [id for id, entry in settings["entries"].items() if entry["present"]] == ["stcn-s0"]
    digest = settings["stamps"]["released-stcn-s0/seed0/davis2017-val/segment"]
    assert digest == sha256_json(segment)
    (paths.weights() / "stcn_s0.pth").unlink()
    assert Stamps(load(folder), folder.parent).contents == before


def test_a_checkpoint_may_lie_in_a_folder_of_its_own(folder):
    """`hodor fetch weights` puts each release into a folder."""
    entry = load_released(load(folder))["stcn-s0"]
    assert locate(entry) is None
    put("stcn-released/stcn_s0.pth")
    assert locate(entry) == paths.weights() / "stcn-released" / "stcn_s0.pth"
    assert list(Stamps(load(folder), folder.parent).released) == ["stcn-s0"]


def test_a_checkpoint_without_results_needs_the_data_of_its_benchmark(folder):
    put("stcn_s0.pth")
    records = Records(Stamps(load(folder), folder.parent))
    assert paths.manifest("tiny", "davis") in records.segment_data("released-stcn-s0", 0, "davis2017-val")
