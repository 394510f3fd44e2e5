"""Learning rate by step."""

import math

from hodor.config.stages import StageOptions


def learning_rate(options: StageOptions, step: int) -> float:
    """Learning rate of step `step` (from 0): linear warm-up, then constant, stepwise or cosine decay."""
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
