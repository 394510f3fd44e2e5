"""STM, KMN and STCN: one memory network under different settings (`hodor.config.methods`).

- STM: "Video Object Segmentation using Space-Time Memory Networks" (Oh et al., ICCV 2019, arXiv 1904.00607). Expected
  from static images: 60.0 J&F on DAVIS-2017 val (50 to 70, depending on the unpublished data preparation). 38.93 M
  parameters, 256 GFLOP forward for a training clip with one object at 384x384.
- KMN: "Kernelized Memory Network for Video Object Segmentation" (Seong et al., ECCV 2020, arXiv 2007.08270). Expected
  from static images: 68.9 J&F on DAVIS-2017 val. Size and cost are STM's.
- STCN: "Rethinking Space-Time Networks with Improved Memory Coverage for Efficient Video Object Segmentation" (Cheng et
  al., NeurIPS 2021, arXiv 2106.05210). Expected from static images: 75.8 J&F on DAVIS-2017 val, 51.7 on test-dev.
  54.43 M parameters, 279 GFLOP.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import KMNOptions, STCNOptions, STMOptions
from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.models.base import Frame, Masks, register
from hodor.models.frames import Geometry, first_objects, new_objects, normalise
from hodor.models.memory.blocks import Query, further_filters
from hodor.models.memory.network import Network
from hodor.models.memory.readout import Bank, chunked_readout
from hodor.models.propagation import PropagationMethod, add_objects


@dataclass
class State:
    """State of a video; `ids` are in the order of the channels."""

    ids: list[int]
    geometry: Geometry
    bank: Bank
    time: int = 0  # number of the newest frame
    last: int = 0  # number of the newest permanent frame in the memory


class MemoryMethod(PropagationMethod):
    """Base of STM, KMN and STCN."""

    def __init__(self, options: dict[str, Any], inference: InferenceOptions) -> None:
        super().__init__(options, inference)
        self.network = Network(self.options)
        own = self.options
        self.top_k = own.top_k if inference.top_k is None else inference.top_k
        self.kernel_sigma = own.kernel_sigma if inference.kernel_sigma is None else inference.kernel_sigma
        self.memory_previous = own.memory_previous if inference.memory_previous is None else inference.memory_previous
        if inference.others_channel != "none":
            encoder = self.network.memory_encoder
            if encoder.others:
                raise HodorError(
                    f"inference.others_channel: {inference.others_channel!r} is for a memory encoder without a channel for "
                    "other objects; remove it"
                )
            encoder.further = further_filters(inference.others_channel, encoder.backbone.get_parameter(encoder.first))

    def predict(self, clip: Clip, step: int) -> list[Tensor]:
        return self.network.clip(normalise(clip.frames, clip.valid), clip.masks(0))

    def backbones(self) -> list[nn.Module]:
        encoders = [self.network.query_encoder, self.network.memory_encoder.backbone]
        return [encoder for encoder in encoders if encoder is not None]

    @torch.inference_mode()
    def start(self, frame: Frame, masks: Masks) -> State:
        state = State([], self._geometry(frame), Bank(self.network.shared, self.inference.memory_frames))
        reference = first_objects(state.ids, frame, masks, state.geometry, self.device)
        self._remember(state, self.features([frame])[0], reference, new=True)
        return state

    @torch.inference_mode()
    def step(self, state: State, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        query = self.features([frame])[0] if features is None else features
        state.time += 1
        settings = {"top_k": self.top_k, "sigma": self.kernel_sigma, "chunk": self.inference.readout_chunk}
        read = chunked_readout(state.bank, query.key[0], similarity=self.options.similarity, **settings)
        probabilities = functional.softmax(self.network.segment(query, read.unsqueeze(0)), dim=1)
        reference = new_objects(state.ids, frame, new_masks, state.geometry, self.device)
        probabilities = add_objects(probabilities, reference)
        self._remember(state, query, probabilities[:, 1:], new=reference is not None)
        return state.geometry.restore(probabilities)[0]

    def _remember(self, state: State, query: Query, masks: Tensor, *, new: bool) -> None:
        """Memorise the newest frame, with masks (1, K, H, W), if the schedule includes it or it has `new` objects.

        If all objects appear in frame 0, the memory contains the frames 0, n, 2n, ... and, with `memory_previous`, the
        previous one (baselines specification, sections 1.3 and 3.3).
        """
        due = new or state.time - state.last >= self.inference.memory_every
        if not due and not self.memory_previous:
            return
        if self.pads_black:
            window, shown = state.geometry.window, torch.zeros_like(masks)
            shown[(..., *window)] = masks[(..., *window)]
            masks = shown
        key, value = self.network.memorise(query.frame, masks, query)
        state.bank.add(state.time, key[0], value[0], kept=new, temporary=not due)
        if due:
            state.last = state.time


@register("stm")
class STM(MemoryMethod):
    """Separate encoders, scaled dot product, every fifth frame and the previous one in the memory."""

    options_class = STMOptions
    pads_black = True


@register("kmn")
class KMN(MemoryMethod):
    """STM with a Gaussian kernel around each memory cell's best match in inference."""

    options_class = KMNOptions
    pads_black = True


@register("stcn")
class STCN(MemoryMethod):
    """Keys of the frame alone, squared distance, top-k readout, every fifth frame in the memory."""

    options_class = STCNOptions
