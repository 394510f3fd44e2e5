"""Backbones: normalised images (B, 3, H, W) to maps at strides 4, 8, 16 and 32, H and W multiples of 32.

The attribute `channels` lists the widths of the maps. `extra` input channels follow the image's three.
"""
