"""Soft-masked attention in another model: a small decoder like that of Mask2Former, trained on synthetic shapes.

    python examples/mask2former_like.py [--mode soft | hard | none] [--steps 200] [--seed 0]

Mask2Former (Cheng et al., CVPR 2022) guides each layer's cross-attention by the masks that the layer before predicted,
cut at one half: pixels outside are blocked, and no gradient passes. With `SoftMaskedAttention` the predicted masks enter
as they are. So the loss of a later layer also trains the masks of the earlier ones through the attention; with --mode
hard it cannot. A CPU trains 200 steps within a minute. Needs torch and scipy (for the matching), and of this project
hodor/attention.py alone.
"""

import argparse

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from hodor.attention import SoftMaskedAttention

SIDE, CLASSES, QUERIES, DIM, HEADS, LAYERS = 64, 2, 6, 64, 8, 3


def shapes(batch: int, generator: torch.Generator) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Images (B, 3, 64, 64) of one to three discs (class 0) and squares (1): images, masks (K, 64, 64), classes (K)."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    images = 0.2 * torch.rand(batch, 3, SIDE, SIDE, generator=generator)
    masks, classes = [], []
    for image in images:
        kinds, found = (
            torch.randint(0, CLASSES, (int(torch.randint(1, 4, (), generator=generator)),), generator=generator),
            [],
        )
        for kind in kinds.tolist():
            radius = int(torch.randint(7, 13, (), generator=generator))
            cy, cx = torch.randint(radius, SIDE - radius, (2,), generator=generator).tolist()
            dy, dx = y - cy, x - cx
            mask = torch.maximum(dy.abs(), dx.abs()) <= radius if kind else dy.square() + dx.square() <= radius**2
            found = [earlier & ~mask for earlier in found] + [mask]
            image[:, mask] = 0.3 + 0.7 * torch.rand(3, 1, generator=generator)
        masks.append(torch.stack(found).float())
        classes.append(kinds)
    return images, masks, classes


class Layer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward, in Mask2Former's order."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.cross_attention = SoftMaskedAttention(DIM, HEADS, mode=mode)
        self.self_attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(3))

    def forward(self, queries: Tensor, pixels: Tensor, masks: Tensor) -> Tensor:
        """`queries` (B, Q, C), `pixels` (B, N, C), `masks` (B, Q, N) in [0, 1] -> (B, Q, C)."""
        queries = self.norms[0](queries + self.cross_attention(queries, pixels, masks))
        queries = self.norms[1](queries + self.self_attention(queries, queries, queries, need_weights=False)[0])
        return self.norms[2](queries + self.feed_forward(queries))


class MaskDecoder(nn.Module):
    """A few convolutions for features at stride 4, then layers of queries; every layer predicts classes and masks."""

    def __init__(self, mode: str = "soft") -> None:
        super().__init__()
        convolutions = [
            nn.Conv2d(5, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, DIM, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(DIM, DIM, 3, 1, 1),
        ]
        self.backbone = nn.Sequential(*convolutions)
        self.queries = nn.Parameter(torch.randn(QUERIES, DIM))
        self.layers = nn.ModuleList(Layer(mode) for _ in range(LAYERS))
        self.classify = nn.Linear(DIM, CLASSES + 1)  # the last is "nothing"
        self.embed = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Class logits (B, Q, classes + 1) and mask logits (B, Q, 16, 16) before the first layer and after each."""
        place = torch.linspace(-1, 1, SIDE, device=images.device)
        place = torch.stack(torch.meshgrid(place, place, indexing="ij")).expand(len(images), -1, -1, -1)
        features = self.backbone(torch.cat([images, place], dim=1))
        pixels = features.flatten(2).transpose(1, 2)  # (B, N, C)
        queries, out = self.queries.expand(len(images), -1, -1), []
        for layer in [None, *self.layers]:
            if layer is not None:
                # Here Mask2Former thresholds and detaches. Soft-masked attention takes the probabilities themselves.
                queries = layer(queries, pixels, out[-1][1].sigmoid().flatten(2))
            masks = torch.einsum("bqc,bchw->bqhw", self.embed(queries), features) / DIM**0.5
            out.append((self.classify(queries), masks))
        return out


def set_loss(classes: Tensor, masks: Tensor, true_classes: list[Tensor], true_masks: list[Tensor]) -> Tensor:
    """Cross-entropy, binary cross-entropy and dice of the queries matched to the objects, the others to "nothing"."""
    total = classes.new_zeros(())
    for logits, predicted, kinds, truth in zip(classes, masks, true_classes, true_masks, strict=True):
        truth = functional.avg_pool2d(truth, 4).flatten(1)  # (K, N), soft at edges
        predicted = predicted.flatten(1)  # (Q, N)
        p = predicted.sigmoid()
        dice = 1 - 2 * (p @ truth.T) / (p.sum(1)[:, None] + truth.sum(1)).clamp(min=1)  # (Q, K)
        each = functional.softplus(predicted).mean(1)[:, None] - predicted @ truth.T / predicted.shape[1]
        cost = dice + each - logits.softmax(1)[:, kinds]
        query, matched = map(torch.from_numpy, linear_sum_assignment(cost.detach().numpy()))
        target = torch.full((QUERIES,), CLASSES)
        target[query] = kinds[matched]
        total = total + functional.cross_entropy(logits, target) + (dice + each)[query, matched].mean()
    return total / len(classes)


def train(mode: str = "soft", steps: int = 200, seed: int = 0, batch: int = 8) -> tuple[MaskDecoder, list[float]]:
    """The trained decoder and the loss of its last layer at each step."""
    torch.manual_seed(seed)
    model, generator = MaskDecoder(mode), torch.Generator().manual_seed(seed)
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for step in range(1, steps + 1):
        images, masks, classes = shapes(batch, generator)
        each = [set_loss(*prediction, classes, masks) for prediction in model(images)]
        optimiser.zero_grad()
        sum(each).backward()
        optimiser.step()
        losses.append(each[-1].item())
        if step % 20 == 0 or step == steps:
            print(f"step {step} of {steps}, loss {sum(losses[-20:]) / len(losses[-20:]):.3f}", flush=True)
    return model, losses


def mask_gradient(model: MaskDecoder) -> float:
    """How much the last layer's loss asks of the first masks through the attention alone: mean size of the gradient."""
    images, masks, classes = shapes(4, torch.Generator().manual_seed(1))
    predictions = model(images)
    first = predictions[0][1]
    (gradient,) = torch.autograd.grad(set_loss(*predictions[-1], classes, masks), first, allow_unused=True)
    return 0.0 if gradient is None else gradient.abs().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=("soft", "hard", "none"), default="soft")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    decoder, _ = train(options.mode, options.steps, options.seed)
    print(f"gradient of the last loss in the first masks: {mask_gradient(decoder):.2g}")
    if options.mode == "soft":
        print("alpha of each head:", *(f"{alpha:.2f}" for alpha in decoder.layers[0].cross_attention.alpha.tolist()))
