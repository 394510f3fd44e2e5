"""The benchmarks on which rows are scored, and the rule of the hold-out of YouTube-VOS train.

The ground truth of YouTube-VOS valid is secret, so a part of train replaces it: the videos with an object of a category
of `UNSEEN`, and others by a hash of their name. Training on the rest never sees these categories, as training on train
never sees the unseen ones of valid. `config/ytvos_holdout.csv` lists the videos held out of the official train, which is
the same in 2018 and 2019.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from hodor.config.validation import known_in
from hodor.errors import HodorError

UNSEEN = ("eagle", "frisbee", "lion", "motorbike", "parachute", "penguin", "snail", "truck", "umbrella", "worm")
"""Categories of which every video is held out, 16 to 57 each; the last one exists in generated data only."""

SEEN_SHARE = 0.05
"""Fraction of the other videos that is held out."""

HOLDOUT, REST = "holdout", "train-without-holdout"
"""Splits of YouTube-VOS: the videos held out, and the others."""


@dataclass(frozen=True)
class Benchmark:
    """A split of a data set with the protocol of its scores.

    Attributes:
        id: name in the configuration and in folder names.
        dataset, split: arguments of the readers of `hodor.data`.
        title: name in tables.
        metric: J&F, the mean over objects; or G, the mean of J and F over seen and unseen categories.
        secret: whether only a server (config/servers.yaml) has the official ground truth.
        own: whether it is of a data set of the user (`hodor.config.own_datasets`).
        source: ", <origin>, <licence>" of such a data set.
    """

    id: str
    dataset: str
    split: str
    title: str
    metric: str = "J&F"
    secret: bool = False
    own: bool = False
    source: str = ""


BENCHMARKS = {
    benchmark.id: benchmark
    for benchmark in (
        Benchmark("davis2016-val", "davis2016", "val", "DAVIS-2016 val"),
        Benchmark("davis2017-val", "davis", "val", "DAVIS-2017 val"),
        Benchmark("davis2017-test-dev", "davis", "test-dev", "DAVIS-2017 test-dev", secret=True),
        Benchmark("ytvos2018-val", "youtube-vos-2018", "valid", "YouTube-VOS 2018 val", "G", secret=True),
        Benchmark("ytvos2019-val", "youtube-vos", "valid", "YouTube-VOS 2019 val", "G", secret=True),
        Benchmark("ytvos-holdout", "youtube-vos", HOLDOUT, "YouTube-VOS hold-out", "G"),
    )
}


BenchmarkId = known_in(BENCHMARKS)


def get_benchmark(id: str) -> Benchmark:
    """Return the benchmark of an id; HodorError for an unknown one lists the known ids."""
    try:
        return BENCHMARKS[id]
    except KeyError:
        raise HodorError(f"benchmark '{id}' is not known; known are {', '.join(BENCHMARKS)}") from None


def is_secret(id: str, edition: str) -> bool:
    """Return whether the ground truth of a benchmark is secret in an edition of its data set; generated data has all."""
    return get_benchmark(id).secret and edition != "generated"


def held_out(video: str, categories: Iterable[str | None]) -> bool:
    """Return whether a video of train is held out, by its name and the categories of its objects."""
    if not set(UNSEEN).isdisjoint(categories):
        return True
    number = int.from_bytes(hashlib.sha256(f"ytvos-holdout/{video}".encode()).digest()[:8], "big")
    return number < SEEN_SHARE * 2**64
