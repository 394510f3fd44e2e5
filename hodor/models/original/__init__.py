"""Checkpoints of the original releases: their names, and the way to our files and back (`hodor convert`)."""
