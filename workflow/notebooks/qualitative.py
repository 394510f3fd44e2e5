# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft-masked attention: what the masks look like

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
from hodor.reporting.html import facts_html, figures_html, head_html
from hodor.reporting.selection import Report

declare(own)
report = Report(Path(results), Path(runs), Path(data))
HTML(head_html({"scale": scale, "title": title, "caption": caption}, report))

# %% [markdown]
# Every sequence, object and frame on this page is chosen by a rule that its caption states, never by eye.
#
# ## Masks of all systems

# %%
HTML(
    figures_html(
        (shown for table in ("ablation", "comparison") for shown in gallery.strips(report, table)), "nothing was run"
    )
)

# %% [markdown]
# ## Failure cases
#
# The objects on which two rows with the same training data differ most.

# %%
HTML(figures_html(gallery.failures(report), "no two rows with the same training data were run, or they never differ"))

# %% [markdown]
# ## Objects that vanish

# %%
HTML(figures_html(gallery.vanishing(report), "no row of the ablation was run"))

# %% [markdown]
# ## Soft masking against none and hard, object by object

# %%
HTML(figures_html(gallery.objects(report), "soft masking and another masking were not both run"))

# %% [markdown]
# ## Where the heads look
#
# The encoder turns an object into a descriptor: a query that gathers features from the pixels, once in each layer, with
# several heads. Soft masking adds alpha times the mask to the logits of a head; hard masking shuts out the pixels below
# one half; without masking nothing but the descriptor's start, the mean feature under the mask, tells objects apart.

# %%
HTML(figures_html(gallery.attention(report), "no row with soft masking was run, or its object is too small to be tracked"))

# %% [markdown]
# ## Where the numbers come from

# %%
HTML(facts_html(report))
