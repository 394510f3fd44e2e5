"""Execution of a training: flags, the environment of torchrun, several processes."""

import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hodor.cli.main import _parser
from hodor.config.execution import Execution, place
from hodor.errors import HodorError
from hodor.training import trainer
from hodor.training.distributed import World
from hodor.training.log import TrainingLog
from tests.refused import refused


def parse(text: str) -> Execution:
    return Execution.of_arguments(_parser().parse_args(["train", "hodor-soft-coco", *text.split()]))


@pytest.mark.parametrize(
    "execution",
    [Execution(), Execution(processes=4, micro_batch=2, compile=True, deterministic=True), Execution(tensorboard=True)],
)
def test_flags_are_equivalent_to_the_configuration(execution):
    assert parse(execution.arguments()) == execution


def test_numbers_below_one_are_refused():
    refused("--processes 0: ", parse, "--processes 0")
    refused("--micro-batch -1: ", parse, "--micro-batch -1")


def test_the_environment_of_torchrun():
    assert place({}) == (0, 1, 0)
    assert place({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == (5, 8, 1)


def test_more_processes_than_gpus_are_one_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert World(0, 1, 0).device(torch.device("cuda")) == torch.device("cuda")
    assert World(1, 2, 1).device(torch.device("cpu")) == torch.device("cpu")
    refused("2 or more workers on 1 GPUs", World(1, 2, 1).device, torch.device("cuda"))


def test_alone_nothing_is_exchanged():
    world = World()
    assert world.maximum(15) == 15 and world.share("x") == "x" and world.leads and world.alone
    with pytest.raises(SystemExit) as silent:
        World(1, 2, 1).fail(HodorError("reported by the first"))
    assert silent.value.code == 1


def test_event_files_need_their_package(monkeypatch):
    monkeypatch.setattr(trainer, "find_spec", lambda name: None)
    stamp = {"settings": {"seed": 0, "device": "cpu", "threads": 1, "precision": "float32"}, "row": "row"}
    refused(r"hodor-repro\[tensorboard\]", trainer.train, stamp, Path(), Path(), execution=Execution(tensorboard=True))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_log_is_a_bar_on_a_terminal_plain_lines_elsewhere_and_event_files_on_request(tmp_path, monkeypatch, capsys):
    written = []

    def writer(folder, purge_step):
        written.append((folder, purge_step))
        return SimpleNamespace(add_scalar=lambda *values: written.append(values), flush=lambda: None)

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    values = {"loss": 0.5, "alpha": [[32.0, 16.0]]}
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "earlier").touch()
    log = TrainingLog(tmp_path / "a.jsonl", title="row", first=0, steps=4, events=tmp_path / "events")
    log.write(2, 8, values)
    assert capsys.readouterr().err.startswith("row: step 2 of 4, loss 0.5000, ")
    assert not (tmp_path / "events").exists(), "those of other settings"
    (folder, purged), *scalars = written
    speed = json.loads((tmp_path / "a.jsonl").read_text())["examples_per_second"]
    assert (folder, purged) == (tmp_path / "events", 1)
    assert scalars == [
        *(("loss", 0.5, 2), ("alpha/0/0", 32.0, 2), ("alpha/0/1", 16.0, 2)),
        ("examples_per_second", speed, 2),
    ]
    # Resumed: events after the checkpoint are superseded.
    TrainingLog(tmp_path / "a.jsonl", title="row", first=2, steps=4, events=tmp_path / "events")
    assert written[-1] == (tmp_path / "events", 3)

    monkeypatch.setattr(sys, "stderr", Terminal())
    log = TrainingLog(tmp_path / "b.jsonl", title="row", first=0, steps=4)
    log.write(4, 8, values)
    assert (
        re.search(r"row: 100%.* 4/4 .*loss 0.5000", sys.stderr.getvalue()) and "step 4 of" not in sys.stderr.getvalue()
    )
