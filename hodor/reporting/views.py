"""Each table as people see it, by its name."""

from collections.abc import Sequence

from hodor.reporting import comparison, readable
from hodor.reporting.readable import Line, View


def table_view(table: str, lines: Sequence[Line], beside: bool) -> View:
    """What people see of a table.

    Args:
        table: "ablation", "comparison" or "extended".
        lines: of its CSV.
        beside: whether the paper's numbers stand next to ours, which they may at the scale of the paper alone.
    """
    return (comparison if table == "comparison" else readable).view(lines, beside)
