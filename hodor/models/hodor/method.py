"""HODOR as a method: its training loss and its sliding-window inference.

"HODOR: High-level Object Descriptors for Object Re-segmentation in Video Learned from Static Images" (Athar et al.,
CVPR 2022, arXiv 2112.09131) with soft-masked attention (arXiv 2206.00182). Expected at paper size: 77.5 J&F on
DAVIS-2017 val from images, 80.6 after cyclic training; 270 GFLOP for a frame of 512x928 with three objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import HODOROptions
from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.models.base import Frame, Masks, Method, register
from hodor.models.frames import Geometry, first_objects, fit_frames, new_objects, normalise, split
from hodor.models.hodor.cycles import run_cycles
from hodor.models.hodor.decoder import Descriptors, History
from hodor.models.hodor.encoder import merge_backgrounds, object_probabilities, predicted_masks, reference_masks, resize
from hodor.models.hodor.network import Features, Network, load_swin
from hodor.models.losses import cross_entropy_and_dice


@dataclass
class State:
    """State of a video: ids in the order of the channels, geometry of the frames, history from the oldest frame on."""

    ids: list[int]
    geometry: Geometry
    history: list[Descriptors] = field(default_factory=list)

    def remember(self, new: Descriptors, options: InferenceOptions) -> None:
        """Append a frame and drop those outside the temporal window."""
        kept, history = int(options.keep_first), [*self.history, new]
        self.history = history[:kept] + history[kept:][-options.temporal_window :]


@register("hodor")
class Hodor(Method):
    """HODOR with the masking of `HODOROptions.attention`."""

    def __init__(self, options: dict[str, Any], inference: InferenceOptions) -> None:
        super().__init__(inference)
        self.options = HODOROptions(**options)
        self.network = Network(self.options)
        self._compiled: Callable[..., Tensor] | None = None

    # Training

    def loss(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Return cross-entropy plus dice over the predictions of annotated frames, at full padded resolution."""
        x = normalise(clip.frames, clip.valid)  # (B, T, 3, H, W)
        features = split(self.network.features(x.transpose(0, 1).flatten(0, 1)), len(x))
        visible = [self._visible(clip, t) for t in range(len(features))]
        cycles = run_cycles(self.network, features, clip.masks(0), visible, step, detach=self.options.detach_masks)
        predictions = [p for p in cycles if clip.annotated[p.frame]]
        targets = [present_labels(clip.labels[:, p.frame], p.present) for p in predictions]
        cross_entropy, dice = cross_entropy_and_dice([p.logits for p in predictions], targets, full=self._full)
        return {"loss": cross_entropy + dice, "cross_entropy": cross_entropy, "dice": dice}

    def _full(self, logits: Tensor) -> Tensor:
        """Map logits (B, 1 + G + K, H/4, W/4) to those of the loss (B, 1 + K, H, W)."""
        return resize(merge_backgrounds(logits, self.network.backgrounds), 4)

    def _visible(self, clip: Clip, frame: int) -> Tensor:
        """Return the objects in the ground truth of a frame, bool (B, K); all for sparse clips, as published."""
        batch, device = len(clip.labels), clip.labels.device
        if not all(clip.annotated):
            return torch.ones(batch, clip.objects, dtype=torch.bool, device=device)
        seen = torch.zeros(batch, clip.objects + 1, dtype=torch.bool, device=device)
        return seen.scatter_(1, clip.labels[:, frame].flatten(1).long(), True)[:, 1:]

    def backbone_parameters(self) -> list[nn.Parameter]:
        return list(self.network.backbone.parameters())

    def compilable(self) -> list[nn.Module]:
        network = self.network
        stages = getattr(network.backbone, "layers", None) or getattr(network.backbone, "stages", ())
        return [*stages, *network.encoder.layers, *network.decoder.layers]

    def load_starting_weights(self, folder: Path) -> None:
        load_swin(self.network, folder)

    def alpha_parameters(self) -> list[nn.Parameter]:
        """Return alpha (heads,) of each encoder layer whose attention has one."""
        found = [getattr(layer.cross_attention, "alpha", None) for layer in self.network.encoder.layers]
        shape = (self.options.heads,)
        return [alpha for alpha in found if isinstance(alpha, nn.Parameter) and alpha.shape == shape]

    def undecayed_parameters(self) -> list[nn.Parameter]:
        return [] if self.options.decay_alpha else self.alpha_parameters()

    def log_values(self) -> dict[str, Any]:
        """Return `alpha`, a list of heads per encoder layer, if the attention has it."""
        alphas = self.alpha_parameters()
        return {"alpha": [alpha.tolist() for alpha in alphas]} if alphas else {}

    # Inference

    @torch.inference_mode()
    def features(self, frames: Sequence[Frame]) -> list[Features]:
        fitted, valid = fit_frames(frames, Geometry.of(frames[0].shape[:2], self.inference), self.device)
        return split(self.network.features(normalise(fitted, valid)), 1)

    @torch.inference_mode()
    def start(self, frame: Frame, masks: Masks) -> State:
        state = State([], Geometry.of(frame.shape[:2], self.inference))
        reference = first_objects(state.ids, frame, masks, state.geometry, self.device, stride=8)
        state.remember(self._encode_reference(self.features([frame])[0], reference), self.inference)
        return state

    @torch.inference_mode()
    def step(self, state: State, frame: Frame, new_masks: Masks | None = None, features: Any = None) -> Tensor:
        features = self.features([frame])[0] if features is None else features
        history, known = state.history, len(state.ids)
        reference = new_objects(state.ids, frame, new_masks, state.geometry, self.device, stride=8)
        if reference is not None:  # new objects are first encoded alone, with the others as background
            history = [*history, self._encode_reference(features, reference)._replace(first=known)]
        logits = self._decode(features, History.of(history))
        backgrounds = self.network.backgrounds
        objects = resize(object_probabilities(logits, backgrounds), 1 / 2)
        if reference is not None:
            # As released: from stride 4 to full size, paste, to stride 8. Without a paste this equals the line above.
            coarse = resize(functional.softmax(logits, dim=1), 4)
            objects = resize(paste(coarse, reference)[:, 1 + backgrounds :], 1 / 8)
        new = self.network.encode(features, *predicted_masks(objects, self.network.grid))
        state.remember(new, self.inference)
        return state.geometry.restore(full_probabilities(logits, backgrounds, reference))[0]

    def _decode(self, features: Features, history: History) -> Tensor:
        length = self.inference.temporal_window + self.inference.keep_first
        if not self.inference.compile or history.objects.shape[2] > length:  # longer when new objects are given
            return self.network.decode(features, history)
        if self._compiled is None:
            mode = "reduce-overhead" if features.stride_8.is_cuda else "default"
            self._compiled = torch.compile(self.network.decode, dynamic=False, mode=mode)
        # Cloned because the next call reuses the memory of the result.
        return self._compiled(features, history.padded(length)).clone()

    def _encode_reference(self, features: Features, reference: Tensor) -> Descriptors:
        return self.network.encode(features, *reference_masks(reference, self.network.grid))


def present_labels(labels: Tensor, present: Tensor) -> Tensor:
    """Set the labels (B, H, W) of objects that are not `present` (B, K) to background."""
    keep = functional.pad(present, (1, 0))
    return labels * keep.gather(1, labels.flatten(1).long()).view_as(labels)


def paste(probabilities: Tensor, reference: Tensor) -> Tensor:
    """Replace the last K' channels of (1, C, H, W) by given masks (1, K', H, W), under which the others become 0.

    As released, a new object has probability 0 outside its given mask in its first frame.
    """
    kept = probabilities[:, : -reference.shape[1]] * (reference.amax(1, keepdim=True) == 0)
    return torch.cat([kept, reference], dim=1)


def full_probabilities(logits: Tensor, backgrounds: int, reference: Tensor | None = None) -> Tensor:
    """Return probabilities (1, 1 + K, H, W) of the padded frame from logits (1, 1 + G + K, H/4, W/4).

    As in the release, a pixel's label is the maximum over all channels: channel 0 is the maximum of the background
    channels, and the channels sum to at most 1. Masks `reference` (1, K', H, W) are pasted over the last objects.
    """
    full = functional.softmax(resize(logits, 4), dim=1)
    return merge_backgrounds(full if reference is None else paste(full, reference), backgrounds)
