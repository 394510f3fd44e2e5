"""The narrowest HODOR: for tests of what is done with a network, whatever it computes."""

NARROW = {
    "backbone": "convnet",
    "backbone_width": 8,
    "backbone_depths": (1, 1, 1, 1),
    "dim": 32,
    "encoder_layers": 1,
    "encoder_hidden": 32,
    "decoder_layers": 1,
    "decoder_hidden": 32,
}
