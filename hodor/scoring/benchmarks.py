"""The benchmarks that a row is scored on. The workflow reads them at every start: no heavy imports here."""

from dataclasses import dataclass

from hodor.errors import HodorError


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    id: name in the configuration and in folder names. dataset, split: what the readers of `hodor.data` are
    asked for.
    title: name in tables.
    """

    id: str
    dataset: str
    split: str
    title: str


BENCHMARKS = {
    benchmark.id: benchmark
    for benchmark in (
        Benchmark("davis2017-val", "davis", "val", "DAVIS-2017 val"),
        Benchmark("davis2017-test-dev", "davis", "test-dev", "DAVIS-2017 test-dev"),
    )
}


def get_benchmark(id: str) -> Benchmark:
    """The benchmark of that id; HodorError names the known ids."""
    try:
        return BENCHMARKS[id]
    except KeyError:
        raise HodorError(f"benchmark '{id}' is not known; known are {', '.join(BENCHMARKS)}") from None
