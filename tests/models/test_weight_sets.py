"""Initial weights: formats of backbones, weight sets as data sets, and initialising a network."""

import json
import re
from pathlib import Path

import pytest
import torch

from hodor.config import datasets as sources
from hodor.config.methods import HODOROptions
from hodor.data.fetch import fetch
from hodor.data.prepare import prepare
from hodor.errors import HodorError
from hodor.models.base import build_method, read_weights
from hodor.models.checkpoints import weight_sets
from hodor.models.checkpoints.backbones import DETECTION, IMAGENET, RESNET
from hodor.models.checkpoints.convert import convert_to_original, convert_to_ours
from hodor.models.checkpoints.load import FORMATS, recognise
from hodor.models.checkpoints.weight_sets import prepare_weights, save_weights
from hodor.models.hodor.network import Network
from hodor.training.trainer import train
from tests.narrow import NARROW as NARROWEST

NARROW = NARROWEST | {"backbone": "swin", "backbone_width": 32}


@pytest.fixture(scope="module")
def released() -> dict[str, dict[str, torch.Tensor]]:
    """Entries as the releases have them, with random values: format -> entries."""
    torch.manual_seed(1)
    out = {}
    for name in ("swin-detection", "swin-imagenet"):
        format = FORMATS[name]
        entries, _ = convert_to_original(format, format.fresh({}), {})
        out[name] = {
            key: torch.rand_like(value) if value.is_floating_point() and "attn_mask" not in key else value
            for key, value in entries.items()
        }
    out["swin-detection"] |= {
        "rpn_head.rpn_conv.weight": torch.zeros(256, 256, 3, 3),
        "roi_head.bbox_head.fc_cls.bias": torch.zeros(81),
    }
    return out


# Formats


def test_a_detector_gives_backbone_and_pyramid(released):
    theirs = released["swin-detection"]
    weights, _, report = convert_to_ours(DETECTION, theirs)
    network = Network(HODOROptions()).state_dict()
    own = {name for name in network if name.startswith(("backbone.", "pyramid."))}
    assert weights.keys() == own and all(weights[name].shape == network[name].shape for name in own)
    assert torch.equal(weights["pyramid.lateral.2.weight"], theirs["neck.lateral_convs.2.conv.weight"])
    assert torch.equal(weights["backbone.norm3.bias"], theirs["backbone.norm3.bias"])
    assert report.dead == [f"neck.fpn_convs.{i}.conv.{part}" for i in (2, 3) for part in ("bias", "weight")]
    assert report.unused == ["roi_head.bbox_head.fc_cls.bias", "rpn_head.rpn_conv.weight"]
    back, _ = convert_to_original(DETECTION, weights, {})
    live = {name for name in back if name not in report.dead}
    assert all(torch.equal(back[name], theirs[name]) for name in live) and len(live) == len(weights)


def test_a_classifier_gives_the_backbone_without_norms_of_maps(released):
    theirs = released["swin-imagenet"]
    weights, _, report = convert_to_ours(IMAGENET, theirs)
    assert not any(re.match(r"backbone\.norm\d|pyramid", name) for name in weights)
    assert torch.equal(weights["backbone.layers.1.downsample.norm.bias"], theirs["layers.1.downsample.norm.bias"])
    assert {name for name in report.dead if "attn_mask" not in name} == {
        *("norm.weight", "norm.bias", "head.weight", "head.bias"),
    }
    back, _ = convert_to_original(IMAGENET, weights, {})
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs if name not in report.dead)
    mask = back["layers.0.blocks.1.attn_mask"]  # 56 x 56 tokens are 64 windows
    assert mask.shape == (64, 49, 49) and set(mask.unique().tolist()) == {-100, 0}
    # Only windows at the far edges are mixed; the corner one holds four parts, of 4 or 3 rows and columns.
    assert (mask[0] == 0).all() and (mask[-1] == 0).sum() == (16**2 + 2 * 12**2 + 9**2)
    assert "layers.3.blocks.1.attn_mask" not in back  # 7 x 7 tokens are one window, which is not shifted


@pytest.mark.parametrize(
    # All parameters of torchvision's networks without those of the last stage and of the classifier.
    ("name", "parameters"),
    [("resnet18", 11_689_512 - 8_393_728 - 513_000), ("resnet50", 25_557_032 - 14_964_736 - 2_049_000)],
)
def test_resnets_have_their_number_of_parameters(name, parameters):
    entries = RESNET.fresh({"architecture": name})
    assert sum(value.numel() for key, value in entries.items() if "running" not in key) == parameters
    assert RESNET.options(entries) == {"architecture": name}


def test_each_format_knows_its_own_files_alone(released):
    names = {format: list(entries) for format, entries in released.items()}
    names["hodor"] = list(FORMATS["hodor"].to_original(dict(build_method("hodor", {}).state_dict())))
    names["resnet-imagenet"] = list(RESNET.fresh({"architecture": "resnet50"}))
    for format, found in names.items():
        assert recognise(found, "x").name == format
        assert recognise([f"module.{name}" for name in found], "x").name == format
    with pytest.raises(HodorError, match="of several formats; set --format"):
        recognise(names["hodor"] + names["resnet-imagenet"], "x.pth")


def test_every_format_is_complete():
    for name, format in FORMATS.items():
        assert format.name == name and format.about and (format.method is None) == bool(format.fresh({**_any(format)}))
    assert set(weight_sets.FORMATS) == set(sources.WEIGHT_SETS)


def _any(format) -> dict:
    return {"architecture": "resnet18"} if "architecture" in format.variants else {}


# Weight sets


def write(path: Path, entries: dict[str, torch.Tensor], wrapper: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({wrapper: entries} if wrapper else entries, path)


def fetched(tmp_path: Path, name: str, archives: dict[str, tuple[dict, str | None]]) -> Path:
    """Archives of a weight set in a mirror, fetched; returns their folder."""
    for archive, (entries, wrapper) in archives.items():
        write(tmp_path / "mirror" / name / archive, entries, wrapper)
    wanted = [{"archive": archive} for archive in sources.ARCHIVES[name]]
    origin = {"dataset": name, "edition": "subset", "mirror": str(tmp_path / "mirror"), "archives": wanted}
    fetch({"settings": origin}, tmp_path / "archives")
    return tmp_path / "archives"


def prepared(tmp_path: Path, name: str, archives: Path) -> dict:
    """Prepares a weight set and returns its manifest."""
    out, manifest = tmp_path / "data" / name, tmp_path / "data" / f"{name}.json"
    prepare_weights({"settings": {"dataset": name, "edition": "subset"}}, archives, out, manifest)
    return json.loads(manifest.read_text())


@pytest.fixture
def resnets() -> dict[str, tuple[dict, None]]:
    """ResNet checkpoints by archive, with random values."""
    out = {}
    for archive, name in sources.WEIGHT_SETS["resnet-imagenet"].items():
        fresh = RESNET.fresh({"architecture": name})
        out[archive] = (
            {key: torch.rand_like(value) for key, value in fresh.items()} | {"fc.bias": torch.ones(9)},
            None,
        )
    return out


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Steps hold a lock below the working directory."""
    monkeypatch.chdir(tmp_path)


def test_a_weight_set_is_prepared_like_a_data_set(tmp_path, resnets, capsys):
    archives = fetched(tmp_path, "resnet-imagenet", resnets)
    manifest = prepared(tmp_path, "resnet-imagenet", archives)
    told = capsys.readouterr().out
    assert "resnet18-f37072fd.pth -> resnet18.safetensors" in told and "\n  fc.bias\n" in told
    assert manifest["dataset"] == "resnet-imagenet" and set(manifest["archives"]) == set(resnets)
    assert manifest["splits"]["resnet18"]["entries"] == 75 and manifest["files"] == 2
    for archive, name in sources.WEIGHT_SETS["resnet-imagenet"].items():
        weights, _ = read_weights(tmp_path / "data" / "resnet-imagenet" / f"{name}.safetensors")
        entries = resnets[archive][0]
        assert weights.keys() == entries.keys() - {"fc.bias"}
        assert all(torch.equal(weights[key], entries[key]) for key in weights)
    again = prepared(tmp_path, "resnet-imagenet", archives)
    assert again == manifest  # the same bytes every time


def test_a_weight_set_with_a_wrong_entry_leaves_nothing(tmp_path, resnets):
    del resnets["resnet18-f37072fd.pth"][0]["layer3.1.bn2.running_var"]
    archives = fetched(tmp_path, "resnet-imagenet", resnets)
    out, manifest = tmp_path / "data" / "resnet-imagenet", tmp_path / "data" / "m.json"
    out.mkdir(parents=True)
    manifest.write_text("{}")
    stamp = {"settings": {"dataset": "resnet-imagenet", "edition": "subset"}}
    with pytest.raises(
        HodorError, match=r"resnet18-f37072fd\.pth: not a valid checkpoint .*first layer3\.1\.bn2\.running_var"
    ):
        prepare_weights(stamp, archives, out, manifest)
    assert not list(out.iterdir()) and not manifest.exists()


def test_official_torchvision_weights_must_be_those_that_their_name_says(tmp_path, resnets):
    archives = fetched(tmp_path, "resnet-imagenet", resnets)
    stamp = {"settings": {"dataset": "resnet-imagenet", "edition": "official"}}
    with pytest.raises(
        HodorError, match=r"resnet50-0676ba61\.pth: its sha256 starts with .*its name requires 0676ba61"
    ):
        prepare_weights(stamp, archives, tmp_path / "data" / "resnet-imagenet", tmp_path / "data" / "m.json")


def test_weight_sets_are_no_pictures_and_are_not_generated(tmp_path):
    stamp = {"settings": {"dataset": "resnet-imagenet", "edition": "subset"}}
    with pytest.raises(HodorError, match="unknown data set 'resnet-imagenet'"):
        prepare(stamp, tmp_path, tmp_path / "out", tmp_path / "m.json")
    stamp["settings"]["dataset"] = "coco"
    with pytest.raises(HodorError, match="unknown weight set 'coco'"):
        prepare_weights(stamp, tmp_path, tmp_path / "out", tmp_path / "m.json")
    origin = {"dataset": "swin-tiny-imagenet", "edition": "generated", "mirror": None, "archives": []}
    with pytest.raises(HodorError, match="no generated data for 'swin-tiny-imagenet'"):
        fetch({"settings": origin}, tmp_path / "archives")


def test_the_table_lists_every_weight_set_in_both_editions(root):
    for name, files in sources.WEIGHT_SETS.items():
        for edition in ("official", "subset"):
            listed = sources.archives(root / "config" / "datasets.csv", name, edition)
            assert [entry["archive"] for entry in listed] == list(files)
            assert all(bool(entry["address"]) == (edition == "official") for entry in listed)


# What HODOR takes from them


@pytest.fixture(scope="module")
def swin_sets(released, tmp_path_factory):
    """Folder with both Swin-T weight sets, prepared."""
    folder = tmp_path_factory.mktemp("sets")
    for name, format in (("swin-tiny-mask-rcnn-3x", DETECTION), ("swin-tiny-imagenet", IMAGENET)):
        weights, options, _ = convert_to_ours(format, released[format.name])
        (folder / name).mkdir()
        save_weights(folder / name / "swin.safetensors", weights, format, options)
    return folder


@pytest.mark.parametrize("name", ["swin-tiny-mask-rcnn-3x", "swin-tiny-imagenet"])
def test_hodor_starts_from_a_weight_set_and_says_what_stays_random(name, swin_sets, capsys):
    torch.manual_seed(5)
    method = build_method("hodor", {"weights": name})
    before = {key: value.clone() for key, value in method.network.state_dict().items()}
    method.load_starting_weights(swin_sets / name)
    weights, _ = read_weights(swin_sets / name / "swin.safetensors")
    after = method.network.state_dict()
    assert all(torch.equal(after[key], weights.get(key, before[key])) for key in after)
    assert not torch.equal(after["backbone.patch_embed.proj.weight"], before["backbone.patch_embed.proj.weight"])
    told = capsys.readouterr().out
    assert f"{len(weights)} entries loaded" in told
    kept = [key for key in before if key.startswith(("backbone.", "pyramid.")) and key not in weights]
    assert len(kept) == (20 if name == "swin-tiny-imagenet" else 0)
    assert all(key in told for key in kept) and ("start at random" in told) == bool(kept)


def narrow_set(folder: Path, format=DETECTION, lost: str = "nothing", **more: torch.Tensor) -> Path:
    """A weight set for a narrow network, with values of its own."""
    torch.manual_seed(9)
    state = build_method("hodor", NARROW).network.state_dict()
    weights = {n: v for n, v in state.items() if n.startswith(("backbone.", "pyramid.")) and not n.startswith(lost)}
    folder.mkdir(parents=True)
    save_weights(folder / "swin.safetensors", weights | more, format, {})
    return folder


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lost": "pyramid.lateral.0"}, "2 missing, first pyramid.lateral.0.bias"),
        ({"lost": "backbone.layers.1", "format": IMAGENET}, "missing, first backbone.layers.1"),
        ({"head": torch.ones(1)}, "1 unexpected, first head"),
        ({"backbone.norm0.bias": torch.ones(1)}, "1 of another shape, first backbone.norm0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, what, tmp_path):
    folder = narrow_set(tmp_path / "set", **change)
    with pytest.raises(HodorError, match=re.escape(f"{folder}/swin.safetensors: does not fit the network: ")) as error:
        build_method("hodor", NARROW).load_starting_weights(folder)
    assert what in str(error.value)


def test_missing_and_broken_sets_and_methods_without_weights(tmp_path):
    method = build_method("hodor", NARROW)
    with pytest.raises(HodorError, match="no such model file; prepare this weight set first"):
        method.load_starting_weights(tmp_path)
    (tmp_path / "swin.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(HodorError, match="broken model file .*prepare this weight set again"):
        method.load_starting_weights(tmp_path)
    with pytest.raises(HodorError, match="method Copy has no initial weights"):
        build_method("copy", {}).load_starting_weights(tmp_path)


def test_weights_are_for_a_swin_alone():
    with pytest.raises(ValueError, match="`weights` swin-tiny-imagenet are for backbone swin, not convnet"):
        HODOROptions(backbone="convnet", weights="swin-tiny-imagenet")
    offered = HODOROptions.model_json_schema()["properties"]["weights"]["anyOf"][0]["enum"]
    assert set(offered) == {name for name in sources.WEIGHT_SETS if name.startswith("swin")}


def test_a_training_starts_from_the_weight_set_unless_it_starts_from_a_row(tmp_path):
    narrow_set(tmp_path / "data" / "swin-tiny-imagenet")
    (tmp_path / "data" / "swin-tiny-imagenet.json").write_text("{}")
    options = HODOROptions(**NARROW, weights="swin-tiny-imagenet").model_dump(mode="json")

    def run(name: str, init: Path | None = None, **changed: object) -> dict[str, torch.Tensor]:
        settings = {
            "method": "hodor",
            "options": options | changed,
            "stage": None,
            "init": {"row": "a"} if init else None,
            "seed": 0,
            "device": "cpu",
            "threads": 1,
            "precision": "float32",
            "datasets": ["swin-tiny-imagenet"],
        }
        stamp = {
            "step": "train",
            "scale": "t",
            "row": "r",
            "seed": 0,
            "settings": settings,
            "recipes": {},
            "sha256": "s",
        }
        train(stamp, tmp_path / "data", tmp_path / name, init)
        return read_weights(tmp_path / name / "model.safetensors")[0]

    weights, _ = read_weights(tmp_path / "data" / "swin-tiny-imagenet" / "swin.safetensors")
    given, random = run("given"), run("random", weights=None)
    assert all(torch.equal(given[f"network.{name}"], value) for name, value in weights.items())
    others = [name for name in given if name.removeprefix("network.") not in weights]
    assert others and all(torch.equal(given[name], random[name]) for name in others)
    after = run("after", tmp_path / "random" / "model.safetensors")
    assert all(torch.equal(after[name], random[name]) for name in random)
