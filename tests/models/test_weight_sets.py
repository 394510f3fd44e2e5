"""Initial weights: backbones of other networks, weight sets as data sets, and initialising a network."""

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
from hodor.models.checkpoints.convert import convert_to_ours
from hodor.models.checkpoints.load import prepare_weights, save_initial_weights
from hodor.models.checkpoints.releases import DETECTION, IMAGENET
from hodor.models.hodor.network import Network
from hodor.training.trainer import train
from tests.golden.inputs import no_random_weights, original
from tests.narrow import NARROW as NARROWEST
from tests.refused import refused
from tests.training.small import make_stamp

NARROW = NARROWEST | {"backbone": "swin", "backbone_width": 32}
PYRAMID_AND_NORMS = r"pyramid\.|backbone\.norm\d\."


def test_backbone_and_pyramid_of_a_detector():
    theirs = original("swin-detection")
    weights, _, _ = convert_to_ours(DETECTION, theirs)
    with no_random_weights():
        network = Network(HODOROptions()).state_dict()
    own = {name for name in network if name.startswith(("backbone.", "pyramid."))}
    assert weights.keys() == own and all(weights[name].shape == network[name].shape for name in own)
    assert torch.equal(weights["pyramid.lateral.2.weight"], theirs["neck.lateral_convs.2.conv.weight"])
    assert torch.equal(weights["backbone.norm3.bias"], theirs["backbone.norm3.bias"])


def test_backbone_of_a_classifier_has_no_norms_of_maps():
    theirs = original("swin-imagenet")
    weights, _, _ = convert_to_ours(IMAGENET, theirs)
    assert not any(re.match(PYRAMID_AND_NORMS, name) for name in weights)
    assert torch.equal(weights["backbone.layers.1.downsample.norm.bias"], theirs["layers.1.downsample.norm.bias"])
    mask = theirs["layers.0.blocks.1.attn_mask"]  # 56 x 56 tokens are 64 windows
    assert mask.shape == (64, 49, 49) and set(mask.unique().tolist()) == {-100, 0}
    # Only windows at the far edges are mixed; the corner one holds four parts, of 4 or 3 rows and columns.
    assert (mask[0] == 0).all() and (mask[-1] == 0).sum() == (16**2 + 2 * 12**2 + 9**2)
    assert "layers.3.blocks.1.attn_mask" not in theirs  # 7 x 7 tokens are one window, which is not shifted


# Weight sets


@pytest.fixture
def resnets(tmp_path, monkeypatch) -> tuple[dict[str, dict], Path]:
    """Return ResNet checkpoints by archive in a mirror, and a function that fetches them to a folder."""
    monkeypatch.chdir(tmp_path)  # steps hold a lock below the working directory
    made = {
        archive: original(name, dead=False) | {"fc.bias": torch.ones(9)}
        for archive, name in sources.WEIGHT_SETS["resnet-imagenet"].items()
    }

    def fetched() -> Path:
        (tmp_path / "mirror" / "resnet-imagenet").mkdir(parents=True)
        for archive, entries in made.items():
            torch.save(entries, tmp_path / "mirror" / "resnet-imagenet" / archive)
        wanted = [{"archive": archive} for archive in made]
        origin = {"dataset": "resnet-imagenet", "edition": "subset", "mirror": str(tmp_path / "mirror")}
        fetch({"settings": origin | {"archives": wanted}}, tmp_path / "archives")
        return tmp_path / "archives"

    return made, fetched


STAMP = {"settings": {"dataset": "resnet-imagenet", "edition": "subset"}}


def test_a_weight_set_is_prepared_like_a_data_set(tmp_path, resnets, capsys):
    made, fetched = resnets
    archives, out, manifest = fetched(), tmp_path / "data" / "resnet-imagenet", tmp_path / "data" / "m.json"
    prepare_weights(STAMP, archives, out, manifest)
    printed = capsys.readouterr().out
    assert "resnet18-f37072fd.pth -> resnet18.safetensors" in printed and "\n  fc.bias\n" in printed
    content = json.loads(manifest.read_text())
    assert content["dataset"] == "resnet-imagenet" and set(content["archives"]) == set(made)
    assert content["splits"]["resnet18"]["entries"] == 75 and content["files"] == 2
    for archive, name in sources.WEIGHT_SETS["resnet-imagenet"].items():
        weights, _ = read_weights(out / f"{name}.safetensors")
        assert weights.keys() == made[archive].keys() - {"fc.bias"}
        assert all(torch.equal(weights[key], made[archive][key]) for key in weights)
    prepare_weights(STAMP, archives, out, manifest)
    assert json.loads(manifest.read_text()) == content  # the same bytes every time


def test_a_weight_set_with_a_wrong_entry_leaves_nothing(tmp_path, resnets):
    made, fetched = resnets
    del made["resnet18-f37072fd.pth"]["layer3.1.bn2.running_var"]
    out, manifest = tmp_path / "data" / "resnet-imagenet", tmp_path / "data" / "m.json"
    out.mkdir(parents=True)
    manifest.write_text("{}")
    with pytest.raises(HodorError, match=r"resnet18-f37072fd\.pth: .*first layer3\.1\.bn2\.running_var"):
        prepare_weights(STAMP, fetched(), out, manifest)
    assert not list(out.iterdir()) and not manifest.exists()


def test_weight_sets_are_not_prepared_as_images_and_not_generated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("unknown data set 'resnet-imagenet'", prepare, STAMP, tmp_path, tmp_path / "out", tmp_path / "m.json")
    origin = {"dataset": "swin-tiny-imagenet", "edition": "generated", "mirror": None, "archives": []}
    refused("no generated data for 'swin-tiny-imagenet'", fetch, {"settings": origin}, tmp_path / "archives")


# Initialising HODOR


def narrow_set(folder: Path, format=DETECTION, lost: str = "nothing", **more: torch.Tensor) -> Path:
    """Write a weight set for a narrow network, without the entries that match `lost`."""
    torch.manual_seed(9)
    state = build_method("hodor", NARROW).network.state_dict()
    weights = {n: v for n, v in state.items() if n.startswith(("backbone.", "pyramid.")) and not re.match(lost, n)}
    folder.mkdir(parents=True)
    save_initial_weights(folder / "swin.safetensors", weights | more, format, {})
    return folder


@pytest.mark.parametrize(("format", "lost"), [(DETECTION, "nothing"), (IMAGENET, PYRAMID_AND_NORMS)])
def test_hodor_starts_from_a_weight_set_and_reports_what_stays_random(format, lost, tmp_path, capsys):
    folder = narrow_set(tmp_path / "set", format, lost)
    torch.manual_seed(5)
    method = build_method("hodor", NARROW)
    before = {key: value.clone() for key, value in method.network.state_dict().items()}
    method.load_starting_weights(folder)
    weights, _ = read_weights(folder / "swin.safetensors")
    after = method.network.state_dict()
    assert all(torch.equal(after[key], weights.get(key, before[key])) for key in after)
    assert not torch.equal(after["backbone.patch_embed.proj.weight"], before["backbone.patch_embed.proj.weight"])
    printed = capsys.readouterr().out
    assert f"{len(weights)} entries loaded" in printed
    kept = [key for key in before if key.startswith(("backbone.", "pyramid.")) and key not in weights]
    assert len(kept) == (20 if format is IMAGENET else 0)
    assert all(key in printed for key in kept) and ("start at random" in printed) == bool(kept)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lost": r"pyramid\.lateral\.0"}, "2 missing, first pyramid.lateral.0.bias"),
        ({"lost": r"backbone\.layers\.1", "format": IMAGENET}, "missing, first backbone.layers.1"),
        ({"head": torch.ones(1)}, "1 unexpected, first head"),
        ({"backbone.norm0.bias": torch.ones(1)}, "1 of another shape, first backbone.norm0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, what, tmp_path):
    folder = narrow_set(tmp_path / "set", **change)
    message = refused("does not fit the network: ", build_method("hodor", NARROW).load_starting_weights, folder)
    assert message.startswith(f"{folder}/swin.safetensors: ") and what in message


def test_missing_and_broken_sets_and_methods_without_weights(tmp_path):
    method = build_method("hodor", NARROW)
    refused("no such model file; prepare this weight set first", method.load_starting_weights, tmp_path)
    (tmp_path / "swin.safetensors").write_bytes(b"x" * 50)
    refused("broken model file .*prepare this weight set again", method.load_starting_weights, tmp_path)
    refused("method Copy has no initial weights", build_method("copy", {}).load_starting_weights, tmp_path)


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
        stamp = make_stamp(options=options | changed, datasets=["swin-tiny-imagenet"])
        stamp["settings"] |= {"stage": None, "init": {"row": "a"} if init else None}
        train(stamp, tmp_path / "data", tmp_path / name, init)
        return read_weights(tmp_path / name / "model.safetensors")[0]

    weights, _ = read_weights(tmp_path / "data" / "swin-tiny-imagenet" / "swin.safetensors")
    given, random = run("given"), run("random", weights=None)
    assert all(torch.equal(given[f"network.{name}"], value) for name, value in weights.items())
    others = [name for name in given if name.removeprefix("network.") not in weights]
    assert others and all(torch.equal(given[name], random[name]) for name in others)
    after = run("after", tmp_path / "random" / "model.safetensors")
    assert all(torch.equal(after[name], random[name]) for name in random)
