"""Random numbers of a training step: those of dropout and of dropped paths.

They follow from the seed, the step and the place of the clips in the batch, and from nothing that went before. So no
random state has to be saved, a run may go on with other processes, and no two processes drop alike.
"""

import numpy as np
import torch


def seed_step(seed: int, step: int, place: int) -> None:
    """Set torch's random numbers, on all devices, for the clips from `place` on of the batch of `step`."""
    words = np.random.SeedSequence([seed, step, place, 2206]).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))
