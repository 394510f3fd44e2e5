"""Soft aggregation: from one probability an object to a distribution over background and objects."""

import torch
from torch import Tensor

# In half precision 1 - LEAST would be 1 and the logit infinite: aggregation is in float32.
LEAST = 1e-7


def aggregate(p: Tensor) -> Tensor:
    """Logits (B, 1 + K, H, W), channel 0 background, of objects' probabilities (B, K, H, W).

    The background's probability is that of no object; softmax over the logits is the distribution (baselines
    specification, section 1.1). For one object that is sigmoid(2 logit(p)), sharper than p.
    """
    p = p.float()
    p = torch.cat([(1 - p).prod(1, keepdim=True), p], dim=1).clamp(LEAST, 1 - LEAST)
    return torch.log(p) - torch.log1p(-p)
