# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft-masked attention: attention variants and training data

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

from hodor.reporting import gallery
from hodor.reporting.notebook import show_all
from hodor.reporting.page import facts_html, report_head, table_html
from hodor.reporting.report import Report

report = Report(Path(results), Path(runs), Path(data))
HTML(report_head({"scale": scale, "title": title, "caption": caption}, report))

# %% [markdown]
# ## The ablation table

# %%
HTML(table_html("ablation", report.ablation, at_paper_scale=scale == "paper"))

# %%
show_all(gallery.intervals(report, "ablation", scale), "nothing was run")

# %% [markdown]
# ## Baselines and further rows
#
# What a trained row has to beat: a copy of the first mask, and its own network before training.

# %%
HTML(table_html("extended", report.extended, at_paper_scale=scale == "paper"))

# %% [markdown]
# ## Training curves
#
# The loss of one panel does not compare with that of another, because they train on different data. HODOR's is
# cross-entropy and dice.

# %%
show_all(gallery.curves(report, "ablation"))

# %% [markdown]
# ## Learned alphas
#
# Alpha is what soft masking adds to the attention logit of a pixel inside the mask, one number for each head of each
# encoder layer. It starts at 32, 16, 8 and 4, a quarter of the heads each, and is learned with everything else. Rows of
# the second stage begin where their first stage ended.

# %%
show_all(gallery.alphas(report), "no row with soft masking was trained")

# %% [markdown]
# ## Frames with masks
#
# The sequences are chosen by rule, not by eye.

# %%
show_all(gallery.strips(report, "ablation"), "nothing was run")

# %% [markdown]
# ## Where the numbers come from

# %%
HTML(facts_html(report.provenance()))
