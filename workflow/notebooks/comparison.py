# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft-masked attention: comparison with other methods

# %% tags=["parameters"]
scale = "mini"
title = "mini"
caption = ""
results = "results/mini"
runs = "runs/mini"
data = "data/mini"

# %%
from pathlib import Path

from IPython.display import HTML

from hodor.reporting import figures
from hodor.reporting.notebook import show
from hodor.reporting.page import costs_html, facts_html, scale_banner, table_html
from hodor.reporting.report import Report
from hodor.reporting.words import scale_statement

report = Report(Path(results), Path(runs), Path(data))
notes = report.notes(report.comparison)
HTML(
    scale_banner(scale_statement({"scale": scale, "caption": caption}))
    + facts_html([("scale", title), *report.provenance()])
)

# %% [markdown]
# ## The comparison table

# %%
HTML(table_html("comparison", report.comparison, at_paper_scale=scale == "paper"))

# %% [markdown]
# ## Training curves
#
# Thin: the logged loss. Thick: its running mean. The loss of one panel does not compare with that of another,
# because they train on different data; nor does that of one method with that of another, because each has a loss
# of its own.

# %%
show(
    figures.training_curves(report.curves(report.comparison)),
    "Training loss over steps, one panel for each training set, one line for each row",
    caption=notes,
)

# %% [markdown]
# ## Frames with masks
#
# The sequences are chosen by rule, not by eye. The first frame's mask is given to every system. Colours are
# those of the DAVIS palette; the number beside a row is its J&F on the sequence, in points.

# %%
for why, video, systems, scores in report.strips(report.comparison):
    show(
        figures.mask_strip(video, systems, scores),
        f"Frames of {video.name} with the masks of the ground truth and of each row",
        caption="; ".join(filter(None, [f"{video.name}: {why}", notes])),
        format="jpeg",
    )

# %% [markdown]
# ## Time, memory and speed
#
# Frames per second and memory of one machine: they differ from run to run.

# %%
HTML(costs_html(report.costs(report.comparison)))
