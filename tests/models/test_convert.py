"""The verb `convert`: both ways bit for bit, every name reported, bad files refused without a trace."""

import collections
import errno
import json
import os
import pathlib
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hodor.cli import main as cli
from hodor.cli.convert import convert
from hodor.errors import HodorError
from hodor.models.base import build_method, load_model, read_weights, save_model
from hodor.models.checkpoints import files
from hodor.models.checkpoints.backbones import RESNET
from hodor.models.checkpoints.convert import convert_to_ours
from hodor.models.checkpoints.releases import DEAD_PREFIXES, HODOR


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A paper-size HODOR with random weights: (its file, the release's file that `convert` makes of it)."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)
    method = build_method("hodor", {})
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))  # no two entries alike
    ours = folder / "ours.safetensors"
    save_model(ours, method, name="hodor", options=method.options.model_dump(mode="json"))
    convert(ours, folder / "release.pth")
    return ours, folder / "release.pth"


@pytest.fixture
def small() -> dict[str, torch.Tensor]:
    """Entries of a small checkpoint: ResNet-18 without its last stage."""
    generator = torch.Generator().manual_seed(0)
    fresh = RESNET.fresh({"architecture": "resnet18"})
    return {name: torch.rand(value.shape, generator=generator) for name, value in fresh.items()}


def listed(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a list of a release's entries: `name (shape) ...` a line."""
    out = {}
    for line in path.read_text().splitlines():
        name, rest = line.split(" ", 1)
        out[name] = tuple(int(n) for n in rest[1 : rest.index(")")].split(",") if n.strip())
    return out


def run(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


def refused(capsys, source: Path, *flags: str) -> str:
    """The one line that the refusal to convert `source` prints; nothing may be written."""
    target = source.parent / "made" / "out.safetensors"
    assert run(source, target, *flags) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("hodor convert: error: "), told
    assert not target.parent.exists()
    return told.removeprefix("hodor convert: error: ")


# HODOR


def test_a_release_comes_back_bit_for_bit_and_loads(published, tmp_path, capsys):
    ours, release = published
    again = tmp_path / "again.safetensors"
    assert run(release, again) == 0
    told = capsys.readouterr().out
    assert "format hodor (recognised from the entries)" in told and "converted: 456 entries" in told
    assert "dead, dropped: 13" in told
    assert all(f"\n  {name}\n" in told for name in HODOR.neutral({}))
    assert again.read_bytes() == ours.read_bytes()
    name, method = load_model(again)
    assert name == "hodor" and method.options.attention == "soft"


def test_the_release_holds_its_names_and_neutral_dead_entries(published, shared):
    content = torch.load(published[1], weights_only=True)
    assert set(content) == {"model"}
    shapes = {name: tuple(value.shape) for name, value in content["model"].items()}
    assert shapes == listed(shared / "specs" / "hodor_state_dict.txt")
    dead = {name: value for name, value in content["model"].items() if name.startswith(DEAD_PREFIXES)}
    assert len(dead) == 13
    for name, value in dead.items():
        norm = value.ndim == 1 and name.endswith(".weight")
        assert (value == (1 if norm else 0)).all(), name


def test_every_live_entry_keeps_its_values(published):
    """By the release's own names, a few of every part."""
    weights, _ = read_weights(published[0])
    entries = torch.load(published[1], weights_only=True)["model"]
    for ours, theirs in {
        "network.backbone.layers.2.blocks.3.attn.qkv.weight": "feature_extractor.bb_fpn.0.layers.2.blocks.3.attn.qkv.weight",
        "network.pyramid.lateral.3.bias": "feature_extractor.bb_fpn.1.lateral_convs.3.conv.bias",
        "network.pyramid.output.1.weight": "feature_extractor.bb_fpn.1.fpn_convs.1.conv.weight",
        "network.norms.1.weight": "feature_extractor.norm_layers.1.weight",
        "network.encoder.background_embedding": "encoder.bg_query_embed",
        "network.encoder.layers.4.cross_attention.alpha": "encoder.attn_layers.4.cross_attn.scaling_factors",
        "network.encoder.layers.1.feed_forward.3.bias": "encoder.attn_layers.1.ffn.3.bias",
        "network.decoder.layers.2.convolution.conv_offsets.weight": (
            "decoder.attn_layers.2.self_attn_conv_substitute.0.conv_offsets.weight"
        ),
        "network.decoder.layers.0.cross_attention.k_proj_objects.weight": "decoder.attn_layers.0.k_proj_fg.weight",
        "network.decoder.layers.0.cross_attention.v_proj_backgrounds.bias": "decoder.attn_layers.0.v_proj_bg.bias",
        "network.decoder.catch_all.3.weight": "decoder.catch_all_conv.3.weight",
    }.items():
        assert torch.equal(weights[ours], entries[theirs]), theirs


def test_wrapped_flat_and_parallel_files_are_the_same_checkpoint(published, tmp_path):
    ours, release = published
    entries = torch.load(release, weights_only=True)["model"]
    entries = {name: value for name, value in entries.items() if name not in HODOR.neutral({})}  # they may be absent
    log = {"loss": [1.0], "groups": collections.OrderedDict(a=1)}
    for content in ({"model": entries, "iterations": 5, "logger": log}, {f"module.{n}": v for n, v in entries.items()}):
        torch.save(content, tmp_path / "other.pt")
        convert(tmp_path / "other.pt", tmp_path / "out.safetensors")
        assert (tmp_path / "out.safetensors").read_bytes() == ours.read_bytes()


def test_missing_unexpected_and_misfit_entries_are_named_and_nothing_is_written(published, tmp_path, capsys):
    entries = torch.load(published[1], weights_only=True)["model"]
    del entries["encoder.fg_query_embed"], entries["decoder.bg_query_proj.bias"]
    entries["encoder.strange"] = torch.zeros(1)
    entries["decoder.attn_layers.0.fc1.weight"] = torch.zeros(256, 255)
    entries["decoder.attn_layers.0.fc2.bias"] = entries["decoder.attn_layers.0.fc2.bias"].half()
    entries["decoder.conv_4x.2.bias"] = torch.full((256,), float("nan"))
    index = "feature_extractor.bb_fpn.0.layers.0.blocks.0.attn.relative_position_index"
    entries[index] = entries[index].flip(0)
    torch.save({"model": entries}, tmp_path / "bad.pth")
    assert run(tmp_path / "bad.pth", tmp_path / "made" / "out.safetensors") == 1
    told = capsys.readouterr()
    for line in (
        "missing: 2\n  decoder.bg_query_proj.bias\n  encoder.fg_query_embed\n",
        "unexpected: 1\n  encoder.strange\n",
        "of another shape, type or value: 4\n",
        "  decoder.attn_layers.0.fc1.weight: shape (256, 255), expected (256, 256)\n",
        "  decoder.attn_layers.0.fc2.bias: type float16, expected float32\n",
        "  decoder.conv_4x.2.bias: holds values that are not finite\n",
        f"  {index}: differs from its defined values\n",
    ):
        assert line in told.out
    assert told.err.count("\n") == 1
    assert (
        "bad.pth: not a valid checkpoint of format hodor" in told.err
        and "2 missing, first decoder.bg_query" in told.err
    )
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"attention": "hard"}, "cross_attention.alpha"),
        ({"backbone": "convnet", "backbone_width": 8, "backbone_depths": [1, 1, 1, 1]}, "missing"),
        ({"decoder_hidden": 128}, "expected (256, 256)"),
    ],
)
def test_a_network_that_the_release_cannot_hold_is_refused(options, what, tmp_path, capsys):
    method = build_method("hodor", options)
    save_model(tmp_path / "ours.safetensors", method, name="hodor", options=method.options.model_dump(mode="json"))
    assert run(tmp_path / "ours.safetensors", tmp_path / "release.pth") == 1
    told = capsys.readouterr()
    assert what in told.out + told.err and told.err.count("\n") == 1
    assert not (tmp_path / "release.pth").exists()


def test_options_that_the_release_cannot_hold_are_told(published, tmp_path, capsys):
    weights, metadata = read_weights(published[0])
    model = json.loads(metadata["model"])
    model["options"]["detach_masks"] = True
    save_file(weights, tmp_path / "ours.safetensors", metadata={"model": json.dumps(model)})
    assert run(tmp_path / "ours.safetensors", tmp_path / "release.pth") == 0
    assert "options that are not part of the format: detach_masks\n" in capsys.readouterr().out


# Other formats


def test_starting_weights_of_a_backbone_come_back(small, tmp_path, capsys):
    extra = {"fc.weight": torch.ones(1000, 512), "layer4.0.bn1.bias": torch.ones(512)}
    torch.save(small | extra | {"bn1.num_batches_tracked": torch.tensor(7)}, tmp_path / "r.pth")
    assert run(tmp_path / "r.pth", tmp_path / "r.safetensors") == 0
    told = capsys.readouterr().out
    assert "format resnet-imagenet (recognised from the entries)" in told and "converted: 75 entries" in told
    assert "without a counterpart, dropped: 2\n  fc.weight\n  layer4.0.bn1.bias\n" in told
    assert "dead, dropped: 1\n  bn1.num_batches_tracked\n" in told
    weights, _ = read_weights(tmp_path / "r.safetensors")
    assert weights.keys() == small.keys() and all(torch.equal(weights[name], small[name]) for name in small)
    assert run(tmp_path / "r.safetensors", tmp_path / "back.bin") == 0
    back = torch.load(tmp_path / "back.bin", weights_only=True)
    assert all(torch.equal(back[name], small[name]) for name in small)
    assert set(back) - set(small) == {name for name in back if name.endswith("num_batches_tracked")}


def test_a_format_may_be_named_and_must_exist_and_fit(small, tmp_path, capsys):
    torch.save(small, tmp_path / "r.pth")
    assert run(tmp_path / "r.pth", tmp_path / "r.safetensors", "--format", "resnet-imagenet") == 0
    assert "format resnet-imagenet\n" in capsys.readouterr().out
    assert "--format resnet: unknown format; use one of hodor (" in refused(
        capsys, tmp_path / "r.pth", "--format", "resnet"
    )
    assert run(tmp_path / "r.safetensors", tmp_path / "back.pth", "--format", "hodor") == 1
    assert "holds weights for format resnet-imagenet, not hodor" in capsys.readouterr().err


def test_names_of_no_format_are_refused(tmp_path, capsys):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "x.pth")
    told = refused(capsys, tmp_path / "x.pth")
    assert "of no known format (its first entry is a.weight); set --format to one of hodor, " in told


def test_absent_constants_are_filled_in_and_told():
    """A file may lack the tables that are defined, not learned."""
    theirs = HODOR.to_original(dict(build_method("hodor", {}).state_dict()))
    index = [name for name in theirs if name.endswith("relative_position_index")]
    weights, _, report = convert_to_ours(HODOR, {n: v for n, v in theirs.items() if n not in index})
    assert report.filled == sorted(index) and report.fault() is None and len(index) == 12
    ours = "network.backbone.layers.0.blocks.0.attn.relative_position_index"
    assert torch.equal(weights[ours], theirs[HODOR.to_original({ours: ours}).popitem()[0]])


# Bad files


def test_a_truncated_file(small, tmp_path, capsys):
    path = tmp_path / "cut.pth"
    for legacy in (False, True):
        torch.save(small, path, _use_new_zipfile_serialization=not legacy)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert f"{path}: damaged, truncated or no PyTorch checkpoint" in refused(capsys, path)


def test_an_empty_file_a_text_and_a_zip_of_something_else(tmp_path, capsys):
    path = tmp_path / "x.pth"
    path.write_bytes(b"")
    assert "an empty file" in refused(capsys, path)
    path.write_text("<html>Not Found</html>")
    assert "no PyTorch checkpoint" in refused(capsys, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "no PyTorch checkpoint" in refused(capsys, path)


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("bare", [False, True], ids=["checkpoint", "bare pickle"])
def test_a_pickle_that_wants_to_execute_code_does_not(bare, small, tmp_path, capsys):
    trace, path = tmp_path / "trace", tmp_path / "evil.pkl"
    content = {"model": small, "logger": Malicious(trace)}
    if bare:
        path.write_bytes(pickle.dumps({"logger": Malicious(trace)}, protocol=2))
    else:
        torch.save(content, path)
    told = refused(capsys, path)
    assert not trace.exists()
    assert "holds more than tensors (" in told and "mkdir" in told and "none was run" in told
    if not bare:  # the file is what it is meant to be: read carelessly, it does run
        torch.load(path, weights_only=False)
        assert trace.is_dir()


@pytest.mark.parametrize("value", [collections.defaultdict(list, loss=[1.0]), pathlib.PurePosixPath("a")])
def test_other_objects_beside_the_tensors_are_refused_too(value, small, tmp_path, capsys):
    torch.save({"model": small, "logger": value}, tmp_path / "x.pth")
    assert "holds more than tensors (" in refused(capsys, tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "it holds nothing"),
        ({"epoch": 3, "model": {}}, "it holds nothing"),
        ({"lr": 0.1, "epoch": 3}, "it holds the keys epoch, lr"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "no named tensors"),
        (torch.ones(3), "it holds one Tensor"),
    ],
)
def test_a_file_without_named_tensors(content, what, tmp_path, capsys):
    torch.save(content, tmp_path / "x.pth")
    assert what in refused(capsys, tmp_path / "x.pth")


def test_files_that_are_not_there_or_have_no_fitting_endings(tmp_path, capsys):
    assert "none.pth: no such checkpoint" in refused(capsys, tmp_path / "none.pth")
    assert "use an original checkpoint" in refused(capsys, tmp_path / "a.safetensors")
    assert run(tmp_path / "a.pth", tmp_path / "b.pth") == 1
    assert "use an original checkpoint" in capsys.readouterr().err
    assert run(tmp_path / "none.safetensors", tmp_path / "b.pth") == 1
    assert "none.safetensors: no such model file" in capsys.readouterr().err


def test_files_of_others_are_not_written_back(small, tmp_path, capsys):
    save_file(small, tmp_path / "foreign.safetensors")
    assert run(tmp_path / "foreign.safetensors", tmp_path / "b.pth") == 1
    assert "neither a method nor a format" in capsys.readouterr().err
    save_model(tmp_path / "copy.safetensors", build_method("copy", {}), name="copy", options={})
    assert run(tmp_path / "copy.safetensors", tmp_path / "b.pth") == 1
    assert "method copy: " in capsys.readouterr().err


def test_a_folder_in_the_place_of_the_target_and_a_folder_that_cannot_be(small, tmp_path, capsys):
    torch.save(small, tmp_path / "r.pth")
    (tmp_path / "folder.safetensors").mkdir()
    assert run(tmp_path / "r.pth", tmp_path / "folder.safetensors") == 1
    assert "folder.safetensors: is a folder" in capsys.readouterr().err
    assert run(tmp_path / "r.pth", tmp_path / "r.pth" / "out.safetensors") == 1
    assert "r.pth: cannot create" in capsys.readouterr().err


@pytest.mark.parametrize("inward", [True, False])
def test_a_full_disk_leaves_the_old_file(inward, small, tmp_path, capsys, monkeypatch):
    torch.save(small, tmp_path / "r.pth")
    convert(tmp_path / "r.pth", tmp_path / "r.safetensors")
    names = ("r.pth", "out.safetensors") if inward else ("r.safetensors", "out.pth")
    source, target = (tmp_path / name for name in names)
    target.write_bytes(b"old")
    capsys.readouterr()

    def full(content, file, **_):
        """Fills the file in part."""
        if isinstance(file, Path):
            file.write_bytes(b"half")
        else:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hodor.models.base.save_file", full)
    monkeypatch.setattr(files.torch, "save", full)
    assert run(source, target) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "No space left on device" in told and str(target) in told
    assert target.read_bytes() == b"old" and not list(tmp_path.glob("*.part"))


def test_a_broken_source_does_not_touch_the_target(small, tmp_path):
    del small["conv1.weight"]
    torch.save(small, tmp_path / "r.pth")
    (tmp_path / "out.safetensors").write_bytes(b"old")
    with pytest.raises(HodorError, match="1 missing, first conv1.weight"):
        convert(tmp_path / "r.pth", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"old"
