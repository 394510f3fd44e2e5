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
own = {}

# %%
from pathlib import Path

from IPython.display import HTML

from hodor.config.own_datasets import declare
from hodor.reporting import gallery
from hodor.reporting.html import costs_html, facts_html, figures_html, head_html, scores_html
from hodor.reporting.selection import Report

declare(own)
report = Report(Path(results), Path(runs), Path(data))
HTML(head_html({"scale": scale, "title": title, "caption": caption}, report))

# %% [markdown]
# ## The comparison table

# %%
HTML(scores_html(report, "comparison", scale == "paper"))

# %%
HTML(figures_html(gallery.intervals(report, "comparison", scale), "nothing was run"))

# %% [markdown]
# ## Training curves
#
# The loss of one panel does not compare with that of another, because they train on different data; nor does that of one
# method with that of another, because each has a loss of its own.

# %%
HTML(figures_html(gallery.curves(report, "comparison")))

# %% [markdown]
# ## Frames with masks
#
# The sequences are chosen by rule, not by eye.

# %%
HTML(figures_html(gallery.strips(report, "comparison"), "nothing was run"))

# %% [markdown]
# ## Time, memory and speed
#
# Frames per second and memory of one machine: they differ from run to run.

# %%
HTML(costs_html(report, "comparison"))

# %%
HTML(figures_html(gallery.costs(report), "nothing was run"))

# %% [markdown]
# ## Where the numbers come from

# %%
HTML(facts_html(report))
