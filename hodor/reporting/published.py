"""The numbers of the paper, as data (config/published.csv): never mixed with measured ones."""

from collections.abc import Iterable, Mapping

from hodor.errors import HodorError

COLUMNS = ("table", "row", "benchmark", "metric", "value", "source", "note")


def published_value(published: Iterable[Mapping], row: str, benchmark: str, metric: str = "J&F") -> float | None:
    """The published value of a row on a benchmark, in points (0..100); None where nothing was published.

    Args:
        published: lines of config/published.csv as dicts.

    Raises:
        HodorError: a value that is no number in 0..100, or two tables that disagree.
    """
    found = set()
    for entry in published:
        if (entry["row"], entry["benchmark"], entry["metric"]) == (row, benchmark, metric):
            try:
                value = float(entry["value"])
            except (TypeError, ValueError):
                value = -1.0
            if not 0 <= value <= 100:
                raise HodorError(
                    f"config/published.csv: {row}, {benchmark}, {metric}: '{entry['value']}' is not in 0..100"
                )
            found.add(value)
    if len(found) > 1:
        raise HodorError(
            f"config/published.csv: {row}, {benchmark}, {metric}: its tables give {sorted(found)}; correct one"
        )
    return found.pop() if found else None


def published_note(published: Iterable[Mapping], row: str, benchmark: str, metric: str) -> str:
    """What config/published.csv notes on the number of the comparison table; empty where there is no note."""
    key = ("comparison", row, benchmark, metric)
    notes = [
        entry["note"]
        for entry in published
        if (entry["table"], entry["row"], entry["benchmark"], entry["metric"]) == key
    ]
    return "; ".join(filter(None, notes))
