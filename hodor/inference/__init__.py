"""Inference: a method over the videos of a benchmark."""
