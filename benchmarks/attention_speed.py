"""Soft-masked attention: the folded form against the plain one, in time and memory, over numbers of queries.

    python benchmarks/attention_speed.py                    # about a minute
    python benchmarks/attention_speed.py --device cuda      # float32 and bfloat16

Both forms (`hodor.attention`) get the same weights, queries, pixels and masks, those of HODOR's encoder at paper size: 256
channels, 8 heads, 9,216 pixels (a frame of 768 x 768 at stride 8), 11 queries (9 background patches and 2 objects). With
backward, all of them need gradients. Outputs and gradients are compared first. Memory is what a call needs at its peak
beyond its inputs, each in a fresh process; with backward it includes the gradients.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from harness import RESULTS, alternate, extra_memory_mib, spread, write_result
from torch import Tensor

from hodor.attention import SoftMaskedAttention

FORMS = ("plain", "folded")
SMALL = 64


def prepare(form: str, shape: tuple[int, int, int, int, int], backward: bool, device: str, precision: str) -> Callable:
    """A call of attention in this form with inputs of this shape (B, Q, N, C, h); it returns output and gradients."""
    batch, queries, pixels, channels, heads = shape
    if pixels > SMALL:  # code that is loaded at the first call is no memory of the attention
        prepare(form, (batch, queries, SMALL, channels, heads), backward, device, precision)()
    torch.manual_seed(0)
    layer = SoftMaskedAttention(channels, heads, form=form).to(device).requires_grad_(backward)
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
        with torch.autocast(device, dtype, enabled=precision != "float32"):
            out = layer(*inputs)
        if not backward:
            return [out]
        return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]

    return call


def differences(shape: tuple[int, ...], device: str, precision: str) -> str:
    """Largest difference of output and gradients between the forms, each relative to the largest value of its kind."""
    plain, folded = (prepare(form, shape, True, device, precision)() for form in FORMS)
    names = ("output", "queries", "pixels", "mask", "alpha")  # the layer's first parameter is alpha
    pairs = list(zip(plain, folded, strict=True))
    told = [(name, [pair]) for name, pair in zip(names, pairs, strict=False)] + [("weights", pairs[len(names) :])]
    parts = []
    for name, of in told:
        worst = max((a - b).abs().max().item() for a, b in of) / max(a.abs().max().item() for a, _ in of)
        parts.append(f"{name} {worst:.0e}")
    return ", ".join(parts)


def line(shape: tuple[int, ...], backward: bool, device: str, precision: str, options: argparse.Namespace) -> str:
    """A row of the table."""
    calls = {form: prepare(form, shape, backward, device, precision) for form in FORMS}
    times = alternate(calls, options.rounds, warm_up=3)
    ratio = spread(times["folded"].faster_than(times["plain"]))
    plain, folded = (times[form].median * 1e3 for form in FORMS)
    auto = "folded" if SoftMaskedAttention(shape[3], shape[4]).folds(shape[1]) else "plain"
    what = "forward and backward" if backward else "forward"
    memory = ""
    if shape[1] == options.queries[0]:
        needed = [extra_memory_mib(prepare, form, shape, backward, device, precision) for form in FORMS]
        memory = f"{needed[0]:.1f} / {needed[1]:.1f} MiB = {needed[0] / needed[1]:.1f}"
    print(f"{shape[1]} queries, {precision}, {what}: {ratio} {memory}", flush=True)
    return f"| {shape[1]} | {precision} | {what} | {plain:.1f} | {folded:.1f} | {ratio} | {memory} | {auto} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--queries", type=int, nargs="+", default=[11, 5, 20, 30, 41], help="memory: of the first alone"
    )
    parser.add_argument("--pixels", type=int, default=9216)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shapes = [(options.batch, q, options.pixels, options.channels, options.heads) for q in options.queries]
    precisions = ["float32", "bfloat16"] if options.device == "cuda" else ["float32"]
    worst = [f"in {p}: {differences(shapes[0], options.device, p)}" for p in precisions]
    rows = [line(s, b, options.device, p, options) for s in shapes for p in precisions for b in (False, True)]
    write_result(
        "attention_speed",
        [
            f"# Soft-masked attention: batch {options.batch}, {options.pixels:,} pixels, {options.channels} channels, "
            f"{options.heads} heads, on {options.device}",
            "",
            "Made by `python benchmarks/attention_speed.py`, whose head says what is measured. Medians in milliseconds; the "
            f"ratio is plain to folded within a round: median (range over {options.rounds} rounds).",
            "",
            "| queries | precision | what | plain | folded | ratio | extra memory, plain / folded | `auto` takes |",
            "|---:|---|---|---:|---:|---|---|---|",
            *rows,
            "",
            "- largest differences of the output and the gradients, relative to the largest value of each (alpha's is a "
            "sum of a hundred thousand terms that cancel): " + "; ".join(worst),
        ],
        options.out,
    )


if __name__ == "__main__":
    main()
