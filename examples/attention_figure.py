"""Draw what alpha does: attention weights of one query under a soft mask, for several alphas.

python examples/attention_figure.py [--out docs/images/alpha.png]
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt

from hodor.attention import SoftMaskedAttention

SIDE, ALPHAS = 32, (0.0, 1.0, 4.0, 16.0)


def draw(path: Path) -> None:
    torch.manual_seed(4)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = ((y - 15) ** 2 + (x - 12) ** 2).float().sqrt()
    mask = torch.sigmoid((9 - distance) / 2)  # a disc with a soft edge
    features = torch.nn.functional.interpolate(torch.randn(1, 16, 5, 5), (SIDE, SIDE), mode="bicubic")
    pixels, query = features.flatten(2).transpose(1, 2), 3 * torch.randn(1, 1, 16)
    figure, axes = plt.subplots(1, len(ALPHAS) + 1, figsize=(10, 2.3), layout="constrained")
    axes[0].imshow(mask, cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("mask")
    attention = SoftMaskedAttention(16, 1, alpha=0.0)
    for axis, alpha in zip(axes[1:], ALPHAS, strict=True):
        attention.alpha.data.fill_(alpha)
        weights = attention.weights(query, pixels, mask.view(1, 1, -1)).detach().view(SIDE, SIDE)
        axis.imshow(weights, cmap="magma")
        axis.contour(mask, [0.5], colors="white", linewidths=0.8)
        inside = weights[mask > 0.5].sum()
        axis.set_title(f"alpha = {alpha:g}: {inside:.0%} inside", fontsize=10)
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/alpha.png"))
    draw(parser.parse_args().out)
