"""A hold-out of YouTube-VOS train, in place of valid, whose ground truth only a server has.

A video of train is held out when it shows an object of a category of `UNSEEN`, or by a hash of its name: no training on
the rest ever sees those categories, as none on train sees the unseen ones of valid. The rule needs nothing
but a video's own name and objects, so that it is the same wherever it is applied; `config/ytvos_holdout.csv` lists what
it gives on the official train (2018 and 2019 have the same train videos), and a test compares.
"""

import hashlib
from collections.abc import Iterable

UNSEEN = ("eagle", "frisbee", "lion", "motorbike", "parachute", "penguin", "snail", "truck", "umbrella", "worm")
"""Categories held out whole: animals, vehicles and things, 16 to 57 videos each; the last is of the generated world."""

SEEN_SHARE = 0.05
"""Part of the other videos that is held out as well."""

HOLDOUT, REST = "holdout", "train-without-holdout"
"""Splits of YouTube-VOS: the videos held out, and the others."""


def held_out(video: str, categories: Iterable[str | None]) -> bool:
    """Whether a video of train, by its name and the categories of its objects, is held out."""
    if not set(UNSEEN).isdisjoint(categories):
        return True
    number = int.from_bytes(hashlib.sha256(f"ytvos-holdout/{video}".encode()).digest()[:8], "big")
    return number < SEEN_SHARE * 2**64
