"""The narrowest networks: for tests of what is done with a network, whatever it computes."""

from pathlib import Path

import torch

from hodor.config.stages import InferenceOptions
from hodor.models.base import Method, build_method, save_model

CONVNET = {"backbone": "convnet", "backbone_width": 8, "backbone_depths": (1, 1, 1)}
NARROW = CONVNET | {
    "backbone_depths": (1, 1, 1, 1),
    "dim": 32,
    "encoder_layers": 1,
    "encoder_hidden": 32,
    "decoder_layers": 1,
    "decoder_hidden": 32,
}
"""HODOR."""
TWO_LAYERS = NARROW | {"encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
MEMORY = CONVNET | {"memory_width": 8, "memory_depths": (1, 1, 1), "key_dim": 16, "value_dim": 16, "decoder_dim": 16}
"""STM, KMN and STCN; the key grid has stride 16."""
DMN_AOA = CONVNET | {"dim": 16, "decoder_dim": 16, "roi_size": 6, "box_cells": 2}
OPTIONS = {"copy": {}, "hodor": TWO_LAYERS, "stm": MEMORY, "kmn": MEMORY, "stcn": MEMORY, "dmn-aoa": DMN_AOA}


def small(name: str, *, inference: dict | None = None, **options) -> Method:
    """Return a small network of a method, in evaluation mode; keywords replace its options."""
    torch.manual_seed(0)
    settings = InferenceOptions(**{"short_side": 64} | (inference or {}))
    return build_method(name, OPTIONS[name] | options, settings).eval()


def save_small(path: Path, name: str, options: dict) -> Method:
    """Write the model file of an untrained network of these options."""
    torch.manual_seed(0)
    method = build_method(name, options)
    save_model(path, method, name=name, options=method.options.model_dump(mode="json") if options else {})
    return method
