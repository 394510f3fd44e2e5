"""Figures as a paper prints them, by subject: each function returns a matplotlib Figure and touches no global state.

`figure_bytes` turns a figure into the same bytes each time. Colours are those of Okabe and Ito, which people with any
common colour blindness can tell apart, and no line is told from another by colour alone; masks carry the DAVIS palette,
as everywhere in the field.
"""

from hodor.reporting.figures.attention import attention_maps
from hodor.reporting.figures.costs import accuracy_against_cost
from hodor.reporting.figures.masks import mask_strip, mosaic, overlay
from hodor.reporting.figures.scores import intervals, object_scatter, region_over_time
from hodor.reporting.figures.style import figure_bytes
from hodor.reporting.figures.training import alpha_grid, learned_alphas, running_mean, training_curves

__all__ = [
    "accuracy_against_cost",
    "alpha_grid",
    "attention_maps",
    "figure_bytes",
    "intervals",
    "learned_alphas",
    "mask_strip",
    "mosaic",
    "object_scatter",
    "overlay",
    "region_over_time",
    "running_mean",
    "training_curves",
]
