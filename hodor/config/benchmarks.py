"""The benchmarks on which rows are scored, and the hold-out of YouTube-VOS train that one of them is.

A video of train is held out when it shows an object of a category of `UNSEEN`, or by a hash of its name: no training on
the rest ever sees those categories, as none on train sees the unseen ones of valid, whose ground truth only a server
has. `config/ytvos_holdout.csv` lists what the rule gives on the official train (2018 and 2019 have the same train
videos), and a test compares.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from hodor.errors import HodorError

UNSEEN = ("eagle", "frisbee", "lion", "motorbike", "parachute", "penguin", "snail", "truck", "umbrella", "worm")
"""Categories held out whole: animals, vehicles and things, 16 to 57 videos each; the last is of the generated world."""

SEEN_SHARE = 0.05
"""Part of the other videos that is held out as well."""

HOLDOUT, REST = "holdout", "train-without-holdout"
"""Splits of YouTube-VOS: the videos held out, and the others."""


@dataclass(frozen=True)
class Benchmark:
    """A split of a data set with the protocol of its scores.

    Attributes:
        id: name in the configuration and in folder names.
        dataset, split: arguments for the readers of `hodor.data`.
        title: name in tables.
        metric: headline score: J&F, the mean over objects; or G, the mean of J and F over seen and unseen categories.
        frames: which frames a method sees and which of them are scored, for tables and pages.
        secret: whether only a server (config/servers.yaml) has the official ground truth; generated editions have all.
    """

    id: str
    dataset: str
    split: str
    title: str
    metric: str = "J&F"
    frames: str = "every frame seen; all but the first and the last scored"
    secret: bool = False


_SIX = "6 frames a second seen; those that meta.json lists for an object scored, except its first"

BENCHMARKS = {
    benchmark.id: benchmark
    for benchmark in (
        Benchmark("davis2016-val", "davis2016", "val", "DAVIS-2016 val"),
        Benchmark("davis2017-val", "davis", "val", "DAVIS-2017 val"),
        Benchmark("davis2017-test-dev", "davis", "test-dev", "DAVIS-2017 test-dev", secret=True),
        Benchmark("ytvos2018-val", "youtube-vos-2018", "valid", "YouTube-VOS 2018 val", "G", _SIX, secret=True),
        Benchmark("ytvos2019-val", "youtube-vos", "valid", "YouTube-VOS 2019 val", "G", _SIX, secret=True),
        Benchmark("ytvos-holdout", "youtube-vos", HOLDOUT, "YouTube-VOS hold-out", "G", _SIX),
    )
}


def get_benchmark(id: str) -> Benchmark:
    """Return the benchmark of an id; HodorError lists the known ids."""
    try:
        return BENCHMARKS[id]
    except KeyError:
        raise HodorError(f"benchmark '{id}' is not known; known are {', '.join(BENCHMARKS)}") from None


def is_secret(id: str, edition: str) -> bool:
    """Return whether a server has to score a benchmark of this edition of its data set."""
    return get_benchmark(id).secret and edition != "generated"


def held_out(video: str, categories: Iterable[str | None]) -> bool:
    """Whether a video of train, by its name and the categories of its objects, is held out."""
    if not set(UNSEEN).isdisjoint(categories):
        return True
    number = int.from_bytes(hashlib.sha256(f"ytvos-holdout/{video}".encode()).digest()[:8], "big")
    return number < SEEN_SHARE * 2**64
