"""An original checkpoint as a method that is ready to use: what `hodor convert` writes, without a file between."""

from pathlib import Path

from hodor.errors import HodorError
from hodor.models.base import Method, build_method, load_weights
from hodor.models.original.checkpoint import read_checkpoint
from hodor.models.original.convert import convert_to_ours, require
from hodor.models.original.format import Report
from hodor.models.original.formats import recognise


def load_original(path: Path) -> tuple[str, Method, Report]:
    """Method id, method with the checkpoint's weights (evaluation mode) and the report of the conversion.

    Strict, as `hodor convert`: every live entry has its place or is an error.

    Raises:
        HodorError: the file is missing, damaged or of no known release, has faults, or holds starting weights of a
            part of a network instead of a whole one.
    """
    entries = read_checkpoint(path)
    kind = recognise(entries, path)
    if kind.method is None:
        raise HodorError(f"{path}: {kind.about}: starting weights of a part of a network, which segment nothing")
    weights, options, report = convert_to_ours(kind, entries)
    report.recognised = True
    require(report, path)
    method = build_method(kind.method, options)
    load_weights(method, weights, path)
    return kind.method, method.eval(), report
