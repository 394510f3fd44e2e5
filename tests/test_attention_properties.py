"""Properties of soft-masked attention that hold for any input, in both forms and in half precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hodor.attention import SoftMaskedAttention

C, HEADS, KDIM, VDIM = 8, 4, 6, 10
# Products of half precision numbers: 3 or 2 significant digits.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@st.composite
def cases(draw, dtypes=tuple(TOLERANCE), **fixed):
    """A layer and its inputs: query, key, mask, value."""
    options = {
        "form": draw(st.sampled_from(["plain", "folded"])),
        "mode": draw(st.sampled_from(["soft", "hard", "none"])),
        "bias": draw(st.booleans()),
        "learn_alpha": draw(st.sampled_from(["per_head", "shared", "fixed"])),
        "alpha": draw(st.floats(-8, 8)),
    } | fixed
    dtype = draw(st.sampled_from(dtypes))
    batch, queries, pixels = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    torch.manual_seed(draw(st.integers(0, 999)))
    layer = SoftMaskedAttention(C, HEADS, kdim=KDIM, vdim=VDIM, **options).to(dtype)
    heads = [HEADS] if draw(st.booleans()) else []
    shapes = [(batch, queries, C), (batch, pixels, KDIM), (batch, pixels, VDIM)]
    query, key, value = (torch.randn(shape, dtype=dtype) for shape in shapes)
    return layer, query, key, torch.rand(batch, *heads, queries, pixels, dtype=dtype), value


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=TOLERANCE[a.dtype], atol=TOLERANCE[a.dtype])


check = settings(max_examples=15, deadline=None)


@check
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_pixels_does_not_matter(case, random):
    layer, query, key, mask, value = case
    order = random.sample(range(key.shape[1]), key.shape[1])
    shuffled = layer(query, key[:, order], mask[..., order], value=value[:, order])
    assert_same(shuffled, layer(query, key, mask, value=value))


@check
@given(cases(mode="soft"), st.sampled_from([-1.0, 0.5, 2.0]))
def test_shifting_the_mask_by_a_constant_changes_nothing(case, shift):
    layer, query, key, mask, value = case
    assert_same(layer(query, key, mask + shift, value=value), layer(query, key, mask, value=value))


@check
@given(cases(mode="soft", alpha=0.0))
def test_alpha_zero_is_plain_attention(case):
    layer, query, key, mask, value = case
    expected = layer(query, key, torch.zeros_like(mask), value=value)
    assert_same(layer(query, key, mask, value=value), expected)


# In half precision the largest initial alpha; a larger one rounds the other part of the logits away.
LARGE = [cases(mode="soft", alpha=32.0), cases(dtypes=(torch.float32, torch.float64), mode="soft", alpha=1e3)]


@check
@given(st.one_of(LARGE), st.sampled_from([None, torch.float16, torch.bfloat16]))
def test_large_alpha_is_hard_masking_of_binary_masks(case, autocast):
    layer, query, key, mask, value = case
    hard = SoftMaskedAttention(
        C, HEADS, mode="hard", kdim=KDIM, vdim=VDIM, form=layer.form, bias=layer.q_proj.bias is not None
    )
    hard.to(mask.dtype).load_state_dict({k: v for k, v in layer.state_dict().items() if k != "alpha"})
    binary = (mask > 0.5).to(mask.dtype)
    # Autocast leaves mask and softmax in float32, and with them any alpha.
    with torch.autocast("cpu", autocast, enabled=autocast is not None and mask.dtype == torch.float32):
        assert_same(layer(query, key, binary, value=value), hard(query, key, binary, value=value))


@check
@given(cases(), st.integers(1, 4), st.booleans())
def test_padding_equals_cropping(case, more, gradient):
    layer, query, key, mask, value = case
    padded = [torch.cat([x, 9 * torch.ones_like(x[:, :1]).expand(-1, more, -1)], dim=1) for x in (key, value)]
    wide = torch.cat([mask, torch.ones_like(mask[..., :1]).expand(*mask.shape[:-1], more)], dim=-1)
    ignored = (torch.arange(key.shape[1] + more) >= key.shape[1]).expand(len(key), -1)
    with torch.set_grad_enabled(gradient):  # without: the fused kernel of the plain form
        found = layer(query, padded[0], wide, value=padded[1], key_padding_mask=ignored)
        assert_same(found, layer(query, key, mask, value=value))


@check
@given(cases())
def test_batching_equals_looping(case):
    layer, query, key, mask, value = case
    each = [layer(query[i : i + 1], key[i : i + 1], mask[i : i + 1], value=value[i : i + 1]) for i in range(len(key))]
    assert_same(layer(query, key, mask, value=value), torch.cat(each))


@check
@given(cases())
def test_forms_agree_and_weights_sum_to_one(case):
    layer, query, key, mask, value = case
    out, weights = layer(query, key, mask, value=value, need_weights=True)
    layer.form = "plain" if layer.form == "folded" else "folded"
    assert_same(layer(query, key, mask, value=value), out)
    assert_same(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert_same(layer.weights(query, key, mask), weights)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("mode", ["soft", "hard", "none"])
@pytest.mark.parametrize("form", ["plain", "folded"])
def test_a_query_without_any_pixel_reads_zeros(form, mode, gradient):
    torch.manual_seed(0)
    layer = SoftMaskedAttention(C, HEADS, mode=mode, form=form)
    query, key, mask = torch.randn(2, 3, C), torch.randn(2, 5, C).requires_grad_(gradient), torch.rand(2, 3, 5)
    ignored = torch.zeros(2, 5, dtype=torch.bool)
    ignored[0] = True
    with torch.set_grad_enabled(gradient):
        out = layer(query, key, mask, key_padding_mask=ignored)
    torch.testing.assert_close(out[0], layer.out_proj.bias.expand(3, -1))
    torch.testing.assert_close(out[1], layer(query[1:], key[1:], mask[1:])[0])
    weights = layer(query, key, mask, key_padding_mask=ignored, need_weights=True)[1]
    assert (weights[0] == 0).all()
    if gradient:
        out.sum().backward()
        assert (key.grad[0] == 0).all() and key.grad.isfinite().all() and key.grad[1].abs().sum() > 0


def test_padding_of_another_type_or_shape_is_refused():
    layer, x = SoftMaskedAttention(C, HEADS, mode="none"), torch.ones(2, 5, C)
    for wrong in (torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="key_padding_mask must be bool"):
            layer(x, x, key_padding_mask=wrong)


def test_alpha_is_learned_per_head_shared_or_fixed():
    def parameters(**options):
        return {name: p.shape for name, p in SoftMaskedAttention(C, HEADS, **options).named_parameters()}

    assert parameters()["alpha"] == (HEADS,) and parameters(learn_alpha="shared")["alpha"] == (1,)
    fixed = SoftMaskedAttention(C, HEADS, learn_alpha="fixed", alpha=4.0)
    assert "alpha" not in parameters(learn_alpha="fixed") and fixed.state_dict()["alpha"].tolist() == [4.0] * HEADS
    with pytest.raises(ValueError, match="none of per_head, shared, fixed"):
        SoftMaskedAttention(C, HEADS, learn_alpha="always")
