"""Optimiser, learning rate schedule, and the random numbers and operators of a reproducible step."""

import math
import os
from typing import Any

import numpy as np
import torch

from hodor.config.stages import StageOptions
from hodor.models.base import Method


def build_optimiser(method: Method, options: StageOptions, device: torch.device) -> torch.optim.Optimizer:
    """Build Adam or AdamW, fused on a GPU; the learning rate of a parameter group is `factor` times the schedule's."""
    factors = {id(parameter): options.backbone_factor for parameter in method.backbone_parameters()}
    factors |= {id(parameter): options.alpha_factor for parameter in method.alpha_parameters()}
    undecayed = {id(parameter) for parameter in method.undecayed_parameters()}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter in method.parameters():
        if parameter.requires_grad:
            factor, decays = factors.get(id(parameter), 1.0), id(parameter) not in undecayed
            decay = options.weight_decay if decays else 0.0
            group = groups.setdefault((factor, decays), {"params": [], "factor": factor, "weight_decay": decay})
            group["params"].append(parameter)
    optimiser = torch.optim.AdamW if options.optimiser == "adamw" else torch.optim.Adam
    return optimiser(list(groups.values()), lr=0.0, fused=True if device.type == "cuda" else None)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group, scaled by its factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def learning_rate(options: StageOptions, step: int) -> float:
    """Return the learning rate of step `step` (from 0): linear warm-up, then constant, stepwise or cosine decay."""
    if step < options.warmup_steps:
        part = (step + 1) / options.warmup_steps
        return options.warmup_start + (options.learning_rate - options.warmup_start) * part
    if options.schedule == "step":
        passed = sum(step >= milestone for milestone in options.decay_steps)
        return options.learning_rate * options.decay_factor**passed
    if options.schedule == "cosine":
        part = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
    return options.learning_rate


def seed_step(seed: int, step: int, place: int) -> None:
    """Seed torch, on all devices, for the clips from `place` on of the batch of `step` (dropout, dropped paths).

    The seed depends on nothing that was computed before: no random state is saved, a run may resume with another number of
    workers, and no two workers drop the same units.
    """
    words = np.random.SeedSequence([seed, step, place, 2206]).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))


def use_deterministic_algorithms(wanted: bool) -> None:
    """Select operators that are deterministic on a GPU; torch warns about those that have no such form.

    On a CPU all operators used here are deterministic for a given number of threads (docs/determinism.md).
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.backends.cudnn.benchmark = False
    # `torch.use_deterministic_algorithms(wanted, warn_only=True)` without its import of the compiler (2 s).
    torch.set_deterministic_debug_mode("warn" if wanted else "default")
    # Their backward passes add with atomics, about which torch only warns.
    torch.backends.cuda.enable_flash_sdp(not wanted)
    torch.backends.cuda.enable_mem_efficient_sdp(not wanted)
    torch.backends.cuda.enable_cudnn_sdp(not wanted)
