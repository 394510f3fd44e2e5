"""DMN+AOA: a re-interpretation from the abstract; the published 67.9 is not reproduced.

"Video Object Segmentation with Dynamic Memory Networks and Adaptive Object Alignment" (Liang et al., ICCV 2021, DOI
10.1109/ICCV48922.2021.00796). No code was released and only the abstract is available to us: this is our own design with
its two ideas, and its score does not speak for or against the published one (`docs/dmn-aoa.md`). 32.41 M parameters at
paper size, 208 GFLOP forward for a training clip with one object at 384x384.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.inference import InferenceOptions
from hodor.config.methods import DMNAOAOptions
from hodor.data.clip import Clip
from hodor.models.base import Frame, Masks, register
from hodor.models.dmn_aoa.network import Network, Templates
from hodor.models.frames import Geometry, first_objects, new_objects
from hodor.models.propagation import PropagationMethod, add_objects


@dataclass
class State:
    """State of a video.

    Attributes:
        ids: object ids in the order of the channels.
        geometry: of its frames.
        templates: of the objects.
    """

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

    def predict(self, frames: Tensor, masks: Tensor, clip: Clip, step: int) -> list[Tensor]:
        # Seeded by the step, so that a resumed training draws the same numbers.
        draw = torch.Generator().manual_seed(step)
        return self.network.clip(frames, clip.labels, masks, draw, (clip.first, clip.total))

    def backbones(self) -> Iterable[nn.Module]:
        return [self.network.encoder]

    @torch.inference_mode()
    def start(self, frame: Frame, masks: Masks) -> State:
        ids, geometry = [], self._geometry(frame)
        reference = first_objects(ids, frame, masks, geometry, self.device)
        return State(ids, geometry, self.network.start(self.features([frame])[0], reference))

    @torch.inference_mode()
    def step(self, state: State, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        """See `Method.step`. Templates of an object are created on its first frame."""
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
