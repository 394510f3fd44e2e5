"""Each table as people see it, by its name."""

from collections.abc import Sequence

from hodor.reporting import comparison, readable
from hodor.reporting.readable import Line, Released, View


def table_view(table: str, lines: Sequence[Line], beside: bool, released: Released | None = None) -> View:
    """What people see of a table.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: of its CSV.
        beside: whether the paper's numbers stand next to ours, which they may at the scale of the paper alone.
        released: the numbers of the authors' released weights, for which the same holds.
    """
    return (comparison if table == "comparison" else readable).view(lines, beside, released)
