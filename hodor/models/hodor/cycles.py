"""The training cycles of HODOR: from the reference frame to other frames and back (specification section 5.2).

Legend: B batch, K objects, G background patches, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hodor.models.hodor.decoder import History
from hodor.models.hodor.encoder import object_probabilities, predicted_masks, reference_masks, resize
from hodor.models.hodor.network import Features, Network


@dataclass
class Visit:
    """One frame on a path: its descriptors (backgrounds, objects) and the objects still present, bool (B, K)."""

    descriptors: tuple[Tensor, Tensor]
    present: Tensor


@dataclass
class Prediction:
    """Logits (B, 1 + G + K, H/4, W/4) of one frame and the objects present in its sources, bool (B, K)."""

    frame: int
    logits: Tensor
    present: Tensor


class Cycles:
    """The three cycles of one training step on a clip of three frames.

    Args:
        network: the network.
        features: of the three frames, the reference first.
        reference: ground truth of the reference frame, binary (B, K, H, W) float.
        visible: the objects in the ground truth of each frame, bool (B, K); all True for frames without it.
        detach: whether to detach predicted masks before they are encoded again.
    """

    def __init__(
        self,
        network: Network,
        features: list[Features],
        reference: Tensor,
        visible: list[Tensor],
        *,
        detach: bool,
    ) -> None:
        self.network, self.features, self.visible, self.detach = network, features, visible, detach
        self.predictions: list[Prediction] = []
        masks = reference_masks(reference, network.grid)
        self.reference = Visit(network.encode(features[0], *masks), visible[0])

    def run(self, step: int) -> list[Prediction]:
        """Return six predictions, of the frames 0, 1, 0, 2, 1, 0, with four encodings.

        Cycle A: 0, 0. B: 0, 1, 0. C: 0, 1, 2, 1, 0, in odd steps with two frames of history.
        """
        start = self.reference
        self._decode(0, [start])
        first = self._visit(1, [start])
        self._decode(0, [first])
        two = step % 2 == 1
        second = self._visit(2, [start, first] if two else [first])
        back = self._visit(1, [second])
        self._decode(0, [back, second] if two else [back])
        return self.predictions

    def _decode(self, frame: int, sources: list[Visit]) -> Prediction:
        history = History.of([source.descriptors for source in sources])
        present = torch.stack([source.present for source in sources]).any(0)
        prediction = Prediction(frame, self.network.decode(self.features[frame], history), present)
        self.predictions.append(prediction)
        return prediction

    def _visit(self, frame: int, sources: list[Visit]) -> Visit:
        """Predict a frame and encode it with the predicted masks."""
        prediction = self._decode(frame, sources)
        objects = resize(object_probabilities(prediction.logits, self.network.backgrounds), 1 / 2)
        if self.detach:
            objects = objects.detach()
        masks = predicted_masks(objects, self.network.grid)
        descriptors = self.network.encode(self.features[frame], *masks)
        return Visit(descriptors, prediction.present & self.visible[frame])
