"""Copying the first mask: the baseline that a trained method must beat."""
