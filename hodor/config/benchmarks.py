"""The benchmarks on which rows are scored. The workflow reads them at every start: no heavy imports here."""

from dataclasses import dataclass

from hodor.config.holdout import HOLDOUT
from hodor.errors import HodorError


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
