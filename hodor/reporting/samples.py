"""The runs of a row as what the statistics resample: every object's score, for each seed."""

import math
from collections.abc import Mapping, Sequence

from hodor.config.benchmarks import get_benchmark
from hodor.reporting.runs import Prediction, Run
from hodor.scoring.statistics import Bootstrap, Sample, estimate


def sample(runs: Sequence[Run], benchmark: str) -> Sample | None:
    """Scores of a row's runs on a benchmark in points, the mean of J and F of each object.

    Objects of YouTube-VOS have a `category`, seen or unseen, whose means are averaged; then the sample's score is G. All
    objects of DAVIS are one group, and its score is J&F. None where nothing was scored, or a server scored it and gave no
    more than its mean.
    """
    predictions = {run.seed: run.predictions[benchmark] for run in runs if benchmark in run.predictions}
    if not predictions or not all(prediction.objects for prediction in predictions.values()):
        return None
    scores = {seed: _objects(prediction) for seed, prediction in predictions.items()}
    first = next(iter(predictions.values()))
    return Sample(scores, {_key(name): first.categories.get(name, "") for name in first.objects})


def metric(benchmark: str) -> str:
    """What a benchmark's score is called: G on YouTube-VOS, J&F on DAVIS."""
    return get_benchmark(benchmark).metric


def score(runs: Sequence[Run], benchmark: str) -> list[float]:
    """A row's score in points for each seed, as its global.csv has it; empty where a seed has none (yet)."""
    column = "G" if metric(benchmark) == "G" else "J&F-Mean"
    found = [run.predictions[benchmark].overall for run in runs if benchmark in run.predictions]
    values = [100 * overall[column] for overall in found if math.isfinite(overall.get(column, math.nan))]
    return values if len(values) == len(runs) else []


def interval_cells(runs: Sequence[Run], benchmark: str, bootstrap: Bootstrap) -> tuple[str, str]:
    """Ends of the 95 % interval of a row's score in points, as a table's CSV has them; empty where there is none."""
    found = sample(runs, benchmark)
    if found is None:
        return "", ""
    result = estimate(found, bootstrap)
    return f"{result.low:.4f}", f"{result.high:.4f}"


def bootstrap_line(settings: Mapping[str, int]) -> tuple[str, str]:
    """(what, value) for the foot of a table: how its intervals were made. settings: {"resamples", "seed"}."""
    return (
        "intervals",
        f"95 %, percentile bootstrap over sequences and seeds, {settings['resamples']:,} resamples, "
        f"generator seed {settings['seed']}",
    )


def _objects(prediction: Prediction) -> dict[tuple[str, str], float]:
    return {_key(name): 50 * (entry["J-Mean"] + entry["F-Mean"]) for name, entry in prediction.objects.items()}


def _key(name: str) -> tuple[str, str]:
    sequence, _, id = name.rpartition("_")
    return sequence, id
