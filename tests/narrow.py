"""The narrowest networks: for tests of what is done with a network, whatever it computes."""

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
MEMORY = CONVNET | {"memory_width": 8, "memory_depths": (1, 1, 1), "key_dim": 16, "value_dim": 16, "decoder_dim": 16}
"""STM, KMN and STCN; the key grid has stride 16."""
DMN_AOA = CONVNET | {"dim": 16, "decoder_dim": 16, "roi_size": 6, "box_cells": 2}
