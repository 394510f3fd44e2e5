"""Execution of a training: flags, the environment of torchrun, several processes."""

import pytest
import torch

from hodor.cli.main import _parser
from hodor.config.execution import Execution, place
from hodor.errors import HodorError
from hodor.training.distributed import World
from tests.refused import refused


def parse(text: str) -> Execution:
    return Execution.of_arguments(_parser().parse_args(["train", "hodor-soft-coco", *text.split()]))


@pytest.mark.parametrize(
    "execution",
    [Execution(), Execution(processes=4, micro_batch=2, compile=True, deterministic=True), Execution(processes=2)],
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
