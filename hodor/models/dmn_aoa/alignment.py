"""Adaptive object alignment: where in a template is what a cell of a region shows (baselines specification, 4.3).

Each cell of the region is compared with each cell of the template; a soft-argmax over the template's cells gives the
place, thus an offset, and the template is read there. This is the re-interpretation of the abstract's "region
translation function". Legend: N regions (of all objects of a batch), C channels, R cells on a side.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.device import in_float32


class Alignment(nn.Module):
    """Reads templates at the places that match a region.

    Two scalars learn: how sharp the match is, and how far from its own place a cell looks.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(20.0)))
        # A standard deviation in units of the region's side. A region stands around the object as the template does,
        # so a cell's own place is the first guess.
        self.log_reach = nn.Parameter(torch.tensor(math.log(1 / 6)))
        place = (torch.arange(size) + 0.5) / size
        x, y = torch.broadcast_tensors(place, place.unsqueeze(1))
        places = torch.stack([x, y], dim=-1).flatten(0, 1)  # (R R, 2) in units of the side
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("distances", torch.cdist(places, places).square(), persistent=False)

    def offsets(self, region: Tensor, template: Tensor, local: Tensor) -> Tensor:
        """Offsets (N, R, R, 2), x and y in units of the side, from each cell to its match in the template.

        Args:
            region, template: keys (N, C, R, R); their lengths do not count.
            local: bool (N), whether cells prefer near places: the region was put around the object.
        """
        with in_float32(region):
            region, template = (functional.normalize(x.float().flatten(2), dim=1) for x in (region, template))
            scores = self.log_sharpness.exp() * (region.transpose(1, 2) @ template)  # (N, R R, R R)
            distances = self.distances / (2 * self.log_reach.exp().square())
            scores = scores - distances * local.view(-1, 1, 1)
            found = functional.softmax(scores, dim=2) @ self.places
            side = math.isqrt(len(self.places))
            return (found - self.places).unflatten(1, (side, side))

    def forward(self, region: Tensor, key: Tensor, template: Tensor, local: Tensor) -> Tensor:
        """Templates (N, C', R, R) with keys (N, C, R, R), read at the matches of the region's cells; float32."""
        offsets = self.offsets(region, key, local)
        grid = 2 * (self.places.view(1, *offsets.shape[1:]) + offsets) - 1
        with in_float32(template):
            return functional.grid_sample(template.float(), grid, padding_mode="border", align_corners=False)
