"""The example of soft-masked attention in another model runs, learns, and shows what it is for."""

import ast
import importlib.util
import sys

import pytest
import torch


@pytest.fixture(scope="module")
def example(root):
    spec = importlib.util.spec_from_file_location("mask2former_like", root / "examples" / "mask2former_like.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_learns_synthetic_shapes(example):
    model, losses = example.train("soft", steps=50, batch=4)
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert (model.layers[0].cross_attention.alpha != torch.tensor([32.0, 32, 16, 16, 8, 8, 4, 4])).all()


@pytest.mark.parametrize(("mode", "reached"), [("soft", True), ("hard", False), ("none", False)])
def test_the_loss_of_a_later_layer_reaches_the_earlier_masks_through_soft_masking_alone(mode, reached, example):
    torch.manual_seed(0)
    assert (example.mask_gradient(example.MaskDecoder(mode)) > 0) == reached


def test_shapes_are_what_their_masks_say(example):
    images, masks, classes = example.shapes(20, torch.Generator().manual_seed(0))
    assert images.shape == (20, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    for image, found, kinds in zip(images, masks, classes, strict=True):
        assert len(found) == len(kinds) <= 3 and (found.sum(0) <= 1).all()
        for mask in found:
            inside = image[:, mask.bool()]
            assert inside.numel() == 0 or (inside == inside[:, :1]).all(), "one colour"


def test_it_takes_nothing_of_the_project_but_the_attention(root):
    tree = ast.parse((root / "examples" / "mask2former_like.py").read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in found if name.startswith("hodor")}
    assert ours == {"hodor.attention"} and found - ours - sys.stdlib_module_names <= {
        "torch",
        "torch.nn",
        "scipy.optimize",
    }
