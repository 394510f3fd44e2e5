"""Compare the time and memory of soft-masked attention with its alternatives, for several numbers of queries.

    python benchmarks/attention_speed.py                    # a few minutes
    python benchmarks/attention_speed.py --device cuda      # float32 and bfloat16, FlexAttention too

Compared are both forms of `hodor.attention`, `auto` (one of the two), `sdpa`: the same layer with
`scaled_dot_product_attention`, alpha * mask as additive mask, and on a GPU `flex`: FlexAttention with a `score_mod`,
compiled. All get the same weights, queries, pixels and masks, by default those of HODOR's encoder at paper size: 256
channels, 8 heads, 9,216 pixels (a frame of 768 x 768 at stride 8); 11 queries are 9 background patches and 2 objects.
With backward, all of them need gradients. Outputs and gradients are compared first. Memory is what a call needs at its
peak beyond its inputs, each in a fresh process; with backward it includes the gradients.
"""

import argparse
from collections.abc import Callable

import torch
from harness import Times, alternate, extra_memory_mib, script_parser, spread, write_result
from torch import Tensor
from torch.nn import functional

from hodor.attention import SoftMaskedAttention

FORMS = ("plain", "folded", "auto")
SMALL = 64


class Fused(SoftMaskedAttention):
    """The same layer by one of PyTorch's attention functions."""

    def forward(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(key))
        return self.out_proj(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))


class Sdpa(Fused):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        bias = self.alpha.view(1, -1, 1, 1) * mask.unsqueeze(1)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class Flex(Fused):
    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        from torch.nn.attention.flex_attention import flex_attention

        self.function = torch.compile(flex_attention, dynamic=False)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        alpha = self.alpha

        def score_mod(score, b, h, i, s):
            return score + alpha[h] * mask[b, i, s]

        return self.function(q, k.contiguous(), v.contiguous(), score_mod=score_mod)


def build(variant: str, channels: int, heads: int) -> SoftMaskedAttention:
    torch.manual_seed(0)
    if variant in FORMS:
        return SoftMaskedAttention(channels, heads, form=variant)
    return {"sdpa": Sdpa, "flex": Flex}[variant](channels, heads)


def prepare(
    variant: str, shape: tuple[int, int, int, int, int], backward: bool, device: str, precision: str
) -> Callable:
    """A call of attention in this variant with inputs of this shape (B, Q, N, C, h); it returns output and gradients."""
    batch, queries, pixels, channels, heads = shape
    if pixels > SMALL:  # code that is loaded at the first call is no memory of the attention
        prepare(variant, (batch, queries, SMALL, channels, heads), backward, device, precision)()
    layer = build(variant, channels, heads).to(device).requires_grad_(backward)
    inputs = [
        torch.randn(batch, queries, channels, device=device),
        torch.randn(batch, pixels, channels, device=device),
        torch.rand(batch, queries, pixels, device=device),
    ]
    weights = torch.randn(batch, queries, channels, device=device)
    leaves = [*inputs, *layer.parameters()]
    for leaf in leaves:
        leaf.requires_grad_(backward)
    dtype = getattr(torch, precision)

    def call() -> list[Tensor]:
        with torch.autocast(device, dtype, enabled=precision != "float32"), torch.set_grad_enabled(backward):
            out = layer(*inputs)
        if not backward:
            return [out]
        return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]

    return call


def differences(shape: tuple[int, ...], device: str, precision: str) -> str:
    """Largest difference of output and gradients between the forms, each relative to the largest value of its kind."""
    plain, folded = (prepare(form, shape, True, device, precision)() for form in FORMS[:2])
    names = ("output", "queries", "pixels", "mask", "alpha")  # the layer's first parameter is alpha
    pairs = list(zip(plain, folded, strict=True))
    compared = [(name, [pair]) for name, pair in zip(names, pairs, strict=False)] + [("weights", pairs[len(names) :])]
    parts = []
    for name, of in compared:
        worst = max((a - b).abs().max().item() for a, b in of) / max(a.abs().max().item() for a, _ in of)
        parts.append(f"{name} {worst:.0e}")
    return ", ".join(parts)


def measure(
    shape: tuple[int, ...], backward: bool, device: str, precision: str, variants: list[str], rounds: int
) -> tuple[dict[str, Times], str, str]:
    """Times of a call of each variant, and how many times as long as `auto` sdpa and the best of all took."""
    calls = {variant: prepare(variant, shape, backward, device, precision) for variant in variants}
    times = alternate(calls, rounds, warm_up=2)
    best = min((times[variant] for variant in variants if variant != "auto"), key=lambda found: found.median)
    return times, *(spread(times["auto"].faster_than(other)) for other in (times["sdpa"], best))


def line(shape: tuple[int, ...], backward: bool, device: str, precision: str, options: argparse.Namespace) -> str:
    """A row of the table."""
    times, *ratios = measure(shape, backward, device, precision, options.variants, options.rounds)
    cells = [f"{times[variant].median * 1e3:.1f}" for variant in options.variants]
    memory = ""
    if options.memory:
        needed = [
            extra_memory_mib(prepare, variant, shape, backward, device, precision) for variant in ("auto", "sdpa")
        ]
        memory = f"{needed[0]:.1f} / {needed[1]:.1f}"
    auto = "folded" if build("auto", shape[3], shape[4]).folds(shape[1]) else "plain"
    what = "forward and backward" if backward else "forward"
    print(f"{shape[1]} queries, {precision}, {what}: {ratios} {memory}", flush=True)
    return f"| {' | '.join([str(shape[1]), precision, what, *cells, *ratios, memory, auto])} |"


def repeats(shape: tuple[int, ...], device: str, variants: list[str]) -> str:
    """Which variants give the same gradients twice."""
    parts = []
    for variant in variants:
        call = prepare(variant, shape, True, device, "float32")
        same = all(torch.equal(a, b) for a, b in zip(call(), call(), strict=True))
        parts.append(f"{variant} {'yes' if same else 'no'}")
    return ", ".join(parts)


def main() -> None:
    parser = script_parser(__doc__, device=None, rounds=25, threads=2)
    parser.add_argument("--queries", type=int, nargs="+", default=[11, 1, 5, 20, 41, 100, 300])
    parser.add_argument("--pixels", type=int, default=9216)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    options = parser.parse_args()
    options.variants = [*FORMS, "sdpa", *(["flex"] if options.device == "cuda" else [])]
    torch.set_num_threads(options.threads)
    shapes = [(options.batch, q, options.pixels, options.channels, options.heads) for q in options.queries]
    precisions = ["float32", "bfloat16"] if options.device == "cuda" else ["float32"]
    worst = [f"in {p}: {differences(shapes[0], options.device, p)}" for p in precisions]
    same = repeats(shapes[0], options.device, options.variants)
    rows = [line(s, b, options.device, p, options) for s in shapes for p in precisions for b in (False, True)]
    write_result(
        "attention_speed",
        [
            f"# Soft-masked attention: batch {options.batch}, {options.pixels:,} pixels, {options.channels} channels, "
            f"{options.heads} heads, on {options.device}",
            "",
            "Made by `python benchmarks/attention_speed.py`, whose docstring describes the measurement. Medians in milliseconds; "
            f"ratios within a round, sdpa and the best of all to auto: median (range over {options.rounds} rounds).",
            "",
            f"| queries | precision | what | {' | '.join(options.variants)} | sdpa to auto | best to auto "
            "| extra memory in MiB, auto / sdpa | `auto` takes |",
            f"|---:|---|---|{'---:|' * len(options.variants)}---|---|---|---|",
            *rows,
            "",
            "- largest differences of the output and the gradients between the forms, relative to the largest value of each "
            "(alpha's is a sum of a hundred thousand terms that cancel): " + "; ".join(worst),
            f"- the same gradients in a second call: {same}",
        ],
        options.out,
    )


if __name__ == "__main__":
    main()
