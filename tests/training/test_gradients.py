"""The gradients of a batch are the same in parts: on several workers, in micro-batches, in any combination."""

import pytest
import torch

from hodor.errors import HodorError
from hodor.training.distributed import World
from hodor.training.optim import seed_step
from tests.training import parts

GRADIENTS, WEIGHTS = 1e-5, 1e-6  # relative to the largest of a tensor; absolute


@pytest.fixture(params=range(len(parts.LEARNING)), ids=parts.names())
def index(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def alone() -> dict:
    """Return a function from the index of a method to the method, its gradients and its loss, for the whole batch."""
    made = {}

    def get(index: int):
        if index not in made:
            method = parts.built(index)
            made[index] = (method, *parts.gradients(method, World(), None))
        return made[index]

    return get


def assert_same(ours: dict, theirs: dict, relative: float = GRADIENTS) -> None:
    """Compare relative to the largest entry of each tensor, and of all tensors for those near 0."""
    assert ours.keys() == theirs.keys()
    least = 1e-3 * max(value.abs().max().item() for value in theirs.values())
    for name, value in theirs.items():
        error = (ours[name] - value).abs().max().item()
        assert error <= relative * max(value.abs().max().item(), least), f"{name}: {error}"


def assert_same_values(ours: dict, theirs: dict) -> None:
    assert {k: v.item() for k, v in ours.items()} == pytest.approx({k: v.item() for k, v in theirs.items()}, rel=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_accumulated_gradients_are_those_of_the_batch(index, micro_batch, alone):
    _, whole, values = alone(index)
    found, shares = parts.gradients(parts.built(index), World(), micro_batch)
    assert_same(found, whole)
    assert_same_values(shares, values)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the folder with the results of two gloo workers after a step of every method, one clip at a time."""
    folder = tmp_path_factory.mktemp("two")
    parts.together(parts.save_as_one_of_several, folder)
    return folder


def test_two_workers_have_the_gradients_and_weights_of_one(index, alone, two):
    method, whole, values = alone(index)
    first, second = (torch.load(two / f"{index}-{rank}.pt") for rank in (0, 1))
    for found in (first, second):
        assert_same(found["gradients"], whole)
        for name, value in parts.sgd_step(method).items():
            assert (found["weights"][name] - value).abs().max() <= WEIGHTS, name
        assert_same_values(found["values"], values)
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])


def test_parameters_that_some_clips_do_not_use(two):
    """A parameter that no clip uses has no gradient: the optimiser skips it, as in a single process."""
    whole, _ = parts.gradients(parts.Uneven(), World(), None)
    assert whole.keys() == {"first", "second", "both"}
    for rank in (0, 1):
        for found in torch.load(two / f"{rank}.pt")["uneven"]:
            assert_same(found, whole)


def test_the_micro_batch_is_the_largest_that_fits_on_every_gpu(two):
    assert [torch.load(two / f"{rank}.pt")["micro_batch"] for rank in (0, 1)] == [1, 1]
    for clips, given, tried, found in [(4, None, [4], None), (2, None, [4, 2], 2), (1, 3, [3, 2, 1], 1)]:
        method = parts.Limited(clips)
        computing = parts.make_gradients(method, micro_batch=given)
        computing.fit(parts.batch(), (0,))
        assert (method.seen, computing.micro_batch) == (tried, found) and method.weight.grad is None


def test_workers_end_while_their_gradients_are_still_held():
    """DistributedDataParallel outlives the connection if an exception references the frame of the training loop."""
    parts.together(parts.leave_often, parts.free_ports(20))


def test_one_clip_that_does_not_fit_is_an_error():
    with pytest.raises(HodorError, match="one clip does not fit .* `precision: bfloat16`"):
        parts.make_gradients(parts.Limited(0)).fit(parts.batch(), (0,))


def test_random_numbers_depend_on_seed_step_and_place():
    drawn = set()
    for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 4)]:
        seed_step(*place)
        drawn.add(tuple(torch.rand(4).tolist()))
    assert len(drawn) == 5
    seed_step(0, 1, 0)
    assert tuple(torch.rand(4).tolist()) in drawn
