"""A memory network as a method: its training loss and its inference, frame by frame."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.inference import InferenceOptions
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.models.base import Frame, Masks
from hodor.models.frames import Geometry
from hodor.models.memory.bank import Bank
from hodor.models.memory.blocks import Query, further_filters
from hodor.models.memory.follower import Follower, add_objects
from hodor.models.memory.network import Network
from hodor.models.memory.readout import chunked_readout


@dataclass
class State:
    """A video under way.

    Attributes:
        ids: object ids in the order of the channels.
        geometry: of its frames.
        bank: the memory.
        time: number of the newest frame, counted from the start.
        last: number of the newest frame that is remembered for good.
    """

    ids: list[int]
    geometry: Geometry
    bank: Bank
    time: int = 0
    last: int = 0


class MemoryMethod(Follower):
    """Base of STM, KMN and STCN, which give their options (`options_class`) and how they pad."""

    def __init__(self, options: dict[str, Any], inference: InferenceOptions) -> None:
        super().__init__(options, inference)
        self.network = Network(self.options)
        own = self.options
        self.top_k = own.top_k if inference.top_k is None else inference.top_k
        self.kernel_sigma = own.kernel_sigma if inference.kernel_sigma is None else inference.kernel_sigma
        self.memory_previous = own.memory_previous if inference.memory_previous is None else inference.memory_previous
        if inference.others_channel != "none":
            self._add_others_channel(inference.others_channel)

    def predict(self, frames: Tensor, masks: Tensor, clip: Clip, step: int) -> list[Tensor]:
        return self.network.clip(frames, masks)

    def backbones(self) -> list[nn.Module]:
        encoders = [self.network.query_encoder, self.network.memory_encoder.backbone]
        return [encoder for encoder in encoders if encoder is not None]

    @torch.inference_mode()
    def start(self, frame: Frame, masks: Masks) -> State:
        bank = Bank(shared=self.network.shared, limit=self.inference.memory_frames)
        state = State([], self._geometry(frame), bank)
        reference = self._first_objects(state.ids, state.geometry, frame, masks)
        self._remember(state, self.features([frame])[0], reference, new=True)
        return state

    @torch.inference_mode()
    def step(self, state: State, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        """See `Method.step`. All objects remember a frame on which a new one appears."""
        query = self.features([frame])[0] if features is None else features
        state.time += 1
        read = chunked_readout(
            state.bank,
            query.key[0],
            similarity=self.options.similarity,
            top_k=self.top_k,
            sigma=self.kernel_sigma,
            chunk=self.inference.readout_chunk,
        )
        probabilities = functional.softmax(self.network.segment(query, read.unsqueeze(0)), dim=1)
        reference = self._new_objects(state.ids, state.geometry, frame, new_masks)
        probabilities = add_objects(probabilities, reference)
        self._remember(state, query, probabilities[:, 1:], new=reference is not None)
        return state.geometry.restore(probabilities)[0]

    def _remember(self, state: State, query: Query, masks: Tensor, *, new: bool) -> None:
        """Put the newest frame with masks (1, K, H, W) into the memory where its schedule says so.

        With all objects on frame 0 these are the frames 0, n, 2n, ... and, for the next frame alone, the previous one
        where the method wants it (baselines specification, sections 1.3 and 3.3).
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

    def _add_others_channel(self, kind: str) -> None:
        encoder = self.network.memory_encoder
        if encoder.others:
            raise HodorError(
                f"inference: others_channel: {kind!r} is for a memory encoder without a channel for other objects"
            )
        encoder.further = further_filters(kind, encoder.backbone.get_parameter(encoder.first))
