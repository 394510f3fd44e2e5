"""Soft-masked attention under PyTorch's transforms, compilers, exporters and precisions, in every mode and form."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor import config as inductor_config
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from hodor.attention import SoftMaskedAttention

B, Q, N, C, HEADS = 2, 3, 9, 8, 4
FORMS = ("plain", "folded")
EACH = pytest.mark.parametrize("form", FORMS)
MODE = pytest.mark.parametrize("mode", ["soft", "hard", "none"])


def build(form: str = "auto", dtype: torch.dtype = torch.float64, **options) -> SoftMaskedAttention:
    torch.manual_seed(0)
    alpha = None if options.get("mode", "soft") != "soft" else [2.0, 1.0, 0.5, 0.25]
    return SoftMaskedAttention(C, HEADS, form=form, alpha=alpha, **options).to(dtype)


def make_inputs(queries: int = Q, pixels: int = N, dtype: torch.dtype = torch.float64, batch: int = B) -> tuple:
    torch.manual_seed(1)
    query, key = torch.randn(batch, queries, C, dtype=dtype), torch.randn(batch, pixels, C, dtype=dtype)
    return query, key, torch.rand(batch, queries, pixels, dtype=dtype)


@MODE
@EACH
def test_first_and_second_derivatives(form, mode):
    layer = build(form, mode=mode)
    # 0.5 would be a step of hard masking.
    leaves = [x[:1].clone().requires_grad_(mode == "soft" or x.shape[-1] == C) for x in make_inputs(2, 5)]
    names = [name for name, _ in layer.named_parameters()]

    def run(query, key, mask, *parameters):
        return functional_call(layer, dict(zip(names, parameters, strict=True)), (query, key, mask))

    leaves += [p.detach().clone().requires_grad_() for p in layer.parameters()]
    # Fast mode compares projections of the Jacobians, which suffices for the many entries of the weights.
    assert gradcheck(run, leaves, fast_mode=True)
    assert gradgradcheck(run, leaves, fast_mode=True)


@EACH
def test_function_transforms_agree_with_autograd(form):
    layer, (query, key, mask) = build(form), make_inputs()

    def loss(mask, query=query, key=key):
        return layer(query, key, mask).pow(2).sum()

    leaf = mask.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(grad(loss)(mask), expected)
    torch.testing.assert_close(jacrev(loss)(mask), expected)
    leaves = [x.clone().requires_grad_() for x in (query, key, mask)]  # the others ask for a gradient too
    torch.testing.assert_close(torch.autograd.grad(layer(*leaves).pow(2).sum(), leaves)[2], expected)
    direction = torch.rand_like(mask)
    torch.testing.assert_close(jvp(loss, (mask,), (direction,))[1], (expected * direction).sum())
    each = vmap(grad(lambda m, q, k: loss(m[None], q[None], k[None])))(mask, query, key)
    torch.testing.assert_close(each, expected)
    with torch.no_grad():
        torch.testing.assert_close(grad(loss)(mask), expected)
        out = vmap(lambda m, q, k: layer(q[None], k[None], m[None])[0])(mask, query, key)
    torch.testing.assert_close(out, layer(query, key, mask))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("form", "dynamic"),
    [
        *((form, False) for form in ["auto", *FORMS]),
        ("auto", True),
        *(pytest.param(form, True, marks=pytest.mark.long) for form in FORMS),
    ],
)
# The caches on disk take the graph of form "auto" for that of another form, together with the sizes that it is for.
@inductor_config.patch(force_disable_caches=True)
def test_compiled_without_graph_breaks(form, dynamic, backend):
    torch._dynamo.reset()
    layer = build(form, torch.float32, dropout=0.0)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=dynamic)
    graphs = []
    for queries, pixels in [(3, 12), (2, 9), (5, 7)][: 3 if dynamic else 1]:
        found = []
        for run in (layer, compiled):
            leaves = [x.requires_grad_() for x in make_inputs(queries, pixels, torch.float32)]
            out = run(*leaves, key_padding_mask=torch.arange(pixels).expand(B, -1) > 5)
            found.append([out, *torch.autograd.grad(out.square().sum(), [*leaves, *layer.parameters()])])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
        graphs.append(counter.frame_count)
    if not dynamic:
        assert graphs == [1]
    elif form != "auto":  # which takes one form or the other by the number of queries
        # With dynamic shapes torch starts the first compilation again for a number such as the dropout's.
        assert graphs == graphs[:1] * 3, "one graph serves all sizes"


PAIRS = pytest.mark.parametrize(
    ("mode", "form"), [("soft", "auto"), ("soft", "folded"), ("hard", "plain"), ("hard", "folded"), ("none", "auto")]
)


@pytest.mark.parametrize("strict", [False, True])
@PAIRS
def test_exported_with_dynamic_shapes(mode, form, strict):
    layer = build(form, torch.float32, mode=mode).eval()
    batch, queries, pixels = (torch.export.Dim(name, max=4096) for name in "bqn")
    shapes = ({0: batch, 1: queries}, {0: batch, 1: pixels}, {0: batch, 1: queries, 2: pixels})
    program = torch.export.export(layer, make_inputs(dtype=torch.float32), dynamic_shapes=shapes, strict=strict)
    for size in ((2, 3), (40, 50)):
        inputs = make_inputs(*size, dtype=torch.float32, batch=3)
        torch.testing.assert_close(program.module()(*inputs), layer(*inputs), rtol=1e-4, atol=1e-5)


@PAIRS
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_runs_in_onnxruntime(mode, form, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer = build(form, torch.float32, mode=mode).eval()
    queries, pixels = torch.export.Dim("q", max=4096), torch.export.Dim("n", max=4096)
    shapes = ({1: queries}, {1: pixels}, {1: queries, 2: pixels})
    inputs = make_inputs(dtype=torch.float32)
    path = tmp_path / "attention.onnx"
    torch.onnx.export(layer, inputs, path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]  # without the mask in mode `none`
    for size in ((Q, N), (5, 20)):
        inputs = make_inputs(*size, dtype=torch.float32)
        (out,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=False)})
        torch.testing.assert_close(torch.from_numpy(out), layer(*inputs).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@MODE
@EACH
def test_half_precision_by_autocast_and_throughout(form, mode, dtype):
    layer, inputs = build(form, torch.float32, mode=mode), make_inputs(dtype=torch.float32)
    exact = layer(*inputs)
    leaves = [x.clone().requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype):
        out = layer(*leaves)
    out.float().square().sum().backward()
    assert out.dtype == dtype and leaves[1].grad.isfinite().all() and leaves[1].grad.abs().sum() > 0
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.03)
    with torch.no_grad():  # the fused kernel of the plain form too
        whole = layer.to(dtype)(*(x.to(dtype) for x in inputs))
    torch.testing.assert_close(whole.float(), exact, rtol=0.05, atol=0.03)


@EACH
def test_checkpointing_and_deterministic_algorithms_change_nothing(form):
    layer = build(form, dropout=0.5).train()
    found = []
    try:
        for again in (False, True):
            torch.use_deterministic_algorithms(again)
            leaves = [x.requires_grad_() for x in make_inputs()]
            torch.manual_seed(3)
            out = checkpoint(layer, *leaves, use_reentrant=False) if again else layer(*leaves)
            found.append([out, *torch.autograd.grad(out.sum(), [*leaves, *layer.parameters()])])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
