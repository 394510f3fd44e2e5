"""Starting weights of HODOR: a Swin-T backbone, and the pyramid where the weight set has one.

As published, training starts from the backbone and the pyramid of a COCO detector. ImageNet weights have no pyramid and
no norms of the four maps, which then start at random: a different experiment, whose results must say so (specification
section 1).
"""

import json
import re
from pathlib import Path

from hodor.errors import HodorError
from hodor.models.base import differences, read_weights
from hodor.models.hodor.network import Network

FILE = "swin.safetensors"

# What ImageNet weights lack.
_ABSENT = re.compile(r"pyramid\.|backbone\.norm\d\.")


def load_swin(network: Network, folder: Path) -> None:
    """Load `swin.safetensors` of a weight set strictly, and print which entries keep their starting values.

    Raises:
        HodorError: a missing or broken file, or entries that are missing, unexpected or of another shape.
    """
    path = folder / FILE
    weights, metadata = read_weights(path, "prepare this weight set")
    recorded = json.loads(metadata.get("weights", "{}")).get("format")
    own = {name: value for name, value in network.state_dict().items() if name.startswith(("backbone.", "pyramid."))}
    kept = sorted(own.keys() - weights.keys())
    missing = [name for name in kept if recorded != "swin-imagenet" or not _ABSENT.match(name)]
    unexpected = sorted(weights.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if told := differences(missing=missing, unexpected=unexpected, of_another_shape=shapes):
        raise HodorError(
            f"{path}: does not fit the network: {told}; weight sets are for `backbone_width: 96`, "
            "`backbone_depths: [2, 2, 6, 2]` and `dim: 256`"
        )
    network.load_state_dict(weights, strict=False)
    print(f"{path}: {len(weights)} entries loaded", flush=True)
    if kept:
        print(f"{path}: has no {len(kept)} entries that start at random: {', '.join(kept)}", flush=True)
