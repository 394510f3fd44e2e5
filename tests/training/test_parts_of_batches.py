"""The gradients of a batch are the same in parts: on several processes, a few clips at a time, or after a retry."""

import pytest
import torch

from hodor.errors import HodorError
from hodor.training.distributed import World
from hodor.training.randomness import seed_step
from tests.training import parts
from tests.training.processes import together

GRADIENTS, WEIGHTS = 1e-5, 1e-6  # relative to the largest of a tensor; absolute


@pytest.fixture(params=range(len(parts.LEARNING)), ids=parts.names())
def index(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def alone() -> dict:
    """Of each method: the method after one step of a process that computes its batch at once."""
    made = {}

    def get(index: int):
        if index not in made:
            method = parts.built(index)
            made[index] = (method, *parts.gradients(method, World(), None))
        return made[index]

    return get


def assert_same(ours: dict, theirs: dict, relative: float) -> None:
    """Differences are measured against the largest entry of each tensor, and of all for tensors near 0."""
    assert ours.keys() == theirs.keys()
    least = 1e-3 * max(value.abs().max().item() for value in theirs.values())
    for name, value in theirs.items():
        error = (ours[name] - value).abs().max().item()
        assert error <= relative * max(value.abs().max().item(), least), f"{name}: {error}"


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_accumulated_gradients_are_those_of_the_batch(index, micro_batch, alone):
    _, whole, values = alone(index)
    found, shares = parts.gradients(parts.built(index), World(), micro_batch)
    assert_same(found, whole, GRADIENTS)
    assert {name: value.item() for name, value in shares.items()} == pytest.approx(
        {name: value.item() for name, value in values.items()}, rel=1e-5
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes has after a step of every method, one clip at a time."""
    folder = tmp_path_factory.mktemp("two")
    together(parts.save_as_one_of_several, folder, 1)
    return folder


def test_two_processes_have_the_gradients_and_weights_of_one(index, alone, two):
    method, whole, values = alone(index)
    first, second = (torch.load(two / f"{index}-{rank}.pt") for rank in (0, 1))
    for found in (first, second):
        assert_same(found["gradients"], whole, GRADIENTS)
        for name, value in parts.sgd_step(method).items():
            assert (found["weights"][name] - value).abs().max() <= WEIGHTS, name
        assert {k: v.item() for k, v in found["values"].items()} == pytest.approx(
            {k: v.item() for k, v in values.items()}, rel=1e-5
        )
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])


def test_random_numbers_follow_from_seed_step_and_place():
    drawn = set()
    for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 4)]:
        seed_step(*place)
        drawn.add(tuple(torch.rand(4).tolist()))
    assert len(drawn) == 5
    seed_step(0, 1, 0)
    assert tuple(torch.rand(4).tolist()) in drawn


class Small:
    """A GPU that holds so many clips: more at a time, and memory ends halfway through the backward pass."""

    def __init__(self, monkeypatch, method, clips: int) -> None:
        self.seen: list[int] = []
        plain = type(method).loss

        def loss(method, clip, step):
            self.seen.append(len(clip))
            values = plain(method, clip, step)
            if len(clip) > clips:
                values["loss"].backward()
                raise torch.OutOfMemoryError("CUDA out of memory")
            return values

        monkeypatch.setattr(type(method), "loss", loss)


def test_without_memory_the_batch_is_computed_in_smaller_parts(alone, monkeypatch, capsys):
    _, whole, _ = alone(0)
    method = parts.built(0)
    gpu = Small(monkeypatch, method, clips=1)
    found, _ = parts.gradients(method, World(), None)
    assert gpu.seen == [4, 2, 1, 1, 1, 1]
    assert_same(found, whole, GRADIENTS)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and "out of GPU memory with 4 clips at a time, goes on with 2" in told[0]


def test_one_clip_that_does_not_fit_is_one_clear_error(monkeypatch):
    method = parts.built(0)
    Small(monkeypatch, method, clips=0)
    with pytest.raises(HodorError, match="the GPU's memory does not hold one clip"):
        parts.gradients(method, World(), None)


def test_where_one_process_lacks_memory_or_a_gradient_all_have_the_same(alone, tmp_path):
    """What no process uses stays without a gradient: the optimiser passes over it, as in a process alone."""
    together(parts.save_where_one_lacks_memory, tmp_path)
    uneven, _ = parts.gradients(parts.Uneven(), World(), None)
    assert uneven.keys() == {"first", "second"}
    for rank in (0, 1):
        smaller, other = torch.load(tmp_path / f"{rank}.pt")
        assert_same(smaller, alone(0)[1], GRADIENTS)
        assert_same(other, uneven, GRADIENTS)
