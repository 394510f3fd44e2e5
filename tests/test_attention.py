"""Soft-masked attention: its limits, its gradients, its errors."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hodor.attention as module
from hodor.attention import SoftMaskedAttention, initial_alpha

B, Q, N, C, HEADS = 2, 9, 17, 16, 4  # more queries than channels of a head


def attention(mode: str, seed: int = 0, **options) -> SoftMaskedAttention:
    torch.manual_seed(seed)
    return SoftMaskedAttention(C, HEADS, mode=mode, **options).double()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(B, Q, C, generator=generator, dtype=torch.float64)
    pixels = torch.randn(B, N, C, generator=generator, dtype=torch.float64)
    return query, pixels, torch.rand(B, Q, N, generator=generator, dtype=torch.float64)


def same_weights(target: SoftMaskedAttention, source: SoftMaskedAttention) -> SoftMaskedAttention:
    target.load_state_dict({k: v for k, v in source.state_dict().items() if k != "alpha"}, strict=False)
    return target


def test_equals_the_written_formula(inputs):
    """Each head by hand: softmax(q k / sqrt(d) + alpha m) v, as the module's docstring says."""
    query, pixels, mask = inputs
    layer = attention("soft")
    q, k, v = layer.q_proj(query), layer.k_proj(pixels), layer.v_proj(pixels)
    d, heads = C // HEADS, []
    for h in range(HEADS):
        part = slice(h * d, (h + 1) * d)
        logits = torch.einsum("bqd,bnd->bqn", q[..., part], k[..., part]) / d**0.5 + layer.alpha[h] * mask
        heads.append(torch.einsum("bqn,bnd->bqd", logits.softmax(-1), v[..., part]))
    expected = layer.out_proj(torch.cat(heads, -1))
    assert torch.allclose(layer(query, pixels, mask), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_mask_changes_nothing_also_in_training(inputs, mode, value):
    query, pixels, mask = inputs
    layer = attention(mode, dropout=0.5).train()
    plain = same_weights(attention("none", seed=5, dropout=0.5), layer).train()
    torch.manual_seed(3)
    expected = plain(query, pixels, None)
    torch.manual_seed(3)
    assert torch.allclose(layer(query, pixels, torch.full_like(mask, value)), expected, atol=1e-9)


def test_hard_masking_sees_only_the_mask_and_gives_it_no_gradient(inputs):
    query, pixels, mask = inputs
    mask = mask.clone().requires_grad_()
    layer = attention("hard")
    out = layer(query, pixels, mask)
    moved = pixels.clone()
    moved[0, mask[0, 1] < 0.5] += 5  # outside the mask of query 1 in sample 0
    again = layer(query, moved, mask)
    assert torch.equal(out[0, 1], again[0, 1]) and not torch.allclose(out[0, 0], again[0, 0])
    out.sum().backward()
    assert mask.grad is None


def test_alphas_start_in_quarters_and_only_soft_has_them():
    assert initial_alpha(8) == [32, 32, 16, 16, 8, 8, 4, 4]
    assert attention("soft").alpha.tolist() == [32, 16, 8, 4]
    names = {mode: {name for name, _ in attention(mode).named_parameters()} for mode in module.MODES}
    assert names["soft"] - names["hard"] == {"alpha"} and names["hard"] == names["none"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 16, "heads": 4, "mode": "gentle"}, "none of none, hard, soft"),
        ({"dim": 16, "heads": 5}, "do not divide"),
        ({"dim": 18, "heads": 6}, "set `alpha`"),
        ({"dim": 16, "heads": 4, "alpha": [1.0, 2.0]}, "2 alphas for 4 heads"),
        ({"dim": 16, "heads": 4, "form": "unfolded"}, "none of auto, plain, folded"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        SoftMaskedAttention(**arguments)


def test_refuses_a_mask_of_another_shape(inputs):
    query, pixels, mask = inputs
    for wrong in (None, mask[:, :, :-1], mask[:, 0]):
        with pytest.raises(ValueError, match="needs a mask of shape"):
            attention("soft")(query, pixels, wrong)


@pytest.mark.parametrize("empty", ["all", "peak"])
@pytest.mark.parametrize("layout", ["rows", "feature map"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("mode", ["none", "hard", "soft"])
def test_both_forms_are_one_function_with_one_gradient(inputs, mode, dropout, layout, empty):
    query, pixels, mask = inputs
    mask = mask.clone()
    mask[0, 0] *= 0.4  # no pixel left for hard masking
    if layout == "feature map":
        pixels = pixels.transpose(1, 2).contiguous().transpose(1, 2)
    out, gradients = {}, {}
    for form in ("plain", "folded"):
        layer = attention(mode, form=form, dropout=dropout, empty=empty)
        assert layer.train().folds(Q) == (form == "folded")
        leaves = [x.detach().requires_grad_() for x in (query, pixels, mask)]
        torch.manual_seed(3)
        out[form] = layer(*leaves)
        out[form].pow(3).sum().backward()
        gradients[form] = {name: p.grad for name, p in layer.named_parameters()}
        gradients[form] |= dict(zip(("query", "pixels", "mask"), (x.grad for x in leaves), strict=True))
    torch.testing.assert_close(out["folded"], out["plain"], rtol=1e-10, atol=1e-12)
    for name, expected in gradients["plain"].items():
        found = gradients["folded"][name]
        assert (found is None) == (expected is None) == (name == "mask" and mode != "soft"), name
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=name)
    # Softmax removes the key bias: a gradient, for optimisers and distributed training want one, and it is zero.
    assert (gradients["folded"]["k_proj.bias"] == 0).all()


def test_costs_are_counted_without_memory():
    from torch.utils.flop_counter import FlopCounterMode

    layers = {form: SoftMaskedAttention(64, 4, form=form).to("meta") for form in ("plain", "folded")}
    inputs = [torch.empty(1, n, 64, device="meta") for n in (3, 1000)] + [torch.empty(1, 3, 1000, device="meta")]
    counted = {}
    for form, layer in layers.items():
        with FlopCounterMode(display=False) as counter:
            assert layer(*inputs).shape == (1, 3, 64)
        counted[form] = counter.get_total_flops()
    # Twice the multiplications of the docstring, and the projections of the few queries beside them.
    assert 2 * 2 * 4 * 3 * 1000 * 64 < counted["folded"] < 2.2 * 2 * 4 * 3 * 1000 * 64
    assert 2 * 2 * (64 + 3) * 1000 * 64 < counted["plain"] < 2.1 * 2 * (64 + 3) * 1000 * 64


def test_the_cheaper_form_is_taken():
    layer = SoftMaskedAttention(256, 8)
    assert layer.folds(11) and layer.folds(36) and not layer.folds(37)
    assert SoftMaskedAttention(256, 8, form="folded").folds(100)
    assert not SoftMaskedAttention(256, 8, form="plain").folds(1)


def test_the_file_works_alone_with_torch_and_the_standard_library(tmp_path):
    shutil.copy(module.__file__, tmp_path / "alone.py")
    code = """if True:
        import sys
        class Refuse:
            def find_spec(name, *_):
                if name.split(".")[0] == "hodor": raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Refuse)
        import torch
        from alone import SoftMaskedAttention
        layer = SoftMaskedAttention(16, 4)
        layer(torch.ones(1, 1, 16), torch.ones(1, 5, 16), torch.ones(1, 1, 5)).sum().backward()
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    tree = ast.parse(Path(module.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} <= {"torch", *sys.stdlib_module_names}


def test_a_mask_with_no_pixel_left_may_see_its_largest_ones_alone():
    from hodor.attention import hard_mask_bias

    mask = torch.tensor([[0.1, 0.3, 0.3, 0.2], [0.1, 0.9, 0.4, 0.6]])
    assert (hard_mask_bias(mask)[0] == 0).all()
    assert (hard_mask_bias(mask, empty="peak")[0] == 0).tolist() == [False, True, True, False]
    assert (hard_mask_bias(mask)[1] == 0).tolist() == [False, True, False, True]
    assert (hard_mask_bias(mask, threshold=0.7)[1] == 0).tolist() == [False, True, False, False]


def test_alpha_inside_the_scale_is_a_smaller_alpha():
    torch.manual_seed(0)
    outside = SoftMaskedAttention(16, 4, alpha=[8.0, 4.0, 2.0, 1.0])
    inside = SoftMaskedAttention(16, 4, alpha=[16.0, 8.0, 4.0, 2.0], alpha_inside_scale=True)  # sqrt(16 / 4) = 2
    state = outside.state_dict() | {"alpha": inside.alpha.data}
    inside.load_state_dict(state)
    query, pixels, mask = torch.randn(1, 3, 16), torch.randn(1, 9, 16), torch.rand(1, 3, 9)
    assert torch.allclose(outside(query, pixels, mask), inside(query, pixels, mask), atol=1e-6)


@pytest.mark.parametrize("mode", ["none", "hard", "soft"])
def test_the_weights_to_look_at_are_those_of_the_output(mode):
    torch.manual_seed(0)
    attention = SoftMaskedAttention(32, 4, mode=mode).eval()
    query, pixels, mask = torch.randn(2, 3, 32), torch.randn(2, 20, 32), torch.rand(2, 3, 20)
    weights = attention.weights(query, pixels, mask)  # (B, h, Q, N)
    assert weights.shape == (2, 4, 3, 20) and torch.allclose(weights.sum(-1), torch.ones(2, 4, 3))
    values = attention.v_proj(pixels).unflatten(-1, (4, 8)).transpose(1, 2)
    expected = attention.out_proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(query, pixels, mask), expected)
