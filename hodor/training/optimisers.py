"""The optimiser of a stage."""

from typing import Any

import torch

from hodor.config.stages import StageOptions
from hodor.models.base import Method


def build_optimiser(method: Method, options: StageOptions, device: torch.device) -> torch.optim.Optimizer:
    """Adam or AdamW; each group's `factor` is what its learning rate is of the schedule's. Fused on a GPU."""
    backbone = {id(parameter) for parameter in method.backbone_parameters()}
    undecayed = {id(parameter) for parameter in method.undecayed_parameters()}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in method.parameters():
        if parameter.requires_grad:
            kind = (id(parameter) in backbone, id(parameter) in undecayed)
            factor = options.backbone_factor if kind[0] else 1.0
            decay = 0.0 if kind[1] else options.weight_decay
            group = groups.setdefault(kind, {"params": [], "factor": factor, "weight_decay": decay})
            group["params"].append(parameter)
    optimiser = torch.optim.AdamW if options.optimiser == "adamw" else torch.optim.Adam
    return optimiser(list(groups.values()), lr=0.0, fused=True if device.type == "cuda" else None)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
