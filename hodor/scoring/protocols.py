"""The protocol of each benchmark: its rules in words, and what it asks of each sequence."""

from pathlib import Path

from hodor.config.benchmarks import Benchmark
from hodor.scoring import davis, youtube_vos
from hodor.scoring.sequences import Task


def protocol(benchmark: Benchmark) -> dict[str, str]:
    """The rules in words, for provenance files."""
    if benchmark.dataset.startswith("youtube-vos"):
        return youtube_vos.PROTOCOL
    return davis.PROTOCOL_2016 if benchmark.dataset == "davis2016" else davis.PROTOCOL


def get_tasks(benchmark: Benchmark, truth: Path, *, scored: bool = True) -> list[Task]:
    """What the benchmark asks of each of its sequences, in their order.

    Args:
        truth: folder of the data set.
        scored: whether the true masks must be there; without them the tasks say which masks are demanded.

    Raises:
        HodorError: the true masks are needed and secret, a sequence is too short, or as the readers.
    """
    if benchmark.dataset.startswith("youtube-vos"):
        return youtube_vos.youtube_vos_tasks(truth, benchmark.split, scored=scored)
    load = davis.davis2016_tasks if benchmark.dataset == "davis2016" else davis.davis_tasks
    tasks = load(truth, benchmark.split)
    if scored:
        davis.check_truth(tasks)
    return tasks


def data_folder(benchmark: Benchmark, truth: Path) -> Path:
    """The folder of the data set, beside which its manifest lies."""
    return truth if benchmark.dataset.startswith("youtube-vos") else davis.davis_root(truth)
