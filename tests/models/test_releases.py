"""Released checkpoints of STM and STCN, both ways."""

import pytest
import torch

from hodor.cli.convert import convert
from hodor.errors import HodorError
from hodor.models.base import build_method, load_model
from hodor.models.checkpoints.convert import convert_to_original, convert_to_ours, require
from hodor.models.checkpoints.files import read_checkpoint
from hodor.models.checkpoints.load import FORMATS, recognise

LISTS = {"stm": "stm_state_dict.txt", "stcn": "stcn_s0_state_dict.txt"}


def fabricated(name: str, *, channels: int = 4) -> dict[str, torch.Tensor]:
    """A release's entries, without a prefix, from the project's own list of names; values at random."""
    generator = torch.Generator().manual_seed(5)
    options = {"others": channels == 5} if name == "stcn" else {}
    entries, _ = convert_to_original(FORMATS[name], build_method(name, options).state_dict(), options)
    out = {}
    for key, value in entries.items():
        constant = key.endswith((".mean", ".std")) or not value.is_floating_point()
        out[key] = value if constant else torch.randn(value.shape, generator=generator)
    return out


@pytest.fixture(scope="module")
def released() -> dict[str, dict[str, torch.Tensor]]:
    return {"stm": fabricated("stm"), "stcn": fabricated("stcn"), "stcn-5": fabricated("stcn", channels=5)}


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_names_and_shapes_are_the_listed_ones(released, shared, name):
    listed = {}
    for line in (shared / "specs" / LISTS[name]).read_text().splitlines():
        key, shape = line.split(" ", 1)
        listed[key] = tuple(int(n) for n in shape[1 : shape.index(")")].split(",") if n.strip())
    prefix = "module." if name == "stm" else ""
    assert {key.removeprefix(prefix): tuple(value.shape) for key, value in released[name].items()} == listed
    assert all(key.startswith(prefix) for key in released[name])


@pytest.mark.parametrize("name", ["stm", "stcn", "stcn-5"])
def test_a_release_comes_back_bit_for_bit(released, tmp_path, name):
    release, ours, back = (tmp_path / file for file in ("release.pth", "ours.safetensors", "back.pth"))
    # A checkpoint of STCN's training holds the entries under a key.
    torch.save({"it": 7, "network": released[name]} if name == "stcn-5" else released[name], release)
    convert(release, ours)
    method, model = load_model(ours)
    assert method == name.split("-")[0]
    assert model.options.others == (name != "stcn")
    convert(ours, back)
    again = read_checkpoint(back)
    assert again.keys() == released[name].keys()
    assert all(torch.equal(value, again[key]) for key, value in released[name].items())


def test_the_first_convolution_reads_image_mask_and_others(released):
    entries = {key.removeprefix("module."): value for key, value in released["stm"].items()}
    ours, _, report = convert_to_ours(FORMATS["stm"], entries)
    require(report, "stm.pth")
    stem = ours["network.memory_encoder.backbone.conv1.weight"]
    frame, masks = torch.randn(1, 3, 32, 32), torch.rand(1, 2, 32, 32)
    apart = sum(
        torch.nn.functional.conv2d(x, entries[f"Encoder_M.{name}.weight"], None, 2, 3)
        for name, x in (("conv1", frame), ("conv1_m", masks[:, :1]), ("conv1_o", masks[:, 1:]))
    )
    together = torch.nn.functional.conv2d(torch.cat([frame, masks], 1), stem, None, 2, 3)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["stm", "stcn"])
def test_formats_are_told_from_the_entries(released, name):
    assert recognise(released[name], "x.pth").name == name


def test_every_fault_is_told_and_nothing_written(released, tmp_path, capsys):
    entries = dict(released["stm"])
    del entries["module.Encoder_M.conv1_o.weight"]
    entries["module.Encoder_M.conv2.weight"] = torch.zeros(1)
    entries["module.Encoder_M.conv1_m.weight"] = torch.zeros(64, 2, 7, 7)
    entries["module.Encoder_Q.mean"] = torch.zeros(1, 3, 1, 1)
    torch.save(entries, tmp_path / "stm.pth")
    with pytest.raises(HodorError, match=r"stm\.pth: .*1 missing.*1 unexpected.*2 of another"):
        convert(tmp_path / "stm.pth", tmp_path / "ours.safetensors")
    told = capsys.readouterr().out
    assert all(f"Encoder_M.{name}.weight" in told for name in ("conv1_o", "conv2", "conv1_m"))
    assert "Encoder_Q.mean" in told
    assert not (tmp_path / "ours.safetensors").exists()
