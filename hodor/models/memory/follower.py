"""What every method shares that is given the first frame's masks and follows the objects: training loss and frames."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import torch
from torch import Tensor, nn

from hodor.config.inference import InferenceOptions
from hodor.data.clip import Clip
from hodor.errors import HodorError
from hodor.models.backbones import normalise
from hodor.models.base import Frame, Masks, Method, check_masks, read_weights
from hodor.models.frames import Geometry, fit_frames, fit_masks
from hodor.models.memory.loss import hard_part, pixel_loss
from hodor.models.resnet import ResNet, load_imagenet


class Follower(Method):
    """Base of STM, KMN, STCN and DMN+AOA. Attributes: `options`, and `network` with a method `query(frames)`."""

    options_class: ClassVar[type]
    # STM pads when it encodes: with black, before the frame is normalised, and masks with 0. The others pad a video once:
    # with the mean colour, and what is predicted on the padding stays.
    pads_black: ClassVar[bool] = False
    network: nn.Module

    def __init__(self, options: dict[str, Any], inference: InferenceOptions) -> None:
        super().__init__(inference)
        self.options = self.options_class(**options)

    # Training

    @abstractmethod
    def predict(self, frames: Tensor, masks: Tensor, clip: Clip, step: int) -> list[Tensor]:
        """Logits (B, 1 + K, H, W) of the frames after the first.

        Args:
            frames: the clip's, normalised (B, T, 3, H, W).
            masks: (B, K, H, W) of frame 0.
            clip: all there is to learn from.
            step: number of the training step.
        """

    def loss(self, clip: Clip, step: int) -> dict[str, Tensor]:
        """Sum over the annotated frames after the first of their cross-entropies (`hodor.models.memory.loss`).

        Raises:
            HodorError: the first frame, or every other one, is without annotation.
        """
        if not clip.annotated[0] or not any(clip.annotated[1:]):
            raise HodorError("a memory method learns from clips whose frame 0 and a later one are annotated")
        ids = torch.arange(1, clip.objects + 1, device=clip.labels.device).view(1, -1, 1, 1)
        masks = (clip.labels[:, :1] == ids).float()  # (B, K, H, W)
        predictions = self.predict(normalise(clip.frames, clip.valid), masks, clip, step)
        pairs = [(p, clip.labels[:, t]) for t, p in enumerate(predictions, 1) if clip.annotated[t]]
        part = hard_part(step, self.options)
        loss = torch.stack([pixel_loss(logits, labels, part) for logits, labels in pairs]).sum()
        if part == 1:
            return {"loss": loss}
        with torch.no_grad():
            plain = torch.stack([pixel_loss(logits, labels, 1.0) for logits, labels in pairs]).sum()
        return {"loss": loss, "cross_entropy": plain}

    @abstractmethod
    def backbones(self) -> Iterable[nn.Module]:
        """Encoders that train with the backbone's learning rate."""

    def backbone_parameters(self) -> list[nn.Parameter]:
        return [parameter for backbone in self.backbones() for parameter in backbone.parameters()]

    def load_starting_weights(self, folder: Path) -> None:
        """ImageNet weights of each encoder that is a residual network, from `<folder>/resnet50.safetensors` and so on.

        Raises:
            HodorError: a missing or broken file, or weights of another size.
        """
        for backbone in self.backbones():
            if isinstance(backbone, ResNet):
                path = folder / f"{backbone.kind}.safetensors"
                load_imagenet(backbone, read_weights(path, "prepare this weight set")[0], path)

    # Inference

    @torch.inference_mode()
    def features(self, frames: Sequence[Frame]) -> list[Any]:
        """What the network knows of frames of one size without masks; one entry a frame."""
        device = next(self.parameters()).device
        geometry = self._geometry(frames[0])
        fitted, valid = fit_frames(frames, geometry, device, interpolation=cv2.INTER_CUBIC)
        query = self.network.query(normalise(fitted, None if self.pads_black else valid))
        return [query.frames(i, i + 1) for i in range(len(frames))]

    def _geometry(self, frame: Frame) -> Geometry:
        return Geometry.of(frame.shape[:2], self.inference, multiple=4 * self.options.stride, centred=True)

    def _first_objects(self, ids: list[int], geometry: Geometry, frame: Frame, masks: Masks) -> Tensor:
        """As `_new_objects`, on the first frame.

        Raises:
            HodorError: no object can be seen.
        """
        reference = self._new_objects(ids, geometry, frame, masks)
        if reference is None:
            raise HodorError(f"no object of ids {sorted(masks)} is large enough to be seen in the first frame")
        return reference

    def _new_objects(self, ids: list[int], geometry: Geometry, frame: Frame, masks: Masks | None) -> Tensor | None:
        """Binary masks (1, K', H, W) of new objects on the padded frame, None where there are none.

        Their ids are appended to `ids`. An object without a pixel is not followed.
        """
        if not masks:
            return None
        check_masks(frame, masks)
        new = sorted(set(masks) - set(ids))
        fitted = fit_masks([masks[i] for i in new], geometry, next(self.parameters()).device)
        seen = fitted.flatten(2).any(2)[0]
        ids += [i for i, keep in zip(new, seen.tolist(), strict=True) if keep]
        return fitted[:, seen] if seen.any() else None


def add_objects(probabilities: Tensor, reference: Tensor | None) -> Tensor:
    """A distribution (1, 1 + K, H, W) with K' new objects of binary masks (1, K', H, W), which take their pixels."""
    if reference is None:
        return probabilities
    return torch.cat([probabilities * (1 - reference.amax(1, keepdim=True)), reference], dim=1)
