"""Figures by subject: each function returns a matplotlib Figure, or None without data, and touches no global state.

`figure_bytes` turns a figure into the same bytes each time. No line differs from another by colour alone; masks have the
colours of the DAVIS palette, as everywhere in the field.
"""

from hodor.reporting.figures.attention import attention_maps
from hodor.reporting.figures.costs import accuracy_against_cost
from hodor.reporting.figures.masks import mask_rows, mask_strip
from hodor.reporting.figures.scores import intervals, object_scatter, region_over_time
from hodor.reporting.figures.style import FORMATS, figure_bytes
from hodor.reporting.figures.training import alpha_grid, learned_alphas, training_curves

__all__ = [
    "FORMATS",
    "accuracy_against_cost",
    "alpha_grid",
    "attention_maps",
    "figure_bytes",
    "intervals",
    "learned_alphas",
    "mask_rows",
    "mask_strip",
    "object_scatter",
    "region_over_time",
    "training_curves",
]
