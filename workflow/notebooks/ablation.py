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
own = {}

# %%
from pathlib import Path

from IPython.display import HTML

from hodor.config.own_datasets import declare
from hodor.reporting import gallery
from hodor.reporting.html import facts_html, figures_html, head_html, scores_html
from hodor.reporting.selection import Report

declare(own)
report = Report(Path(results), Path(runs), Path(data))
HTML(head_html({"scale": scale, "title": title, "caption": caption}, report))

# %% [markdown]
# ## The ablation table

# %%
HTML(scores_html(report, "ablation", scale == "paper"))

# %%
HTML(figures_html(gallery.intervals(report, "ablation", scale), "nothing was run"))

# %% [markdown]
# ## Baselines and further rows
#
# What a trained row has to beat: a copy of the first mask, and its own network before training.

# %%
HTML(scores_html(report, "extended", scale == "paper"))

# %% [markdown]
# ## Training curves
#
# The loss of one panel does not compare with that of another, because they train on different data. HODOR's is
# cross-entropy and dice.

# %%
HTML(figures_html(gallery.curves(report, "ablation")))

# %% [markdown]
# ## Learned alphas
#
# Alpha is what soft masking adds to the attention logit of a pixel inside the mask, one number for each head of each
# encoder layer. It starts at 32, 16, 8 and 4, a quarter of the heads each, and is learned with everything else. Rows of
# the second stage begin where their first stage ended.

# %%
HTML(figures_html(gallery.alphas(report), "no row with soft masking was trained"))

# %% [markdown]
# ## Frames with masks
#
# The sequences are chosen by rule, not by eye.

# %%
HTML(figures_html(gallery.strips(report, "ablation"), "nothing was run"))

# %% [markdown]
# ## Where the numbers come from

# %%
HTML(facts_html(report))
