"""What is remembered of objects: a template of the first frame, and one that changes with every frame.

Legend: N objects of all videos of a batch, B videos, K objects of each, C channels, R cells of a region on a side.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Templates(NamedTuple):
    """All objects of a batch of videos; its size does not grow with the videos.

    key, first: features of the regions of the first frame and the template made of them (N, C, R, R).
    dynamic: template of the past (N, C, R, R), in the same geometry: the object fills the middle.
    boxes: (B, K, 4) of the newest masks, tight; whole frames for empty ones. found: bool (B, K), not empty.
    """

    key: Tensor
    first: Tensor
    dynamic: Tensor
    boxes: Tensor
    found: Tensor

    def join(self, other: "Templates") -> "Templates":
        """Those of further objects after these; of one video (B 1)."""
        parts = [torch.cat(pair) for pair in zip(self[:3], other[:3], strict=True)]
        return Templates(*parts, torch.cat([self.boxes, other.boxes], 1), torch.cat([self.found, other.found], 1))


class ConvGRU(nn.Module):
    """A gated recurrent unit whose products are convolutions (Ballas et al., ICLR 2016, arXiv 1511.06432).

    A state in [-1, 1] stays there, however long the video.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1)
        self.candidate = nn.Conv2d(2 * dim, dim, 3, padding=1)

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        """The next state (N, C, R, R) from the state and what is new."""
        update, reset = torch.sigmoid(self.gates(torch.cat([state, x], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([reset * state, x], dim=1)))
        return (1 - update) * state + update * candidate
