"""Conversion between released checkpoints, or initial weights of backbones, and model files of this project."""
