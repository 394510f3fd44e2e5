"""Base of STM, KMN, STCN and DMN+AOA: training loss, frames and new objects."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import torch
from torch import Tensor, nn

from hodor.config.stages import InferenceOptions
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.models.backbones.resnet import ResNet, load_imagenet
from hodor.models.base import Frame, Method, read_weights
from hodor.models.frames import Geometry, fit_frames, normalise, split
from hodor.models.losses import bootstrapped_cross_entropy, hard_fraction


class PropagationMethod(Method):
    """A method that propagates given masks from frame to frame.

    A subclass sets `options_class` and `network`, a module with a method `query(frames)`.
    """

    options_class: ClassVar[type]
    # STM pads frames with black before they are normalised, and masks with 0. The others pad with the mean colour and keep
    # the predictions on the padding.
    pads_black: ClassVar[bool] = False
    network: nn.Module

    def __init__(self, options: dict[str, Any], inference: InferenceOptions) -> None:
        super().__init__(inference)
        self.options = self.options_class(**options)

    @abstractmethod
    def predict(self, clip: Clip, step: int) -> list[Tensor]:
        """Return logits (B, 1 + K, H, W) of the frames after the first."""

    @abstractmethod
    def backbones(self) -> Iterable[nn.Module]:
        """Return the encoders trained with the backbone's learning rate."""

    def loss(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Sum the (bootstrapped) cross-entropies of the annotated frames after the first.

        Raises:
            HodorError: the first frame or all further ones have no annotation.
        """
        if not clip.annotated[0] or not any(clip.annotated[1:]):
            raise HodorError("clip: frame 0 and a later frame must be annotated; choose a stage of dense clips")
        pairs = [(p, clip.labels[:, t]) for t, p in enumerate(self.predict(clip, step), 1) if clip.annotated[t]]
        fraction = hard_fraction(step, self.options)
        loss = torch.stack([bootstrapped_cross_entropy(*pair, fraction) for pair in pairs]).sum()
        if fraction == 1:
            return {"loss": loss}
        with torch.no_grad():
            plain = torch.stack([bootstrapped_cross_entropy(*pair, 1.0) for pair in pairs]).sum()
        return {"loss": loss, "cross_entropy": plain}

    def backbone_parameters(self) -> list[nn.Parameter]:
        return [parameter for backbone in self.backbones() for parameter in backbone.parameters()]

    def load_starting_weights(self, folder: Path) -> None:
        """Initialise the residual encoders from `resnet18.safetensors` and `resnet50.safetensors` of a weight set.

        Raises:
            HodorError: a file is missing or damaged, or its weights are of another size.
        """
        for backbone in self.backbones():
            if isinstance(backbone, ResNet):
                path = folder / f"{backbone.kind}.safetensors"
                load_imagenet(backbone, read_weights(path, "prepare this weight set")[0], path)

    @torch.inference_mode()
    def features(self, frames: Sequence[Frame]) -> list[Any]:
        geometry = self._geometry(frames[0])
        fitted, valid = fit_frames(frames, geometry, self.device, interpolation=cv2.INTER_CUBIC)
        return split(self.network.query(normalise(fitted, None if self.pads_black else valid)), 1)

    def _geometry(self, frame: Frame) -> Geometry:
        return Geometry.of(frame.shape[:2], self.inference, multiple=4 * self.options.stride, centred=True)


def add_objects(probabilities: Tensor, reference: Tensor | None) -> Tensor:
    """Append K' new objects with binary masks (1, K', H, W) to a distribution (1, 1 + K, H, W)."""
    if reference is None:
        return probabilities
    return torch.cat([probabilities * (1 - reference.amax(1, keepdim=True)), reference], dim=1)
