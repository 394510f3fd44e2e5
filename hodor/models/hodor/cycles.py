"""The training cycles of HODOR: from the reference frame to other frames and back (specification section 5.2).

Legend: B batch, K objects, G background patches, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hodor.models.hodor.decoder import Descriptors, History
from hodor.models.hodor.encoder import object_probabilities, predicted_masks, reference_masks, resize
from hodor.models.hodor.network import Features, Network


class Visit(NamedTuple):
    """One frame on a path: its descriptors and the objects still present, bool (B, K)."""

    descriptors: Descriptors
    present: Tensor


class Prediction(NamedTuple):
    """Logits (B, 1 + G + K, H/4, W/4) of one frame and the objects present in its sources, bool (B, K)."""

    frame: int
    logits: Tensor
    present: Tensor


def run_cycles(
    network: Network, features: list[Features], reference: Tensor, visible: list[Tensor], step: int, *, detach: bool
) -> list[Prediction]:
    """Run the three cycles of a training step on a clip of three frames.

    Cycle A visits the frames 0, 0; B: 0, 1, 0; C: 0, 1, 2, 1, 0, in odd steps with two frames of history.

    Args:
        network: the network.
        features: of the three frames, the reference first.
        reference: ground truth of the reference frame, binary (B, K, H, W) float.
        visible: the objects in the ground truth of each frame, bool (B, K); all True for frames without it.
        step: number of the training step.
        detach: whether to detach predicted masks before they are encoded again.

    Returns:
        Six predictions, of the frames 0, 1, 0, 2, 1, 0.
    """
    predictions = []

    def decode(frame: int, *sources: Visit) -> Prediction:
        history = History.of([source.descriptors for source in sources])
        present = torch.stack([source.present for source in sources]).any(0)
        predictions.append(Prediction(frame, network.decode(features[frame], history), present))
        return predictions[-1]

    def visit(frame: int, *sources: Visit) -> Visit:
        """Predict a frame and encode it with the predicted masks."""
        prediction = decode(frame, *sources)
        objects = resize(object_probabilities(prediction.logits, network.backgrounds), 1 / 2)
        masks = predicted_masks(objects.detach() if detach else objects, network.grid)
        return Visit(network.encode(features[frame], *masks), prediction.present & visible[frame])

    start = Visit(network.encode(features[0], *reference_masks(reference, network.grid)), visible[0])
    decode(0, start)
    first = visit(1, start)
    decode(0, first)
    two = step % 2 == 1
    second = visit(2, *([start, first] if two else [first]))
    back = visit(1, second)
    decode(0, *([back, second] if two else [back]))
    return predictions
