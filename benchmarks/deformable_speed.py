"""Compare the deformable convolution on a CPU with one by `grid_sample`: times, their ratio, equality.

    python benchmarks/deformable_speed.py --threads 2

At the size of the published decoder (256 channels at stride 8) and of scale subset's; forward as in segmentation, and with
all gradients as in training. Offsets are random, one pixel wide.
"""

from collections.abc import Callable
from functools import partial

import torch
from harness import alternate, script_parser, spread, table, write_result
from torch import Tensor
from torch.nn import functional

from hodor.models.deformable import sampled_conv2d

# What is measured -> batch, channels, height, width, number format, whether with gradients.
CASES = {
    "published, segmentation": (1, 256, 64, 116, torch.float32, False),
    "published, segmentation in bfloat16": (1, 256, 64, 116, torch.bfloat16, False),
    "published, training": (1, 256, 64, 64, torch.float32, True),
    "scale subset, training": (4, 64, 24, 32, torch.float32, True),
}


def grid_sample_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `hodor.models.deformable.deformable_conv2d` with `grid_sample` in float32 and a 1x1 convolution."""
    batch, channels, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    offsets = offsets.float().reshape(batch, k * k, 2, height, width)
    reach = torch.arange(k, dtype=torch.float32) - k // 2
    y = offsets[:, :, 0] + torch.arange(height).unsqueeze(1) + reach.repeat_interleave(k).view(-1, 1, 1)
    x_ = offsets[:, :, 1] + torch.arange(width) + reach.repeat(k).view(-1, 1, 1)
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.view(batch, k * k * height, width, 2)
    sampled = functional.grid_sample(x.float(), grid, align_corners=False)
    sampled = sampled.to(x.dtype).reshape(batch, channels * k * k, height, width)
    return functional.conv2d(sampled, weight.reshape(out_channels, channels * k * k, 1, 1), bias)


FORMS = {"grid_sample": grid_sample_conv2d, "embedding_bag": sampled_conv2d}


def main() -> None:
    parser = script_parser(__doc__, rounds=5, threads=torch.get_num_threads())
    parser.add_argument("--divide", type=int, default=1, help="channels and sides of every case, for a test")
    parser.add_argument("--calls", type=int, default=10, help="of a form in a round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    for name, (batch, *sizes, dtype, training) in CASES.items():
        arguments = inputs(batch, *(size // options.divide for size in sizes), dtype, training)
        found = {form: run(function, arguments, training, 1) for form, function in FORMS.items()}
        theirs, ours = found["grid_sample"].float(), found["embedding_bag"].float()
        calls = {form: partial(run, function, arguments, training, options.calls) for form, function in FORMS.items()}
        times = alternate(calls, options.rounds)
        milliseconds = {f"{form}, ms": 1000 * times[form].median / options.calls for form in FORMS}
        lines.append(
            {"case": name, "size": "x".join(map(str, arguments[0].shape))}
            | milliseconds
            | {
                "embedding_bag is faster": f"{spread(times['embedding_bag'].faster_than(times['grid_sample']))} times",
                "largest difference": ((ours - theirs).abs().max() / theirs.abs().max()).item(),
            }
        )
        print(lines[-1], flush=True)
    text = ["# Deformable convolution on a CPU", ""]
    text += [f"{options.rounds} rounds; the difference is relative to the largest value.", "", *table(lines)]
    write_result("deformable-speed", text, options.out)


def inputs(batch: int, channels: int, height: int, width: int, dtype: torch.dtype, training: bool) -> list[Tensor]:
    """Return a map in channels last, offsets, weight and bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, height, width), (batch, 18, height, width), (channels, channels, 3, 3), (channels,)]
    x, *others = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return [t.requires_grad_(training) for t in (x.to(memory_format=torch.channels_last), *others)]


def run(form: Callable[..., Tensor], arguments: list[Tensor], training: bool, calls: int) -> Tensor:
    """Compute the convolution, in training all gradients too; return the result of the last call."""
    with torch.set_grad_enabled(training):
        for _ in range(calls):
            found = form(*arguments)
            if training:
                torch.autograd.grad(found.square().sum(), arguments)
    return found.detach()


if __name__ == "__main__":
    main()
