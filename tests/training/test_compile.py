"""Layers that `--compile` compiles: torch can follow them as a whole, and computes the same."""

import pytest
import torch

from tests.training import parts


@pytest.mark.long
def test_compiled_layers_compute_the_same_without_a_break():
    """Traced and run by torch's own operations: whether the generated code is right is not our question."""
    index = parts.names().index("hodor-soft")
    plain, compiled, clip = parts.built(index), parts.built(index), parts.batch()
    assert compiled.compilable()
    for module in compiled.compilable():
        module.compile(backend="eager", fullgraph=True)
    losses = []
    for method in (plain, compiled):
        losses.append(method.loss(clip, parts.STEP)["loss"])
        losses[-1].backward()
    assert torch.equal(*losses)
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
