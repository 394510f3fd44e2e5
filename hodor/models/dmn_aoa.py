"""DMN+AOA: a re-interpretation from the abstract; the published 67.9 is not reproduced.

"Video Object Segmentation with Dynamic Memory Networks and Adaptive Object Alignment" (Liang et al., ICCV 2021, DOI
10.1109/ICCV48922.2021.00796). No code was released and only the abstract is available to us: this is our own design with
its two ideas, and its score says nothing about the published one (`docs/dmn-aoa.md`). 32.41 M parameters at paper size,
208 GFLOP forward for a training clip with one object at 384x384.

Baselines specification, section 4.3. Legend: B batch, K objects, N = B K regions, C channels, T frames, H W padded
frame, R cells of a region on a side.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import DMNAOAOptions
from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.device import constant, in_float32
from hodor.models.base import Frame, Masks, register
from hodor.models.frames import Geometry, first_objects, new_objects, normalise, split
from hodor.models.memory.blocks import build_backbone
from hodor.models.memory.network import Decoder, aggregate
from hodor.models.propagation import PropagationMethod, add_objects
from hodor.models.regions import WHOLE, Number, enlarge, mask_regions, paste, roi_align, tight_boxes


class Maps(NamedTuple):
    """Encoding of frames, or of regions, without masks; strides are those at paper size."""

    fine: Tensor  # map at stride 4
    middle: Tensor  # map at stride 8
    key: Tensor  # (B, C, h, w) at stride 16
    value: Tensor  # (B, 2 C, h, w) at stride 16


class Regions(NamedTuple):
    """Search regions of objects."""

    boxes: Tensor  # (B, K, 4), fractions of the frame
    local: Tensor  # bool (B, K), False for regions that are the whole frame


class Templates(NamedTuple):
    """Memory of all objects of a batch of videos, of constant size."""

    key: Tensor  # features of the regions of the first frame (N, C, R, R)
    first: Tensor  # templates of the first frame (N, C, R, R)
    dynamic: Tensor  # templates of the past (N, C, R, R), with the object in the middle as in `first`
    boxes: Tensor  # tight boxes of the newest masks (B, K, 4); whole frames for empty masks
    found: Tensor  # whether the newest masks are not empty, bool (B, K)

    def join(self, other: "Templates") -> "Templates":
        """Append further objects of the same video (B = 1)."""
        parts = [torch.cat(pair) for pair in zip(self[:3], other[:3], strict=True)]
        return Templates(*parts, torch.cat([self.boxes, other.boxes], 1), torch.cat([self.found, other.found], 1))


class ConvGRU(nn.Module):
    """Gated recurrent unit with convolutions (Ballas et al., ICLR 2016, arXiv 1511.06432); states stay in [-1, 1]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1)
        self.candidate = nn.Conv2d(2 * dim, dim, 3, padding=1)

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        """Return the next state (N, C, R, R)."""
        update, reset = torch.sigmoid(self.gates(torch.cat([state, x], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([reset * state, x], dim=1)))
        return (1 - update) * state + update * candidate


class Alignment(nn.Module):
    """Adaptive object alignment: read templates at the positions that match a region.

    Each cell of the region is compared with each cell of the template, and a soft-argmax yields the position to read: our
    interpretation of the abstract's "region translation function". Two scalars are learned: the sharpness of the match and
    the reach, a standard deviation around a cell's own position.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(20.0)))
        # Regions and templates are centred on the object, so that a cell's own position is the first guess.
        self.log_reach = nn.Parameter(torch.tensor(math.log(1 / 6)))
        position = (torch.arange(size) + 0.5) / size
        x, y = torch.broadcast_tensors(position, position.unsqueeze(1))
        positions = torch.stack([x, y], dim=-1).flatten(0, 1)  # (R R, 2) in units of the side
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("distances", torch.cdist(positions, positions).square(), persistent=False)

    def offsets(self, region: Tensor, template: Tensor, local: Tensor) -> Tensor:
        """Return offsets (N, R, R, 2), x and y in units of the side, from each cell to its match in the template.

        Args:
            region, template: keys (N, C, R, R), compared by their cosine.
            local: bool (N), whether cells prefer near positions because the region is centred on the object.
        """
        with in_float32(region):
            region, template = (functional.normalize(x.float().flatten(2), dim=1) for x in (region, template))
            scores = self.log_sharpness.exp() * (region.transpose(1, 2) @ template)  # (N, R R, R R)
            distances = self.distances / (2 * self.log_reach.exp().square())
            scores = scores - distances * local.view(-1, 1, 1)
            found = functional.softmax(scores, dim=2) @ self.positions
            side = math.isqrt(len(self.positions))
            return (found - self.positions).unflatten(1, (side, side))

    def forward(self, region: Tensor, key: Tensor, template: Tensor, local: Tensor) -> Tensor:
        """Read templates (N, C', R, R) with keys (N, C, R, R) at the matches of the region's cells, in float32."""
        offsets = self.offsets(region, key, local)
        grid = 2 * (self.positions.view(1, *offsets.shape[1:]) + offsets) - 1
        with in_float32(template):
            return functional.grid_sample(template.float(), grid, padding_mode="border", align_corners=False)


class Network(nn.Module):
    """Encoder of frames, templates with their memory and alignment, decoder."""

    def __init__(self, options: DMNAOAOptions) -> None:
        super().__init__()
        self.options = options
        dim = options.dim
        self.encoder = build_backbone(options, memory=False)
        fine, middle, coarse = self.encoder.channels
        self.key = nn.Conv2d(coarse, dim, 1)
        self.value = nn.Conv2d(coarse, 2 * dim, 1)
        self.template = nn.Conv2d(dim + 1, dim, 3, padding=1)
        self.dynamic_key = nn.Conv2d(dim, dim, 1)
        self.memory = ConvGRU(dim)
        self.align_first = Alignment(options.roi_size)
        self.align_dynamic = Alignment(options.roi_size)
        self.decoder = Decoder(options, fine, middle)

    def query(self, frames: Tensor) -> Maps:
        """Encode normalised frames (B, 3, H, W) whose sides are multiples of the coarsest stride."""
        fine, middle, coarse = self.encoder(frames)
        return Maps(fine, middle, self.key(coarse), self.value(coarse))

    def start(self, maps: Maps, masks: Tensor) -> Templates:
        """Create the templates of new objects with masks (B, K, H, W)."""
        boxes, found = tight_boxes(masks)
        key, first = self._describe(maps, masks, self._enlarge(boxes, found, masks.shape[2:]))
        return Templates(key, first, first, boxes, found)

    def regions(self, templates: Templates, size: tuple[int, int]) -> Regions:
        """Return the search regions in the next frame of (H, W): around the newest masks, the whole frame for empty ones."""
        return Regions(self._enlarge(templates.boxes, templates.found, size), templates.found)

    def segment(self, maps: Maps, templates: Templates, regions: Regions) -> tuple[Tensor, Tensor]:
        """Segment objects in their regions.

        Returns:
            Logits (B, 1 + K, H, W) and the dynamic templates aligned to the regions (N, C, R, R).
        """
        size = self.options.roi_size
        inside = Maps(*(self._read(x, regions.boxes, n * size) for x, n in zip(maps, (4, 2, 1, 1), strict=True)))
        local = regions.local.flatten()
        first = self.align_first(inside.key, templates.key, templates.first, local)
        dynamic_key = self.dynamic_key(templates.dynamic)
        dynamic = self.align_dynamic(inside.key, dynamic_key, templates.dynamic, local)
        p = self.decoder(inside, torch.cat([first, dynamic], dim=1).unsqueeze(1))  # (N, 1, 4 R stride, 4 R stride)
        frame = tuple(side * self.options.stride for side in maps.fine.shape[2:])
        return aggregate(paste(p.unflatten(0, regions.local.shape).squeeze(2), regions.boxes, frame)), dynamic

    def update(self, maps: Maps, templates: Templates, regions: Regions, aligned: Tensor, masks: Tensor) -> Templates:
        """Update the dynamic templates after a frame was segmented with masks (B, K, H, W).

        A template moves to the region of the new mask, so that the object stays in its middle; an empty mask leaves it
        unchanged.
        """
        boxes, found = tight_boxes(masks)
        new = self._enlarge(boxes, found, masks.shape[2:])
        corner, side = regions.boxes[..., :2], regions.boxes[..., 2:] - regions.boxes[..., :2]
        inner = (new - torch.cat([corner, corner], -1)) / torch.cat([side, side], -1)
        state = roi_align(aligned, inner.flatten(0, 1).unsqueeze(1), self.options.roi_size, 1).squeeze(1)
        state = self.memory(state, self._describe(maps, masks, new)[1])
        dynamic = torch.where(found.view(-1, 1, 1, 1), state, templates.dynamic)
        return templates._replace(dynamic=dynamic, boxes=boxes, found=found)

    def clip(self, clip: Clip, numbers: Tensor) -> list[Tensor]:
        """Segment a training clip from the masks of frame 0.

        Predictions update the templates soft and attached. Regions are drawn around the ground truth, by random `numbers`
        (T - 1, 4, B, K) in [0, 1).

        Returns:
            Logits (B, 1 + K, H, W) of the frames 1 to T - 1.
        """
        batch, count = clip.frames.shape[:2]
        maps = split(self.query(normalise(clip.frames, clip.valid).transpose(0, 1).flatten(0, 1)), batch)
        templates, logits = self.start(maps[0], clip.masks(0)), []
        for t in range(1, count):
            regions = self.training_regions(templates, clip.masks(t), numbers[t - 1])
            found, aligned = self.segment(maps[t], templates, regions)
            logits.append(found)
            if t < count - 1:
                predicted = functional.softmax(found, dim=1)[:, 1:]
                templates = self.update(maps[t], templates, regions, aligned, predicted)
        return logits

    def training_regions(self, templates: Templates, targets: Tensor, numbers: Tensor) -> Regions:
        """Return regions around the ground truth (B, K, H, W), or around the newest mask if that is empty.

        Objects of static clips move out of the box of the previous mask, and nothing is learned from a region without the
        object. Scale and position are random, by `numbers` (4, B, K), so that they do not reveal the object's extent; some
        regions are the whole frame, as after an object was lost.
        """
        options, size = self.options, targets.shape[2:]
        boxes, seen = tight_boxes(targets)
        least, most = options.training_scales
        scale = least + (most - least) * numbers[0].unsqueeze(2)
        shift = options.training_shift * (2 * numbers[1:3].permute(1, 2, 0) - 1)
        boxes = torch.where(seen.unsqueeze(2), boxes, templates.boxes)
        local = (seen | templates.found) & (numbers[3] >= options.training_lost)
        return Regions(self._enlarge(boxes, local, size, scale, shift), local)

    def _enlarge(
        self, boxes: Tensor, found: Tensor, size: tuple[int, int], scale: Number | None = None, shift: Number = 0.0
    ) -> Tensor:
        """Enlarge boxes of masks (B, K, 4) to regions in frames of (H, W); the whole frame if a mask is not `found`."""
        cell = 4 * self.options.stride
        least = tuple(min(1.0, self.options.box_cells * cell / side) for side in reversed(size))
        larger = enlarge(boxes, self.options.box_scale if scale is None else scale, least, shift)
        return torch.where(found.unsqueeze(2), larger, constant(WHOLE, larger.device))

    def _describe(self, maps: Maps, masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return features in boxes, and templates computed from these and the masks; both (N, C, R, R)."""
        size = self.options.roi_size
        key = self._read(maps.key, boxes, size)
        # One sample per pixel of a cell, because a mask is finer than a cell.
        inside = mask_regions(masks, boxes, size, 4 * self.options.stride).flatten(0, 1)
        return key, torch.tanh(self.template(torch.cat([key, inside], dim=1)))

    def _read(self, maps: Tensor, boxes: Tensor, size: int) -> Tensor:
        """Read maps (B, C, h, w) in boxes (B, K, 4): (N, C, size, size)."""
        return roi_align(maps, boxes, size, self.options.roi_samples).flatten(0, 1)


@dataclass
class State:
    """State of a video; `ids` are in the order of the channels."""

    ids: list[int]
    geometry: Geometry
    templates: Templates


@register("dmn-aoa")
class DMNAOA(PropagationMethod):
    """Two templates of each object, aligned to the region around its last mask."""

    options_class = DMNAOAOptions

    def __init__(self, options: dict[str, Any], inference: InferenceOptions) -> None:
        super().__init__(options, inference)
        self.network = Network(self.options)

    def predict(self, clip: Clip, step: int) -> list[Tensor]:
        # Seeded by the step and drawn for the whole batch: the numbers of a clip are the same in a resumed training and
        # however the batch is divided.
        shape, seed = (clip.frames.shape[1] - 1, 4, clip.total, clip.objects), torch.Generator().manual_seed(step)
        numbers = torch.rand(shape, generator=seed)[:, :, clip.first : clip.first + len(clip)]
        return self.network.clip(clip, numbers.to(clip.labels.device, non_blocking=True))

    def backbones(self) -> Iterable[nn.Module]:
        return [self.network.encoder]

    @torch.inference_mode()
    def start(self, frame: Frame, masks: Masks) -> State:
        ids, geometry = [], self._geometry(frame)
        reference = first_objects(ids, frame, masks, geometry, self.device)
        return State(ids, geometry, self.network.start(self.features([frame])[0], reference))

    @torch.inference_mode()
    def step(self, state: State, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        maps = self.features([frame])[0] if features is None else features
        network, templates, known = self.network, state.templates, len(state.ids)
        regions = network.regions(templates, state.geometry.padded)
        logits, aligned = network.segment(maps, templates, regions)
        reference = new_objects(state.ids, frame, new_masks, state.geometry, self.device)
        probabilities = add_objects(functional.softmax(logits, dim=1), reference)
        state.templates = network.update(maps, templates, regions, aligned, probabilities[:, 1 : known + 1])
        if reference is not None:
            state.templates = state.templates.join(network.start(maps, reference))
        return state.geometry.restore(probabilities)[0]
