"""DMN+AOA's network, re-interpreted: regions, templates, their alignment, the shared decoder.

Legend: B batch, K objects, N = B K regions, C channels, T frames, H W padded frame, R cells of a region on a side.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import DMNAOAOptions
from hodor.device import constant
from hodor.models.dmn_aoa.alignment import Alignment
from hodor.models.dmn_aoa.regions import WHOLE, enlarge, mask_regions, paste, roi_align, tight_boxes
from hodor.models.dmn_aoa.templates import ConvGRU, Templates
from hodor.models.memory.aggregate import aggregate
from hodor.models.memory.blocks import build_backbone
from hodor.models.memory.decoder import Decoder


class Maps(NamedTuple):
    """What the network knows without masks of frames, or of regions.

    skips: at strides 4 and 8 at paper size. key: (B, C, h, w), value: (B, 2 C, h, w) at stride 16.
    """

    skips: tuple[Tensor, Tensor]
    key: Tensor
    value: Tensor

    def frames(self, start: int, stop: int) -> "Maps":
        """Some of the batch."""
        part = slice(start, stop)
        return Maps(tuple(x[part] for x in self.skips), self.key[part], self.value[part])


class Regions(NamedTuple):
    """Where objects are looked for.

    boxes: (B, K, 4), fractions of the frame. local: bool (B, K), the box is around an object, not the whole frame.
    """

    boxes: Tensor
    local: Tensor


class Network(nn.Module):
    """Encoder of frames, encoder and memory of templates, alignments, decoder (baselines specification, 4.3)."""

    def __init__(self, options: DMNAOAOptions) -> None:
        super().__init__()
        self.options = options
        dim = options.dim
        self.encoder = build_backbone(options, memory=False)
        *skips, coarse = self.encoder.channels
        self.key = nn.Conv2d(coarse, dim, 1)
        self.value = nn.Conv2d(coarse, 2 * dim, 1)
        self.template = nn.Conv2d(dim + 1, dim, 3, padding=1)
        self.dynamic_key = nn.Conv2d(dim, dim, 1)
        self.memory = ConvGRU(dim)
        self.align_first = Alignment(options.roi_size)
        self.align_dynamic = Alignment(options.roi_size)
        self.decoder = Decoder(options, tuple(skips))

    def query(self, frames: Tensor) -> Maps:
        """Maps of normalised frames (B, 3, H, W), sides multiples of the coarsest stride."""
        fine, middle, coarse = self.encoder(frames)
        return Maps((fine, middle), self.key(coarse), self.value(coarse))

    def start(self, maps: Maps, masks: Tensor) -> Templates:
        """Templates of objects that frames show for the first time under masks (B, K, H, W)."""
        boxes, found = tight_boxes(masks)
        key, first = self._describe(maps, masks, self._enlarge(boxes, found, masks.shape[2:]))
        return Templates(key, first, first, boxes, found)

    def regions(self, templates: Templates, size: tuple[int, int]) -> Regions:
        """Where the next frame, of (H, W), is searched: around the newest masks, everywhere for empty ones."""
        return Regions(self._enlarge(templates.boxes, templates.found, size), templates.found)

    def segment(self, maps: Maps, templates: Templates, regions: Regions) -> tuple[Tensor, Tensor]:
        """Find objects in their regions.

        Returns:
            Logits (B, 1 + K, H, W), softmax of which is the distribution, and the dynamic templates (N, C, R, R) as
            the regions show them.
        """
        options, size = self.options, self.options.roi_size
        inside = Maps(
            tuple(self._read(x, regions.boxes, size * times) for x, times in zip(maps.skips, (4, 2), strict=True)),
            self._read(maps.key, regions.boxes, size),
            self._read(maps.value, regions.boxes, size),
        )
        local = regions.local.flatten()
        first = self.align_first(inside.key, templates.key, templates.first, local)
        dynamic_key = self.dynamic_key(templates.dynamic)
        dynamic = self.align_dynamic(inside.key, dynamic_key, templates.dynamic, local)
        p = self.decoder(inside, torch.cat([first, dynamic], dim=1).unsqueeze(1))  # (N, 1, 4 R stride, 4 R stride)
        frame = tuple(side * options.stride for side in maps.skips[0].shape[2:])
        return aggregate(paste(p.unflatten(0, regions.local.shape).squeeze(2), regions.boxes, frame)), dynamic

    def update(self, maps: Maps, templates: Templates, regions: Regions, aligned: Tensor, masks: Tensor) -> Templates:
        """One step of the dynamic templates after a frame that was segmented, with masks (B, K, H, W) of it.

        The template moves to the region of the new mask, so that it is always centred as the first one is. An empty
        mask tells nothing: the template stays.
        """
        boxes, found = tight_boxes(masks)
        new = self._enlarge(boxes, found, masks.shape[2:])
        corner, side = regions.boxes[..., :2], regions.boxes[..., 2:] - regions.boxes[..., :2]
        inner = (new - torch.cat([corner, corner], -1)) / torch.cat([side, side], -1)
        state = roi_align(aligned, inner.flatten(0, 1).unsqueeze(1), self.options.roi_size, 1).squeeze(1)
        state = self.memory(state, self._describe(maps, masks, new)[1])
        dynamic = torch.where(found.view(-1, 1, 1, 1), state, templates.dynamic)
        return templates._replace(dynamic=dynamic, boxes=boxes, found=found)

    def clip(
        self, frames: Tensor, labels: Tensor, masks: Tensor, draw: torch.Generator, part: tuple[int, int] | None = None
    ) -> list[Tensor]:
        """Segment a training clip: frame 0 is given, each further one follows from all before it.

        What is predicted goes into the templates as it is, soft and attached. Regions are drawn around the true masks
        (`training_regions`).

        Args:
            frames: normalised (B, T, 3, H, W).
            labels: (B, T, H, W) in 0..K.
            masks: (B, K, H, W) of frame 0.
            draw: of random numbers, on the CPU.
            part: place of the first of these clips in their batch, and the number of clips of that; None: these are all.

        Returns:
            Logits (B, 1 + K, H, W) of the frames 1 to T - 1.
        """
        batch, count = frames.shape[:2]
        every = self.query(frames.transpose(0, 1).flatten(0, 1))
        maps = [every.frames(t * batch, (t + 1) * batch) for t in range(count)]
        ids = torch.arange(1, masks.shape[1] + 1, device=labels.device).view(1, -1, 1, 1)
        templates, logits = self.start(maps[0], masks), []
        for t in range(1, count):
            regions = self.training_regions(templates, (labels[:, t : t + 1] == ids).float(), draw, part)
            found, aligned = self.segment(maps[t], templates, regions)
            logits.append(found)
            if t < count - 1:
                predicted = functional.softmax(found, dim=1)[:, 1:]
                templates = self.update(maps[t], templates, regions, aligned, predicted)
        return logits

    def training_regions(
        self, templates: Templates, truth: Tensor, draw: torch.Generator, part: tuple[int, int] | None = None
    ) -> Regions:
        """Regions that hold the object: around its true mask (B, K, H, W), where it is none around the newest one.

        The objects of static clips jump farther than those of a video, out of the box of the mask before; and a frame
        whose region misses the object teaches nothing. Scale and place are drawn, so that they do not tell where
        the object ends; some regions are the whole frame, as they are after an object was lost.
        """
        options, size = self.options, truth.shape[2:]
        boxes, seen = tight_boxes(truth)
        # Drawn for the whole batch: each clip gets the same numbers, however the batch is divided.
        first, whole = part or (0, len(seen))
        numbers = torch.rand((4, whole, seen.shape[1]), generator=draw)[:, first : first + len(seen)]
        numbers = numbers.to(truth.device, non_blocking=True)
        least, most = options.training_scales
        scale = least + (most - least) * numbers[0].unsqueeze(2)
        shift = options.training_shift * (2 * numbers[1:3].permute(1, 2, 0) - 1)
        boxes = torch.where(seen.unsqueeze(2), boxes, templates.boxes)
        local = (seen | templates.found) & (numbers[3] >= options.training_lost)
        return Regions(self._enlarge(boxes, local, size, scale, shift), local)

    def _enlarge(
        self,
        boxes: Tensor,
        found: Tensor,
        size: tuple[int, int],
        scale: Tensor | float | None = None,
        shift: Tensor | float = 0.0,
    ) -> Tensor:
        """Boxes of regions (B, K, 4) from those of masks of frames (H, W): whole frames where nothing was found."""
        cell = 4 * self.options.stride
        least = tuple(min(1.0, self.options.box_cells * cell / side) for side in reversed(size))
        larger = enlarge(boxes, self.options.box_scale if scale is None else scale, least, shift)
        return torch.where(found.unsqueeze(2), larger, constant(WHOLE, larger.device))

    def _describe(self, maps: Maps, masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Features in boxes and what a template is made of: these and the masks; both (N, C, R, R)."""
        size = self.options.roi_size
        key = self._read(maps.key, boxes, size)
        # As many samples as the decoder has pixels in a cell: a mask is finer than a cell.
        inside = mask_regions(masks, boxes, size, 4 * self.options.stride).flatten(0, 1)
        return key, torch.tanh(self.template(torch.cat([key, inside], dim=1)))

    def _read(self, maps: Tensor, boxes: Tensor, size: int) -> Tensor:
        """Maps (B, C, h, w) in boxes (B, K, 4): (N, C, size, size)."""
        return roi_align(maps, boxes, size, self.options.roi_samples).flatten(0, 1)
