"""The verb `convert`: bit for bit in both directions, every name reported, nothing written for bad files."""

import collections
import errno
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
from hodor.models.base import build_method, load_model, save_model
from hodor.models.checkpoints import load
from hodor.models.checkpoints.convert import convert_to_ours
from hodor.models.checkpoints.releases import FORMATS, recognise
from tests.golden.inputs import CASES, no_random_weights, original
from tests.narrow import save_small


@pytest.fixture(scope="module", autouse=True)
def quick():
    with no_random_weights():
        yield


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    """Return the smallest checkpoint: ResNet-18 without its last stage."""
    return original("resnet18", dead=False)


def run(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


def refused(capsys, source: Path, *flags: str) -> str:
    """Return the one-line error of converting `source`; check that nothing was written."""
    target = source.parent / "made" / "out.safetensors"
    assert run(source, target, *flags) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith("hodor convert: error: "), message
    assert not target.parent.exists()
    return message


@pytest.mark.parametrize("case", CASES)
def test_a_release_comes_back_bit_for_bit_and_loads(case, tmp_path, capsys):
    name, options = CASES[case]
    format, entries = FORMATS[name], original(case)
    release, ours, back = (tmp_path / file for file in ("release.pth", "ours.safetensors", "back.bin"))
    heads = {f"{part}bias": torch.ones(2) for part in format.unused}
    # Only a checkpoint of STCN's training holds its entries under a key.
    wrapper = format.wrapper or ("network" if case == "stcn-5" else None)
    torch.save({wrapper: entries | heads, "it": 7} if wrapper else entries | heads, release)
    parallel = [f"module.{key.removeprefix('module.')}" for key in entries]
    assert recognise(entries, "x").name == recognise(parallel, "x").name == name
    convert(release, ours)
    report = capsys.readouterr().out
    assert f"format {name}\n" in report and all(f"\n  {key}\n" in report for key in (*format.neutral(), *heads))
    if format.method:
        loaded, method = load_model(ours)
        assert loaded == format.method and options.items() <= method.options.model_dump().items()
    convert(ours, back)
    content = torch.load(back, weights_only=True)
    again = content[format.wrapper] if format.wrapper else content
    assert again.keys() == entries.keys() and all(torch.equal(value, again[key]) for key, value in entries.items())


@pytest.mark.parametrize("case", ["hodor", "stm", "stcn"])
def test_names_and_shapes_are_the_listed_ones(case, shared):
    listed = {}
    name = "stcn_s0" if case == "stcn" else case
    for line in (shared / "specs" / f"{name}_state_dict.txt").read_text().splitlines():
        key, shape = line.split(" ", 1)
        listed[key] = tuple(int(n) for n in shape[1 : shape.index(")")].split(",") if n.strip())
    prefix = FORMATS[case].prefix
    assert {key.removeprefix(prefix): tuple(value.shape) for key, value in original(case).items()} == listed


def test_formats_of_two_releases_at_once_and_of_none(tmp_path, capsys):
    with pytest.raises(HodorError, match="of several formats; set --format"):
        recognise(["Encoder_M.conv1.weight", "layer1.0.conv1.weight"], "x.pth")
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "x.pth")
    message = refused(capsys, tmp_path / "x.pth")
    assert "of no known format (its first entry is a.weight); set --format to one of hodor, " in message


def test_dead_and_constant_entries_may_be_absent_and_names_may_be_those_of_parallel_training(tmp_path):
    entries = original("swin-imagenet")
    weights, _, report = convert_to_ours(FORMATS["swin-imagenet"], entries)
    live = {key: value for key, value in entries.items() if key not in report.dead and "position_index" not in key}
    again, _, filled = convert_to_ours(FORMATS["swin-imagenet"], {f"module.{key}": v for key, v in live.items()})
    assert len(filled.filled) == 12 and not filled.dead and again.keys() == weights.keys()
    assert all(torch.equal(again[key], value) for key, value in weights.items())


def test_missing_unexpected_and_misfit_entries_are_named_and_nothing_is_written(tmp_path, capsys):
    entries = original("stm")
    del entries["module.Encoder_M.conv1_o.weight"], entries["module.Decoder.pred2.bias"]
    entries["module.Encoder_M.conv2.weight"] = torch.zeros(1)
    entries["module.Encoder_M.conv1_m.weight"] = torch.zeros(64, 2, 7, 7)
    entries["module.Decoder.convFM.bias"] = entries["module.Decoder.convFM.bias"].half()
    entries["module.Decoder.convFM.weight"][0] = float("nan")
    entries["module.Encoder_Q.mean"] = torch.zeros(1, 3, 1, 1)
    torch.save(entries, tmp_path / "bad.pth")
    assert run(tmp_path / "bad.pth", tmp_path / "made" / "out.safetensors") == 1
    printed = capsys.readouterr()
    for lines in (
        ("missing: 2", "Decoder.pred2.bias", "Encoder_M.conv1_o.weight"),
        ("unexpected: 1", "Encoder_M.conv2.weight"),
        ("of another shape, type or value: 4",),
        ("  Encoder_M.conv1_m.weight: shape (64, 2, 7, 7), expected (64, 1, 7, 7)",),
        ("  Decoder.convFM.bias: type float16, expected float32",),
        ("  Decoder.convFM.weight: contains values that are not finite",),
        ("  Encoder_Q.mean: differs",),
    ):
        assert "\n  ".join(lines) in printed.out
    assert printed.err.count("\n") == 1 and "2 missing, first Decoder.pred2" in printed.err
    assert "bad.pth: not a valid checkpoint of format stm" in printed.err and not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [({"attention": "hard"}, "cross_attention.alpha"), ({"decoder_hidden": 128}, "expected (256, 256)")],
)
def test_a_network_that_the_release_cannot_hold_is_refused(options, what, tmp_path, capsys):
    save_small(tmp_path / "ours.safetensors", "hodor", options)
    assert run(tmp_path / "ours.safetensors", tmp_path / "release.pth") == 1
    printed = capsys.readouterr()
    assert what in printed.out and printed.err.count("\n") == 1 and not (tmp_path / "release.pth").exists()


def test_options_that_the_release_cannot_hold_are_reported(tmp_path, capsys):
    method = build_method("stm", {"top_k": 5})
    torch.nn.utils.vector_to_parameters(torch.zeros(40_000_000), method.parameters())
    save_model(tmp_path / "ours.safetensors", method, name="stm", options=method.options.model_dump(mode="json"))
    assert run(tmp_path / "ours.safetensors", tmp_path / "release.pth") == 0
    assert "options that are not part of the format: top_k\n" in capsys.readouterr().out


def test_a_format_may_be_named_and_must_exist_and_fit(small, tmp_path, capsys):
    torch.save(small, tmp_path / "r.pth")
    assert run(tmp_path / "r.pth", tmp_path / "r.safetensors", "--format", "resnet-imagenet") == 0
    message = refused(capsys, tmp_path / "r.pth", "--format", "resnet")
    assert "--format resnet: unknown format; use one of hodor" in message
    assert run(tmp_path / "r.safetensors", tmp_path / "back.pth", "--format", "hodor") == 1
    assert "holds weights for format resnet-imagenet, not hodor" in capsys.readouterr().err


# Bad files


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_damaged_and_other_files(small, tmp_path, capsys):
    path = tmp_path / "x.pth"

    def truncated(legacy: bool) -> None:
        torch.save(small, path, _use_new_zipfile_serialization=not legacy)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def zipped() -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")

    for write in (
        *(lambda: truncated(False), lambda: truncated(True), zipped),
        *(lambda: path.write_bytes(b""), lambda: path.write_text("<html>Not Found</html>")),
    ):
        write()
        assert f"{path}: damaged, truncated or no PyTorch checkpoint" in refused(capsys, path)


@pytest.mark.parametrize("bare", [False, True], ids=["checkpoint", "bare pickle"])
def test_code_in_a_pickle_is_not_executed(bare, tmp_path, capsys):
    trace, path = tmp_path / "trace", tmp_path / "evil.pkl"
    if bare:
        path.write_bytes(pickle.dumps({"logger": Malicious(trace)}, protocol=2))
    else:
        torch.save({"model": {"a": torch.ones(1)}, "logger": Malicious(trace)}, path)
    message = refused(capsys, path)
    assert not trace.exists()
    assert "contains more than tensors (" in message and "mkdir" in message and "none was executed" in message
    if not bare:  # without `weights_only` the code is executed
        torch.load(path, weights_only=False)
        assert trace.is_dir()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"model": {"a": torch.ones(1)}, "logger": collections.defaultdict(list)}, "contains more than tensors ("),
        ({"model": {"a": torch.ones(1)}, "logger": pathlib.PurePosixPath("a")}, "contains more than tensors ("),
        ({}, "it contains nothing"),
        ({"epoch": 3, "model": {}}, "it contains epoch, model"),
        ({"lr": 0.1, "epoch": 3}, "it contains epoch, lr"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "no named tensors"),
        (torch.ones(3), "it contains Tensor"),
    ],
)
def test_a_file_of_other_things_than_named_tensors(content, what, tmp_path, capsys):
    torch.save(content, tmp_path / "x.pth")
    assert what in refused(capsys, tmp_path / "x.pth")


def test_sources_and_targets_that_do_not_fit(small, tmp_path, capsys):
    torch.save(small, tmp_path / "r.pth")
    save_file(small, tmp_path / "foreign.safetensors")
    save_file(small, tmp_path / "odd.safetensors", {"model": '{"method": "hodor"}'})
    save_small(tmp_path / "copy.safetensors", "copy", {})
    (tmp_path / "folder.safetensors").mkdir()
    for source, target, what in (
        ("none.pth", "b.safetensors", "none.pth: no such file or folder"),
        ("r.pth", "b.pth", "use an original checkpoint"),
        ("copy.safetensors", "b.safetensors", "use an original checkpoint"),
        ("foreign.safetensors", "b.pth", "no method or format"),
        ("copy.safetensors", "b.pth", "a model of copy"),
        ("odd.safetensors", "b.pth", "odd.safetensors: damaged metadata"),
        ("r.pth", "folder.safetensors", "folder.safetensors: is a folder"),
        ("r.pth", "r.pth/out.safetensors", "r.pth: "),
    ):
        assert run(tmp_path / source, tmp_path / target) == 1
        message = capsys.readouterr().err
        assert what in message and message.count("\n") == 1
        assert target.startswith("folder") or not (tmp_path / target).exists()


@pytest.mark.parametrize("inward", [True, False])
def test_a_full_disk_leaves_the_old_file(inward, small, tmp_path, capsys, monkeypatch):
    torch.save(small, tmp_path / "r.pth")
    convert(tmp_path / "r.pth", tmp_path / "r.safetensors")
    names = ("r.pth", "out.safetensors") if inward else ("r.safetensors", "out.pth")
    source, target = (tmp_path / name for name in names)
    target.write_bytes(b"old")
    capsys.readouterr()

    def full(content, file, **_):
        """Fill half of the file."""
        if isinstance(file, Path):
            file.write_bytes(b"half")
        else:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hodor.models.base.save_file", full)
    monkeypatch.setattr(load.torch, "save", full)
    assert run(source, target) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "No space left on device" in message and str(target) in message
    assert target.read_bytes() == b"old" and not list(tmp_path.glob("*.part"))
