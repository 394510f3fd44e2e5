"""Checkpoints: damage is detected, those of another run are ignored, a full disk keeps the previous one."""

import os
import random

import pytest
import torch

from hodor.provenance import sha256_file
from hodor.training.checkpoint import Checkpoints
from tests.refused import refused


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    """Save checkpoints of steps 1 and 2."""
    made = Checkpoints(tmp_path, "me")
    for step in (1, 2):
        made.save(step, {"weights": {"w": torch.full((50,), float(step))}, "seconds": 1.0})
    return made


def test_the_newest_two_are_kept_with_their_checksums(checkpoints, tmp_path):
    for step in (3, 4):
        checkpoints.save(step, {})
    names = ["step-00000003.pt", "step-00000003.sha256", "step-00000004.pt", "step-00000004.sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoints.load()["step"] == 4 and checkpoints.newest().name == names[2]
    digest, name = (tmp_path / names[3]).read_text().split()  # what `sha256sum --check` reads
    assert name == names[2] and digest == sha256_file(tmp_path / name)


def test_every_flipped_bit_is_detected(checkpoints, tmp_path, capsys):
    path, rng = tmp_path / "step-00000002.pt", random.Random(0)
    content, checksum = path.read_bytes(), path.with_suffix(".sha256").read_text()
    for _ in range(40):
        damaged, bit = bytearray(content), rng.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        path.with_suffix(".sha256").write_text(checksum)
        assert checkpoints.load()["step"] == 1 and not path.exists()
        line = capsys.readouterr().err
        assert line.startswith(f"{path}: damaged checkpoint") and line.count("\n") == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "no tensors", "no checksum", "empty checksum", "a folder"])
def test_other_damage_uses_the_one_before(damage, checkpoints, tmp_path, capsys):
    path = tmp_path / "step-00000002.pt"
    checksum = path.with_suffix(".sha256")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no tensors":
        torch.save([1], path)
        checksum.write_text(sha256_file(path))
    elif damage == "no checksum":
        checksum.unlink()
    elif damage == "empty checksum":
        checksum.write_text("")
    else:
        path.unlink(), path.mkdir()
    assert checkpoints.load()["step"] == 1
    assert str(path) in (line := capsys.readouterr().err) and line.count("\n") == 1


def test_checkpoints_of_another_run_are_ignored(checkpoints, tmp_path, capsys):
    """Of other settings, or written before checkpoints had checksums."""
    torch.save({"identity": "old layout", "step": 3}, tmp_path / "step-00000003.pt")
    assert Checkpoints(tmp_path, "another").load() is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all("other settings, recipe versions or data" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_checkpoint_before(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    refused("No space left.*resumes from the checkpoint before", checkpoints.save, 3, {})
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 4 and checkpoints.load()["step"] == 2
