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

from hodor.reporting import figures
from hodor.reporting.notebook import show
from hodor.reporting.page import facts_html, scale_banner, table_html
from hodor.reporting.report import Report
from hodor.reporting.words import scale_statement

report = Report(Path(results), Path(runs), Path(data))
HTML(
    scale_banner(scale_statement({"scale": scale, "caption": caption}))
    + facts_html([("scale", title), *report.provenance()])
)

# %% [markdown]
# ## The ablation table

# %%
HTML(table_html("ablation", report.ablation, at_paper_scale=scale == "paper"))

# %% [markdown]
# ## Baselines and further rows
#
# What a trained row has to beat: a copy of the first mask, and its own network before training.

# %%
HTML(table_html("extended", report.extended, at_paper_scale=scale == "paper"))

# %% [markdown]
# ## Training curves
#
# Thin: the logged loss. Thick: its running mean. The loss of one panel does not compare with that of another,
# because they train on different data. HODOR's is cross-entropy and dice.

# %%
show(
    figures.training_curves(report.curves(report.ablation)),
    "Training loss over steps, one panel for each training set, one line for each row",
)

# %% [markdown]
# ## Learned alphas
#
# Alpha is what soft masking subtracts from the attention logit of a pixel outside the mask, one number for
# each head of each encoder layer. It starts at 32, 16, 8 and 4, a quarter of the heads each, and is learned
# with everything else. Drawn is how far it moved from there. Rows of the second stage begin where their first
# stage ended.

# %%
for row, run in report.soft_runs():
    show(figures.learned_alphas(row, run), f"Change of alpha by head and layer over the steps of {row}")

# %% [markdown]
# ## Frames with masks
#
# The sequences are chosen by rule, not by eye. The first frame's mask is given to every system. Colours are
# those of the DAVIS palette; the number beside a row is its J&F on the sequence, in points.

# %%
for why, video, systems, scores in report.strips(report.ablation):
    show(
        figures.mask_strip(video, systems, scores),
        f"Frames of {video.name} with the masks of the ground truth and of each row",
        caption=f"{video.name}: {why}",
        format="jpeg",
    )
